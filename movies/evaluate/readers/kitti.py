"""KITTI twice: the laser depth of the depth benchmark's validation drives, and the trajectories of odometry.

Depth: `<root>/image_gathered/<drive>_02/*.png` and `groundtruth_depth_gathered/<drive>_02/*.png` (the selection that
MonST3R's tools gather), 16-bit metres times 256, 0 where no point lies. Files are matched by their order. No cameras.

Odometry: `<root>/sequences/00/image_2/000000.png`, `sequences/00/calib.txt` and `poses/00.txt`: camera-to-world of the
left grey camera 0 in OpenCV axes and metres. Camera 2 stands beside it as the last column of its P2 says.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from movies.data.readers.files import inside, list_files, numbered, read_bytes, read_table
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    first_size,
    matched,
    open_sequences,
    pixel_cameras,
    valid_or_zero,
    with_last_row,
)
from movies.errors import InputError
from movies.evaluate.cases import hidden
from movies.video import read_gray16

PICTURES, DEPTHS = "image_gathered", "groundtruth_depth_gathered"


def kitti_depth_sequences(root: str | Path, *, names: Iterable[str] | None = None) -> list:
    """Drives with depth. Raises InputError where there is none."""
    return open_sequences(KittiDepthSequence, root, names, lambda path: _folders(path / DEPTHS))


def kitti_odometry_sequences(root: str | Path, *, names: Iterable[str] | None = None) -> list:
    """Sequences with known poses (00 to 10). Raises InputError where there is none."""
    return open_sequences(KittiOdometrySequence, root, names, _posed)


def _folders(path: Path) -> Iterator[str]:
    return (folder.name for folder in path.glob("*") if folder.is_dir())


def _posed(root: Path) -> Iterator[str]:
    return (file.stem for file in list_files(root / "poses", ".txt") if (root / "sequences" / file.stem).is_dir())


@dataclass(frozen=True)
class KittiDepthSequence(FrameSequence):
    """One drive. Its cameras are placeholders."""

    label = "KITTI depth"
    expected = f"{PICTURES}/<drive>_02/*.png and {DEPTHS}/<drive>_02/*.png"

    def frames(self) -> Frames:
        images, depths = (list_files(inside(self.root, f"{kind}/{self.name}"), ".png") for kind in (PICTURES, DEPTHS))
        if len(images) != len(depths):
            raise InputError(f"{self.root}: {self.name} has {len(images)} pictures and {len(depths)} depth maps")
        size = first_size(images)
        return Frames(tuple(images), hidden(len(images), size), tuple(depths), tuple(range(len(images))), size)

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W]
        return valid_or_zero(read_gray16(frames.depths[index]).astype(np.float32) / 256)


@dataclass(frozen=True)
class KittiOdometrySequence(FrameSequence):
    """One sequence's left colour camera."""

    label = "KITTI odometry"
    expected = "sequences/00/image_2, sequences/00/calib.txt and poses/00.txt"

    def frames(self) -> Frames:
        folder = inside(self.root, f"sequences/{self.name}")
        poses = with_last_row(read_table(inside(self.root, f"poses/{self.name}.txt"), 12).reshape(-1, 3, 4))
        images = numbered(list_files(folder / "image_2", ".png", ".jpg"))
        numbers, images, depths = matched(images, range(len(poses)), {})
        projection = _projection(folder / "calib.txt")
        beside = np.eye(4)
        beside[:3, 3] = -np.linalg.solve(projection[:, :3], projection[:, 3])  # camera 2 in the frame of camera 0
        intrinsics = np.array([projection[0, 0], projection[1, 1], projection[0, 2], projection[1, 2]])
        size = first_size(images)
        cameras = pixel_cameras(poses[list(numbers)] @ beside, np.tile(intrinsics, (len(images), 1)), size)
        return Frames(images, cameras, depths, numbers, size)


def _projection(path: Path) -> np.ndarray:  # P2 [3, 4]
    rows = [line.split() for line in read_bytes(path).decode(errors="replace").splitlines()]
    found = next((row[1:] for row in rows if row and row[0] == "P2:" and len(row) == 13), None)
    if found is None:
        raise InputError(f"{path}: no line `P2:` with 12 numbers")
    return np.array(found, dtype=np.float64).reshape(3, 4)
