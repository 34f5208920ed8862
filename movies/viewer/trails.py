"""Trails: the tracks of a reconstruction as line segments that grow with time."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.errors import InputError
from movies.shapes import check_shape

MAX_TRACKS = 500  # more are a thicket
STILL = 0.02  # of the longest track's reach: what moves less is not drawn


@dataclass(frozen=True)
class Trails:
    """P points over T times, P = 0 where there are none."""

    points: Tensor  # [T, P, 3] world
    times: Tensor  # [T], growing

    def __post_init__(self) -> None:
        check_shape("points", self.points, (len(self.times), None, 3))

    def __len__(self) -> int:
        """The number of points P."""
        return self.points.shape[1]

    @staticmethod
    def load(path: str | Path) -> "Trails":
        """The points of a tracks.npz that reach furthest, at most MAX_TRACKS; none where there is no such file.

        Raises InputError for a file that is something else.
        """
        if not Path(path).is_file():
            return Trails(torch.zeros(1, 0, 3), torch.zeros(1))
        try:
            with np.load(path) as stored:
                points, times = torch.from_numpy(stored["points"]), torch.from_numpy(stored["times"])
            return Trails(points.float(), times.float()).furthest(MAX_TRACKS)
        except (KeyError, ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: holds no tracks ({error}); reconstruct again, or move it away") from error

    def furthest(self, num: int) -> "Trails":
        """The `num` points that get furthest from where they are first, none that stand still beside them.

        Points that are NaN at any time are left out.
        """
        reach = (self.points - self.points[:1]).norm(dim=-1).amax(dim=0).nan_to_num(0, 0)  # [P]
        order = reach.argsort(descending=True)[:num]
        return Trails(self.points[:, order[reach[order] > STILL * reach[order[:1]]]], self.times)

    def until(self, time: float) -> Tensor:  # [K * P, 2, 3]
        """K segments of every point, from its first place to where it is at `time`; of all points for each K."""
        count = int((self.times < time).sum())
        if count == 0:
            return torch.zeros(0, 2, 3)
        corners = self.points[: count + 1]
        if count < len(self.times):
            weight = (time - self.times[count - 1]) / (self.times[count] - self.times[count - 1])
            corners = torch.cat([corners[:-1], torch.lerp(corners[-2], corners[-1], weight)[None]])
        return torch.stack([corners[:-1], corners[1:]], dim=2).flatten(0, 1)

    def colors(self) -> Tensor:  # [P, 3] in [0, 1]
        """A colour for each point by its first place, so that neighbours look alike."""
        first = self.points[0]
        low, high = (first.amin(dim=0), first.amax(dim=0)) if len(self) else (first.new_zeros(3), first.new_ones(3))
        return 0.3 + 0.7 * (first - low) / (high - low).clamp(min=1e-9)
