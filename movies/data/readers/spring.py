"""Spring as downloaded: `[spring/]<split>/0001/{frame_left,disp1_left,cam_data,maps}`; the left camera is read.

Disparities (.dsp5, HDF5) lie on a grid of twice the image's size but count in the image's pixels; depth is
fx * 0.065 m / disparity. Cameras are world-to-camera, OpenCV axes. The test split has no poses and is left out.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from movies.data.readers.files import list_files, numbered, read_hdf5, read_table
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    first_size,
    inverted,
    matched,
    open_sequences,
    pixel_cameras,
    split_folder,
    valid_or_zero,
)
from movies.errors import InputError
from movies.video import read_mask

BASELINE = 0.065  # metres


class SpringSequence(FrameSequence):
    """One rendered shot; its focal length may change from frame to frame."""

    label = "Spring"
    expected = "<split>/<sequence>/{frame_left,cam_data/extrinsics.txt}"

    def frames(self) -> Frames:
        w2c = read_table(self.folder / "cam_data" / "extrinsics.txt", 16).reshape(-1, 4, 4)
        intrinsics = read_table(self.folder / "cam_data" / "intrinsics.txt", 4)
        if len(w2c) != len(intrinsics):
            raise InputError(f"{self.folder}: {len(w2c)} lines in extrinsics.txt, {len(intrinsics)} in intrinsics.txt")
        images = numbered(list_files(self.folder / "frame_left", ".png"))
        depths = numbered(list_files(self.folder / "disp1_left", ".dsp5"))
        numbers, images, depths = matched(images, range(1, len(w2c) + 1), depths)  # files count from 1
        rows, size = np.array(numbers, dtype=int) - 1, first_size(images)
        return Frames(images, pixel_cameras(inverted(w2c[rows]), intrinsics[rows], size), depths, numbers, size)

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W]
        path = frames.depths[index]
        disparity = _halved(read_hdf5(path, "disparity"), frames.size, path)
        fx = frames.cameras.fxfycxcy[index, 0].item() * frames.size[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = valid_or_zero(fx * BASELINE / disparity)  # infinite where there is no disparity
        sky = self.folder / "maps" / "skymap_left" / f"skymap_left_{frames.numbers[index]:04d}.png"
        return np.where(_halved(read_mask(sky), frames.size, sky), 0, depth) if sky.exists() else depth


def _halved(fine: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:  # [2H, 2W] -> [H, W]
    """The entries that belong to image pixels."""
    if fine.shape != (2 * size[0], 2 * size[1]):
        raise InputError(f"{path}: of shape {list(fine.shape)}, twice the images' {list(size)} is needed")
    return fine[::2, ::2]


def spring_sequences(
    root: str | Path, *, split: str = "train", names: Iterable[str] | None = None, short_side: int = 0
) -> list[SpringSequence]:
    """Sequences of a split that have poses; all of `root` where it has no splits. Raises InputError for none."""
    return open_sequences(SpringSequence, root, names, partial(_find, split=split), short_side=short_side)


def _find(root: Path, split: str) -> Iterator[str]:
    for poses in split_folder(split_folder(root, "spring"), split).glob("*/cam_data/extrinsics.txt"):
        yield poses.parents[1].relative_to(root).as_posix()
