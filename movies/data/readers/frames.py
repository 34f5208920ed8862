"""Sequences of frames in files: what the readers of all downloaded datasets have in common.

A reader names its files and translates its own conventions. Here: listing is lazy, only the frames asked for are
opened, missing frames are left out, and sizes are compared. Nothing is kept but the last few sequences' file lists.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Indices
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Tracks, Views
from movies.data.readers.files import as_float32, dataset_root, inside
from movies.errors import InputError
from movies.geometry import rigid_inverse
from movies.video import image_size, read_image_into, scaled_size


@dataclass(frozen=True)
class Frames:
    """The F frames of one sequence that have an image and a camera: file names, not their contents."""

    images: tuple[Path, ...]
    cameras: Cameras  # [F]
    depths: tuple[Path | None, ...]  # F, None where a frame has no depth
    numbers: tuple[int, ...]  # F, the dataset's own frame numbers, which say what is missing and order the times
    size: tuple[int, int]  # (height, width) of the images as they are stored

    def __post_init__(self) -> None:
        counts = {len(self.images), len(self.cameras), len(self.depths), len(self.numbers)}
        if len(counts) != 1:
            raise InputError(f"images, cameras, depths and numbers of a sequence disagree: {sorted(counts)}")


@dataclass(frozen=True)
class FrameSequence:
    """A Sequence of image files. A reader's own class says `frames`, and `read_depth`, `read_tracks` where it has them.

    `name` is the sequence's path inside `root`. `short_side` decodes larger images at that size (0: as stored).
    """

    root: Path
    name: str
    short_side: int = 0

    # Of the dataset, not of one sequence; without annotations these are no fields.
    is_static = False
    label = ""  # what the dataset is called in messages
    expected = ""  # how its files are laid out, for the message that nothing was found

    def frames(self) -> Frames:
        """List the files and read the cameras. Called through `frames_of`, which remembers."""
        raise NotImplementedError

    def read_images(self, frames: Frames, indices: list[int]) -> Tensor:  # [V, 3, H, W]
        """The images at `indices`, all of one size."""
        images = torch.empty(len(indices), 3, *scaled_size(frames.size, self.short_side))
        for image, i in zip(images, indices, strict=True):
            read_image_into(image, frames.images[i], self.short_side)
        return images

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W] float32
        """z-depth in metres of one frame that has a depth file; 0 where it is not valid (`valid_or_zero`)."""
        raise NotImplementedError

    def read_depths(self, frames: Frames, indices: list[int]) -> Iterator[np.ndarray | None]:
        """`read_depth` of frame after frame; None for those without a depth file."""
        for i in indices:
            yield None if frames.depths[i] is None else self.read_depth(frames, i)

    def read_tracks(self, frames: Frames, indices: list[int]) -> Tracks:  # V views
        """World points through the frames at `indices`."""
        return Tracks.empty(len(indices))

    @property
    def folder(self) -> Path:
        return inside(self.root, self.name)

    @property
    def num_frames(self) -> int:
        return len(frames_of(self).images)

    @property
    def has_depth(self) -> bool:
        return any(path is not None for path in frames_of(self).depths)

    @property
    def has_tracks(self) -> bool:
        return type(self).read_tracks is not FrameSequence.read_tracks

    def layout(self) -> dict:
        """What an index says of the sequence: size (height, width) and labels, no image opened but its first header."""
        return {"size": list(frames_of(self).size), "depth": self.has_depth, "tracks": self.has_tracks}

    def read(self, indices: Indices[int]) -> tuple[Views, Tracks]:
        """See Sequence. Raises InputError also for a file that cannot be read, and for sizes that differ."""
        frames = frames_of(self)
        chosen = checked_indices(self.name, indices, len(frames.images))
        images = self.read_images(frames, chosen)
        depth = torch.zeros(len(chosen), *images.shape[-2:])
        for row, i, found in zip(depth, chosen, self.read_depths(frames, chosen), strict=True):
            if found is not None:
                _fill_depth(row, found, frames.size, frames.depths[i])
        mask = torch.from_numpy(depth.numpy() > 0)  # several times faster than torch's own comparison
        views = Views(images, frames.cameras[chosen], frame_times(frames.numbers, chosen), depth, mask)
        return views, self.read_tracks(frames, chosen)


def _fill_depth(row: Tensor, found: np.ndarray, size: tuple[int, int], path: Path) -> None:  # [H, W], 0 where not valid
    depth = np.asarray(found, dtype=np.float32)
    if depth.shape != size:
        raise InputError(f"{path}: depth of {_text(depth.shape)} pixels for images of {_text(size)}")
    row.numpy()[:] = resampled(depth, tuple(row.shape))


@lru_cache(maxsize=128)
def frames_of(sequence: FrameSequence) -> Frames:
    """The sequence's frames, listed once for as long as it is in use. Raises InputError where it has none."""
    frames = sequence.frames()
    if not frames.images:
        raise InputError(f"{sequence.folder}: no frame has both an image and a camera; is the download whole?")
    return frames


def checked_indices(name: str, indices: Indices[int], num_frames: int) -> list[int]:
    """The indices as numbers. Raises InputError for none, or for a frame that the sequence does not have."""
    chosen = [int(i) for i in indices]
    if not chosen or min(chosen) < 0 or max(chosen) >= num_frames:
        raise InputError(f"{name} has frames 0..{num_frames - 1}, got {chosen}")
    return chosen


def frame_times(numbers: Indices[float], chosen: list[int]) -> Tensor:  # [V] in [0, 1]
    """Times of frames over the whole sequence; a missing frame leaves a gap in time."""
    first, last = numbers[0], numbers[-1]
    span = (last - first) or 1
    return torch.tensor([(numbers[i] - first) / span for i in chosen], dtype=torch.float32)


def matched(images: Mapping[int, Path], cameras: Iterable[int], depths: Mapping[int, Path]):
    """Frame numbers that have an image and a camera, in order, and their files: what `Frames` is made of.

    -> (numbers, images, depths); a frame without depth keeps None there.
    """
    numbers = tuple(sorted(set(images) & set(cameras)))
    return numbers, tuple(images[n] for n in numbers), tuple(depths.get(n) for n in numbers)


def first_size(images: Indices[Path]) -> tuple[int, int]:
    """(height, width) of a sequence's first image; (0, 0) where it has none."""
    return image_size(images[0]) if images else (0, 0)


def pixel_cameras(c2w: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> Cameras:
    """Cameras [F] of c2w [F, 4, 4] and fx fy cx cy in pixels [F, 4] with centres at +0.5; rounded once, at the end."""
    height, width = size
    normalised = intrinsics / np.array([width, height, width, height], dtype=np.float64)
    return Cameras(_float(c2w), _float(normalised))


def normalised_cameras(c2w: np.ndarray, intrinsics: np.ndarray) -> Cameras:
    """Cameras [F] of c2w [F, 4, 4] and intrinsics [F, 4] that are fractions of the image already."""
    return Cameras(_float(c2w), _float(intrinsics))


def inverted(matrices: np.ndarray) -> np.ndarray:  # [F, 4, 4] float64
    """Rigid inverses: world-to-camera from camera-to-world and back."""
    return rigid_inverse(torch.from_numpy(np.asarray(matrices, dtype=np.float64))).numpy()


def with_last_row(rows: np.ndarray) -> np.ndarray:  # [F, 3, 4] -> [F, 4, 4]
    """Matrices [R | t] completed by 0 0 0 1."""
    last = np.broadcast_to(np.array([0.0, 0.0, 0.0, 1.0]), (len(rows), 1, 4))
    return np.concatenate([rows, last], axis=1)


def valid_or_zero(depth: np.ndarray, largest: float = np.inf, smallest: float = 0.0) -> np.ndarray:  # [H, W] float32
    """Depth with 0 for what is not finite, not above `smallest` or not below `largest`."""
    depth = as_float32(depth)
    invalid = ~(depth < largest)  # True for NaN
    invalid |= depth <= smallest
    depth[invalid] = 0
    return depth


def open_sequences(
    make: type, root: str | Path, names: Iterable[str] | None, find: Callable[[Path], Iterable[str]], **options
) -> list:
    """A `make(root, name, **options)` for each of `names`; for those that `find(root)` lists where names are None.

    Raises InputError for a root that is no folder, one in which nothing is found, and a name that leads out of it.
    """
    path = dataset_root(root)
    found = sorted(find(path)) if names is None else list(names)
    if not found:
        raise InputError(f"{path}: no {make.label} sequence lies there; expected {make.expected}")
    for name in found:
        inside(path, name)
    return [make(path, name, **options) for name in found]


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split; the root itself where there is none, for who keeps one split's files alone."""
    folder = inside(root, split)
    return folder if folder.is_dir() else root


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def resampled(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:  # [H, W] -> [*size]
    """Depth at another size, of the nearest pixel: a mean over an edge invents depth."""
    if depth.shape == size:
        return depth
    rows = ((np.arange(size[0]) + 0.5) * depth.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * depth.shape[1] / size[1]).astype(int)
    return depth[rows[:, None], columns]


def _text(size: Indices[int]) -> str:
    return f"{size[1]}x{size[0]}" if len(size) == 2 else str(list(size))
