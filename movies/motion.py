"""The same prediction read as motion: 3D point tracks, scene flow and moving-object masks of DynamicSplats."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.files import replacing_file
from movies.geometry import pixel_grid, project, transform_points
from movies.splats import DynamicSplats

# A point counts as hidden where the predicted surface lies this much nearer: neighbouring pixels differ by less.
HIDDEN_TOLERANCE = 0.05


@dataclass(frozen=True)
class PointTracks:
    """P points followed over T times. Image positions are normalised by width and height, as everywhere here."""

    points: Tensor  # [T, P, 3] world
    positions: Tensor  # [T, P, 2] (x, y) in the view nearest in time, normalised
    visible: Tensor  # [T, P] bool: inside that view and not hidden behind its predicted surface
    times: Tensor  # [T]
    query_views: Tensor  # [P] int64: the view whose pixel is followed
    query_positions: Tensor  # [P, 2] (x, y) of that pixel's centre, normalised

    def placed(self, scale: float | Tensor, transform: Tensor) -> "PointTracks":  # [], [4, 4] rigid
        """The same tracks in another world: every length times `scale`, then moved by `transform`."""
        return replace(self, points=transform_points(transform, self.points * scale))

    def save(self, path: str | Path) -> None:
        """Write the fields under their own names as .npz, beside its place and renamed.

        Keys: points [T, P, 3] float32, positions [T, P, 2] float32, visible [T, P] bool, times [T] float32,
        query_views [P] int64, query_positions [P, 2] float32.
        """
        with replacing_file(path) as temporary:
            np.savez_compressed(temporary, **{name: x.cpu().numpy() for name, x in vars(self).items()})


def grid_tracks(splats: DynamicSplats, stride: int, index: int = 0) -> PointTracks:
    """Tracks of every `stride`-th pixel of every view of batch item `index`, at all target times."""
    _, _, height, width = splats.depth.shape
    rows = torch.arange(stride // 2, height, stride, device=splats.depth.device)
    columns = torch.arange(stride // 2, width, stride, device=splats.depth.device)
    grid = (slice(None), rows[:, None], columns)
    starts = splats.points()[index][grid].flatten(0, 2)  # [P, 3]
    offsets = splats.motion[index][(slice(None), *grid)].flatten(1, 3)  # [T, P, 3]
    positions = pixel_grid(height, width, splats.depth.device)[grid[1:]]  # [h, w, 2]
    num_views, per_view = splats.depth.shape[1], positions.shape[0] * positions.shape[1]
    points = starts + offsets
    seen, visible = _seen(splats, points, index)
    views = torch.arange(num_views, device=points.device).repeat_interleave(per_view)
    queries = positions.flatten(0, 1).repeat(num_views, 1)
    return PointTracks(points, seen, visible, splats.times[index], views, queries)


def _seen(splats: DynamicSplats, points: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """Where points [T, P, 3] lie in the views nearest in time, and which of them those views see."""
    nearest = nearest_times(splats.view_times[index], splats.times[index])  # [T]
    cameras, depth = splats.cameras[index][nearest], splats.depth[index][nearest]  # [T], [T, H, W]
    positions, z = project(points, cameras.fxfycxcy, cameras.c2w)
    inside = ((positions >= 0) & (positions < 1)).all(dim=-1) & (z > 0)
    height, width = depth.shape[-2:]
    column = (positions[..., 0] * width).long().clamp(0, width - 1)
    row = (positions[..., 1] * height).long().clamp(0, height - 1)
    surface = depth.flatten(1).gather(1, row * width + column)  # [T, P]
    return positions, inside & (z <= surface * (1 + HIDDEN_TOLERANCE))


def moving_masks(splats: DynamicSplats, index: int = 0) -> Tensor:  # [V, H, W] bool
    """The pixels of each view whose points move at any target time."""
    return splats.moving[index].any(dim=0)


def scene_flow(splats: DynamicSplats, index: int = 0) -> Tensor:  # [V, H, W, 3] world
    """Each pixel's motion from its own time to the next view's (the last view's: back to the one before, negated).

    The target times nearest to these are taken, and the motion predicted for a view's own time is subtracted: it
    should be zero, and what is not is an offset common to both.
    """
    view_times, motion = splats.view_times[index], splats.motion[index]  # [V], [T, V, H, W, 3]
    views = torch.arange(len(view_times), device=view_times.device)
    last = len(views) - 1
    other = torch.where(views < last, views + 1, views - 1).clamp(min=0)
    own_time, other_time = (nearest_times(splats.times[index], view_times[i]) for i in (views, other))
    sign = torch.where(views < last, 1.0, -1.0)[:, None, None, None]
    return sign * (motion[other_time, views] - motion[own_time, views])


def nearest_times(known: Tensor, wanted: Tensor) -> Tensor:  # [K], [T] -> [T] positions in `known`
    """For each wanted time the known one nearest to it."""
    return (wanted[:, None] - known).abs().argmin(dim=1)
