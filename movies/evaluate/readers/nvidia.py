"""NVIDIA Dynamic Scenes as DynIBaR released them: twelve fixed cameras, of which one after the other is the input.

`<root>/<Scene>/dense/` holds `mv_images/00000/cam01.jpg` (cam01 to cam12), `mv_masks/00000/cam01.png` (white where
something moves) and `poses_bounds_cvd.npy`: of each frame an LLFF pose [3, 5] and two bounds. Frame t goes in as camera
t % 12 took it, and the pose of camera k is that of frame k. The focal length belongs to images 288 pixels high, the
principal point is the centre.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Indices
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.data.readers.files import inside, list_files, numbered, read_npy
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    checked_indices,
    first_size,
    frames_of,
    normalised_cameras,
    open_sequences,
    with_last_row,
)
from movies.errors import InputError
from movies.evaluate.cases import Windows
from movies.video import read_mask

NUM_CAMERAS = 12
FOCAL_HEIGHT = 288  # of the images that the focal length belongs to


def nvidia_sequences(root: str | Path, *, names: Iterable[str] | None = None) -> list:
    """Scenes with pictures of all cameras. Raises InputError where there is none."""
    return open_sequences(NvidiaSequence, root, names, _find)


def _find(root: Path) -> Iterator[str]:
    return (path.parent.parent.name for path in root.glob("*/dense/mv_images"))


@dataclass(frozen=True)
class NvidiaSequence(FrameSequence):
    """All pictures of one scene, by time and then by camera."""

    label = "NVIDIA Dynamic Scenes"
    expected = "<Scene>/dense/mv_images/00000/cam01.jpg and poses_bounds_cvd.npy"

    def frames(self) -> Frames:
        images, numbers, cameras = [], [], []
        for folder in sorted((self.folder / "dense/mv_images").iterdir()):
            for camera, path in sorted(numbered(list_files(folder, ".jpg", ".png")).items()):
                images.append(path)
                numbers.append(int(folder.name))
                cameras.append(camera - 1)
        size = first_size(images)
        c2w, focal = self._poses()
        height, width = size
        fx, fy = focal[cameras] / (FOCAL_HEIGHT * width / height), focal[cameras] / FOCAL_HEIGHT
        intrinsics = np.stack([fx, fy, np.full_like(fx, 0.5), np.full_like(fx, 0.5)], axis=-1)
        nothing = (None,) * len(images)
        return Frames(tuple(images), normalised_cameras(c2w[cameras], intrinsics), nothing, tuple(numbers), size)

    def windows(self) -> Windows:
        frames = frames_of(self)
        shown = enumerate(zip(frames.numbers, frames.images, strict=True))
        inputs = [i for i, (number, path) in shown if _camera(path) == number % NUM_CAMERAS + 1]
        targets = sorted(set(range(len(frames.images))) - set(inputs))
        return Windows(inputs, targets, list(frames.numbers))

    def read_masks(self, indices: Indices[int]) -> Tensor:  # [K, H, W] bool: where something moves
        frames = frames_of(self)
        masks = []
        for i in checked_indices(self.name, indices, len(frames.images)):
            place = f"dense/mv_masks/{frames.numbers[i]:05d}/cam{_camera(frames.images[i]):02d}.png"
            masks.append(read_mask(inside(self.folder, place)))
        return torch.from_numpy(np.stack(masks))

    def _poses(self) -> tuple[np.ndarray, np.ndarray]:  # c2w [12, 4, 4], focal lengths [12] in pixels
        path = self.folder / "dense/poses_bounds_cvd.npy"
        table = read_npy(path)
        if table.ndim != 2 or table.shape[1] != 17 or len(table) < NUM_CAMERAS:
            raise InputError(f"{path}: an array of {NUM_CAMERAS} or more rows of 17 is needed, got {list(table.shape)}")
        llff = table[:NUM_CAMERAS, :15].reshape(-1, 3, 5).astype(np.float64)  # columns down, right, back, position, hwf
        down, right, back, position, hwf = np.moveaxis(llff, -1, 0)
        return with_last_row(np.stack([right, down, -back, position], axis=-1)), hwf[:, 2]


def _camera(path: Path) -> int:
    """cam01.jpg is camera 1."""
    return next(iter(numbered([path])))
