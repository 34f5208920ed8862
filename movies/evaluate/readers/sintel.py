"""MPI Sintel: rendered film scenes with depth and cameras, 1024x436.

`<root>/training/{final,clean}/<sequence>/frame_0001.png`, `training/depth/<sequence>/frame_0001.dpt`,
`training/camdata_left/<sequence>/frame_0001.cam`. Both binary files begin with the float32 202021.25; depth is z-depth,
cameras are world-to-camera in OpenCV axes. Intrinsics count pixel centres from 0 (cx = (1024 - 1) / 2).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from movies.data.readers.files import inside, list_files, numbered, read_bytes
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    first_size,
    inverted,
    matched,
    open_sequences,
    pixel_cameras,
    valid_or_zero,
    with_last_row,
)
from movies.errors import InputError

TAG = np.float32(202021.25)


def sintel_sequences(root: str | Path, *, kind: str = "final", names: Iterable[str] | None = None) -> list:
    """Training sequences with depth and cameras; `kind` is "final" or "clean". Raises InputError where none is."""
    return open_sequences(SintelSequence, root, names, lambda path: _find(path, kind), kind=kind)


def _find(root: Path, kind: str) -> Iterator[str]:
    return (folder.name for folder in (root / "training" / kind).glob("*") if folder.is_dir())


@dataclass(frozen=True)
class SintelSequence(FrameSequence):
    """One sequence."""

    kind: str = "final"

    label = "MPI Sintel"
    expected = "training/final/<sequence>/frame_0001.png, training/depth and training/camdata_left"

    def frames(self) -> Frames:
        images = numbered(list_files(self._place(self.kind), ".png"))
        depths = numbered(list_files(self._place("depth"), ".dpt"))
        cameras = numbered(list_files(self._place("camdata_left"), ".cam"))
        numbers, images, depths = matched(images, cameras, depths)
        parts = [_camera(cameras[n]) for n in numbers]
        size = first_size(images)
        w2c = with_last_row(np.array([pose for _, pose in parts]).reshape(-1, 3, 4))
        intrinsics = np.array([[k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5] for k, _ in parts]).reshape(-1, 4)
        return Frames(images, pixel_cameras(inverted(w2c), intrinsics, size), depths, numbers, size)

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W]
        path = frames.depths[index]
        data = _tagged(path)
        width, height = (int(n) for n in np.frombuffer(data, "<i4", 2))
        if width < 1 or height < 1 or len(data) != 8 + 4 * width * height:
            raise InputError(f"{path}: {len(data)} bytes do not hold {width}x{height} pixels; unpack it again")
        return valid_or_zero(np.frombuffer(data, "<f4", offset=8).reshape(height, width))

    def _place(self, kind: str) -> Path:
        return inside(self.root, f"training/{kind}/{self.name}")


def _camera(path: Path) -> tuple[np.ndarray, np.ndarray]:  # K [3, 3], world-to-camera [3, 4]
    data = _tagged(path)
    if len(data) != 8 * 21:
        raise InputError(f"{path}: a camera has 21 numbers, these are {len(data)} bytes; unpack it again")
    numbers = np.frombuffer(data, "<f8")
    return numbers[:9].reshape(3, 3), numbers[9:].reshape(3, 4)


def _tagged(path: Path) -> bytes:
    """What follows the tag of a Sintel file."""
    data = read_bytes(path)
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != TAG:
        raise InputError(f"{path}: does not begin with Sintel's tag {TAG}; unpack it again")
    return data[4:]
