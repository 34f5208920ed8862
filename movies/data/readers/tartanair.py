"""TartanAir (v1): rendered flights through 18 environments, 640x480, static for our purposes.

`<root>/<env>/{Easy,Hard}/P000/` holds image_left/000000_left.png, depth_left/000000_left_depth.npy and pose_left.txt,
and the same of the right camera; unpacked archives often double the environment's folder. Poses are camera-to-world in
NED axes, depth is metres along z.
Source: castacks/tartanair_tools, data_type.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from movies.data.readers.files import list_files, numbered, read_npy, read_table
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    first_size,
    matched,
    normalised_cameras,
    open_sequences,
    valid_or_zero,
    with_last_row,
)
from movies.errors import InputError

FXFYCXCY = (0.5, 320 / 480, 0.5, 0.5)  # 90 degrees wide; in no file of the dataset
SKY = 1000.0  # metres; the sky is stored as about 10000
# NED axes (x forward, y right, z down) to OpenCV's.
_FROM_NED = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


def tartanair_sequences(
    root: str | Path, *, camera: str = "left", names: Iterable[str] | None = None, short_side: int = 0
) -> list:
    """Sequences of one camera of the pair, "left" or "right", of all environments that are there.

    Raises InputError where there is none.
    """
    if camera not in ("left", "right"):
        raise InputError(f"camera must be left or right, got {camera!r}")
    find = partial(_find, camera=camera)
    return open_sequences(TartanAirSequence, root, names, find, short_side=short_side, camera=camera)


def _find(root: Path, camera: str) -> Iterator[str]:
    for folder in ("*/[EH]a*/P*", "*/*/[EH]a*/P*"):  # Easy and Hard
        for poses in root.glob(f"{folder}/pose_{camera}.txt"):
            yield poses.parent.relative_to(root).as_posix()


@dataclass(frozen=True)
class TartanAirSequence(FrameSequence):
    """One flight, `<env>/<Easy or Hard>/P000`, seen by one camera."""

    camera: str = "left"

    is_static = True
    label = "TartanAir"
    expected = "<env>/Easy/P000/pose_left.txt with image_left/ and depth_left/"

    def frames(self) -> Frames:
        images = numbered(list_files(self.folder / f"image_{self.camera}", ".png", ".jpg"))
        depths = numbered(list_files(self.folder / f"depth_{self.camera}", ".npy"))
        c2w = _c2w(self.folder / f"pose_{self.camera}.txt")
        numbers, images, depths = matched(images, range(len(c2w)), depths)
        cameras = normalised_cameras(c2w[list(numbers)], np.tile(FXFYCXCY, (len(numbers), 1)))
        return Frames(images, cameras, depths, numbers, first_size(images))

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W]
        path = frames.depths[index]
        depth = read_npy(path)
        if depth.dtype.kind != "f":
            raise InputError(f"{path}: depth must be floating-point metres, this is {depth.dtype}")
        return valid_or_zero(depth, SKY)


def _c2w(path: Path) -> np.ndarray:  # [F, 4, 4] OpenCV camera and world axes
    rows = read_table(path, 7)  # tx ty tz qx qy qz qw, one line for each image
    if (np.linalg.norm(rows[:, 3:], axis=1) < 1e-6).any():
        raise InputError(f"{path}: a quaternion is zero; download the file again")
    rotation = Rotation.from_quat(rows[:, 3:]).as_matrix()
    return _FROM_NED @ with_last_row(np.concatenate([rotation, rows[:, :3, None]], axis=2)) @ _FROM_NED.T
