"""PointOdyssey v1.2 as downloaded: `<split>/<sequence>/{rgbs,depths,anno.npz}`, with tracks of thousands of points.

`anno.npz` holds world-to-camera matrices (OpenCV axes, metres), pixel intrinsics and world points in arrays of any
float type, half included. Depth is a 16-bit PNG over 1000 m; the background is clipped to its largest value.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from movies.clip import Tracks
from movies.data.readers.files import list_files, numbered
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    first_size,
    inverted,
    matched,
    open_sequences,
    pixel_cameras,
    split_folder,
)
from movies.data.readers.npz_rows import npz_rows, npz_shape
from movies.data.readers.tracks import seen_tracks
from movies.errors import InputError
from movies.video import read_gray16

METRES_PER_STEP = 1000 / 65535
BACKGROUND = 65535


class PointOdysseySequence(FrameSequence):
    """One animated scene. Frames are numbered by their row in the annotations."""

    label = "PointOdyssey"
    expected = "<split>/<sequence>/{rgbs,anno.npz}"

    @property
    def annotations(self) -> Path:
        return self.folder / "anno.npz"

    @property
    def has_tracks(self) -> bool:
        """A few sequences were published with empty track arrays."""
        return self._num_tracks() > 0

    def frames(self) -> Frames:
        number = npz_shape(self.annotations, "extrinsics")[0]
        images = self._by_row(list_files(self.folder / "rgbs", ".jpg", ".jpeg", ".png"), number)
        depths = self._by_row(list_files(self.folder / "depths", ".png"), number)
        rows, images, depths = matched(images, range(number), depths)
        w2c, intrinsics = (npz_rows(self.annotations, key, rows).astype(float) for key in ("extrinsics", "intrinsics"))
        fxfycxcy = intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]]
        size = first_size(images)
        return Frames(images, pixel_cameras(inverted(w2c), fxfycxcy, size), depths, rows, size)

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W]
        steps = read_gray16(frames.depths[index])
        depth = steps * np.float32(METRES_PER_STEP)
        depth *= steps != BACKGROUND
        return depth

    def read_tracks(self, frames: Frames, indices: list[int]) -> Tracks:
        if not self.has_tracks:
            return Tracks.empty(len(indices))
        rows = [frames.numbers[i] for i in indices]
        points = npz_rows(self.annotations, "trajs_3d", rows).astype(np.float32, copy=False)  # [V, P, 3]
        visible, known = (
            npz_rows(self.annotations, key, rows).astype(bool, copy=False) for key in ("visibs", "valids")
        )
        points[~known] = np.nan
        return seen_tracks(torch.from_numpy(points), torch.from_numpy(visible), frames.cameras[indices])

    def _by_row(self, files: list[Path], number: int) -> dict[int, Path]:
        """Files by their row: in order where their count agrees (older files count from 1), else by their number."""
        if len(files) == number:
            return dict(enumerate(files))
        by_number = numbered(files)
        if max(by_number, default=0) >= number:
            raise InputError(
                f"{self.folder}: {len(files)} files for {number} frames in anno.npz; which belongs to which?"
            )
        return by_number

    def _num_tracks(self) -> int:
        shape = npz_shape(self.annotations, "trajs_3d")
        return shape[1] if len(shape) == 3 else 0


def pointodyssey_sequences(
    root: str | Path, *, split: str = "train", names: Iterable[str] | None = None, short_side: int = 0
) -> list[PointOdysseySequence]:
    """Sequences of a split (train, val, test) with annotations; all of `root` where it has no splits.

    Raises InputError where there are none.
    """
    return open_sequences(PointOdysseySequence, root, names, partial(_find, split=split), short_side=short_side)


def _find(root: Path, split: str) -> Iterator[str]:
    for annotations in split_folder(root, split).glob("*/anno.npz"):
        yield annotations.parent.relative_to(root).as_posix()
