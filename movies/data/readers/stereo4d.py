"""Stereo4D: released `npz/<uid>.npz` and the user's `processed/<uid>/<uid>-left_rectified.mp4`, below a split or not.

Cameras are camera-to-world, OpenCV axes, metres, of the rectified left view: a perspective video whose field of view
no file states (60 degrees unless rectified otherwise; `fov_bounds` in the npz is that of the VR180 source). Tracks
are ragged lists of (frame, world point). There are no depth files: depth is sparse, from the tracks seen in a frame.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import radians, tan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Tracks, Views
from movies.data.readers.files import list_files, read_npz
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    normalised_cameras,
    open_sequences,
    split_folder,
    with_last_row,
)
from movies.data.readers.tracks import seen_tracks
from movies.data.readers.videos import video_frames, video_shape
from movies.errors import InputError
from movies.geometry import project
from movies.video import scaled_size


@dataclass(frozen=True)
class Stereo4DSequence(FrameSequence):
    """One clip. `field_of_view` is the horizontal one of the rectified video, in degrees."""

    field_of_view: float = 60.0

    label = "Stereo4D"
    expected = "[<split>/]npz/<uid>.npz with [<split>/]processed/<uid>/<uid>-left_rectified.mp4"

    @property
    def annotations(self) -> Path:
        return self.folder.parent / "npz" / f"{self.folder.name}.npz"

    @property
    def has_depth(self) -> bool:
        return True

    def frames(self) -> Frames:
        video = _video(self.folder.parent / "processed", self.folder.name)
        arrays = read_npz(self.annotations, "timestamps", "camera2world")
        number, *size = video_shape(video)
        times, c2w = tuple(arrays["timestamps"].tolist()), arrays["camera2world"]
        if not number == len(times) == len(c2w):
            raise InputError(
                f"{video}: {number} frames, {len(times)} times and {len(c2w)} cameras in {self.annotations}"
            )
        fx = 0.5 / tan(radians(self.field_of_view / 2))
        fxfycxcy = np.tile([fx, fx * size[1] / size[0], 0.5, 0.5], (number, 1))
        cameras = normalised_cameras(with_last_row(c2w.astype(np.float64)), fxfycxcy)
        return Frames((video,) * number, cameras, (None,) * number, times, tuple(size))

    def read_images(self, frames: Frames, indices: list[int]) -> Tensor:  # [V, 3, H, W]
        pictures = video_frames(frames.images[0], indices, scaled_size(frames.size, self.short_side))
        return torch.from_numpy(np.stack(pictures)).movedim(-1, 1) / 255

    def read_tracks(self, frames: Frames, indices: list[int]) -> Tracks:
        keys = ("track_lengths", "track_indices", "track_coordinates")
        lengths, numbers, coordinates = read_npz(self.annotations, *keys).values()
        if not lengths.sum() == len(numbers) == len(coordinates):
            raise InputError(f"{self.annotations}: track_lengths do not add up to the {len(numbers)} track_indices")
        if numbers.max(initial=0) >= self.num_frames:
            raise InputError(f"{self.annotations}: track_indices reach {numbers.max()} of {self.num_frames} frames")
        unique, place = np.unique(indices, return_inverse=True)
        row_of = np.full(self.num_frames, -1)
        row_of[unique] = np.arange(len(unique))
        rows, tracks = row_of[numbers], np.repeat(np.arange(len(lengths)), lengths)
        points = np.full((len(unique), len(lengths), 3), np.nan, dtype=np.float32)  # NaN: not observed
        points[rows[rows >= 0], tracks[rows >= 0]] = coordinates[rows >= 0]
        points = torch.from_numpy(points[place])
        return seen_tracks(points, points.isfinite().all(dim=-1), frames.cameras[indices])

    def read(self, indices) -> tuple[Views, Tracks]:
        views, tracks = super().read(indices)
        depth = sparse_depth(tracks, views.cameras, *views.size)
        return replace(views, depth=depth, depth_mask=depth > 0), tracks


def sparse_depth(tracks: Tracks, cameras: Cameras, height: int, width: int) -> Tensor:  # -> [V, H, W], 0 elsewhere
    """The nearest visible track in each pixel."""
    xy, z = project(tracks.points, cameras.fxfycxcy, cameras.c2w)
    view, track = tracks.visible.nonzero(as_tuple=True)
    size = xy.new_tensor([width, height])
    column, row = (xy[view, track] * size).long().clamp(max=size.long() - 1).unbind(-1)
    depth = torch.full((len(cameras) * height * width,), torch.inf)
    depth.scatter_reduce_(0, (view * height + row) * width + column, z[view, track], "amin")
    return torch.where(depth.isfinite(), depth, 0.0).reshape(-1, height, width)


def stereo4d_sequences(
    root: str | Path,
    *,
    split: str = "train",
    names: Iterable[str] | None = None,
    short_side: int = 0,
    field_of_view: float = 60.0,
) -> list[Stereo4DSequence]:
    """Clips of a split that have both files: videos disappear; all of `root` where it has no splits.

    Raises InputError where there are none, and for a field of view outside (0, 180) degrees.
    """
    if not 0 < field_of_view < 180:
        raise InputError(f"field_of_view must be between 0 and 180 degrees, got {field_of_view}")
    find = partial(_find, split=split)
    return open_sequences(Stereo4DSequence, root, names, find, short_side=short_side, field_of_view=field_of_view)


def _find(root: Path, split: str) -> Iterator[str]:
    base = split_folder(root, split)
    rectified = {folder.name for folder in list_files(base / "processed")}
    for annotations in list_files(base / "npz", ".npz"):
        uid = annotations.stem
        if uid in rectified and _video(base / "processed", uid).exists():
            yield (base / uid).relative_to(root).as_posix()


def _video(processed: Path, uid: str) -> Path:
    return processed / uid / f"{uid}-left_rectified.mp4"
