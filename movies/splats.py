"""DynamicSplats: what MoVieS predicts, a Gaussian for every pixel of every context view at every target time."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.cameras import Cameras
from movies.gaussians import Gaussians
from movies.geometry import unproject
from movies.scene import Scene4D
from movies.shapes import check_shape

MIN_DEPTH, MAX_DEPTH = 0.001, 100.0
NUM_ATTRIBUTES = 11  # raw channels of a splat: color 3, scale 3, rotation 4 (wxyz), opacity 1


def activate(raw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [..., 11]
    """Raw attributes to (quats [..., 4], scales [..., 3], opacities [...], colors [..., 3]), MoVieS' activations."""
    color, scale, rotation, opacity = raw.float().split([3, 3, 4, 1], dim=-1)
    quats = F.normalize(rotation, dim=-1, eps=1e-12)
    scales = (0.001 * F.softplus(scale)).clamp(max=0.3)
    return quats, scales, torch.sigmoid(2 * opacity[..., 0] - 2), torch.sigmoid(2 * color)


@dataclass(frozen=True)
class DynamicSplats:
    """Dense predictions for B clips, V context views and T target times, float32, in the world of `cameras`.

    A pixel that `moving` marks takes its attributes from `raw_motion_splats` (those of that time), any other pixel
    from `raw_splats`. Offsets (`motion`) apply to all pixels. Raises InputError for wrong shapes.
    """

    depth: Tensor  # [B, V, H, W] z-depth, clamped to [0.001, 100]
    depth_confidence: Tensor  # [B, V, H, W] > 1
    motion: Tensor  # [B, T, V, H, W, 3] offset of a pixel's point from its own time to the target time, world units
    motion_confidence: Tensor  # [B, T, V, H, W] > 1
    moving: Tensor  # [B, T, V, H, W] bool: |motion| >= threshold
    raw_splats: Tensor  # [B, V, H, W, 11] before activation
    raw_motion_splats: Tensor  # [B, T, V, H, W, 11] before activation
    cameras: Cameras  # [B, V] of the context views
    view_times: Tensor  # [B, V]
    times: Tensor  # [B, T] target times

    def __post_init__(self) -> None:
        batch, views, height, width = self.depth.shape
        pixels = (views, height, width)
        dense = (batch, self.times.shape[-1], *pixels)
        check_shape("depth_confidence", self.depth_confidence, (batch, *pixels))
        check_shape("motion", self.motion, (*dense, 3))
        check_shape("motion_confidence", self.motion_confidence, dense)
        check_shape("moving", self.moving, dense)
        check_shape("raw_splats", self.raw_splats, (batch, *pixels, NUM_ATTRIBUTES))
        check_shape("raw_motion_splats", self.raw_motion_splats, (*dense, NUM_ATTRIBUTES))

    def points(self) -> Tensor:  # [B, V, H, W, 3]
        """World point of every pixel at its own frame's time, before motion."""
        return unproject(self.depth, self.cameras.fxfycxcy, self.cameras.c2w)

    def gaussians(self) -> Gaussians:
        """Activated Gaussians [B, T, N], N = V*H*W in (v, h, w) order, before pruning."""
        raw = torch.where(self.moving[..., None], self.raw_motion_splats, self.raw_splats[:, None])
        means = self.points()[:, None] + self.motion
        return Gaussians(*(x.flatten(2, 4) for x in (means, *activate(raw))))

    def to_scene(self, index: int = 0, opacity_threshold: float = 0.001) -> Scene4D:
        """The scene of batch item `index`: Gaussians that never move stored once, moving ones at each time.

        A Gaussian whose |motion| stays below the threshold at every time is static and sits at its mean position.
        Those at or below the opacity threshold at all times are pruned.
        """
        moving, kept = self._fates(index, opacity_threshold)
        points = self.points()[index].flatten(0, 2)  # [N, 3]
        motion, still = self.motion[index].flatten(1, 3), kept & ~moving  # [T, N, 3], [N]
        attributes = activate(self.raw_splats[index].flatten(0, 2)[still])
        averaged = Gaussians(points[still] + motion[:, still].mean(dim=0), *attributes)
        moved = self._select_times(index, kept & moving, points)
        size = (self.depth.shape[-2], self.depth.shape[-1])
        return Scene4D(averaged, moved, self.times[index], self.cameras[index], self.view_times[index], size)

    def _raw_at(self, index: int, t: int) -> Tensor:  # [N, 11]
        """What the Gaussians of one item look like at one time, before activation."""
        moving = self.moving[index, t, ..., None]
        return torch.where(moving, self.raw_motion_splats[index, t], self.raw_splats[index]).flatten(0, 2)

    def _fates(self, index: int, opacity_threshold: float) -> tuple[Tensor, Tensor]:  # [N] bool each
        """Which Gaussians move at any time, and which are opaque enough at any time."""
        moving = self.moving[index].flatten(1).any(dim=0)
        kept = torch.zeros_like(moving)
        for t in range(self.times.shape[1]):  # one time after another: all of them at once are many times larger
            kept |= activate(self._raw_at(index, t))[2] > opacity_threshold
        return moving, kept

    def _select_times(self, index: int, chosen: Tensor, points: Tensor) -> Gaussians:  # [N] bool -> [T, M]
        """The chosen Gaussians at every time."""
        at_times = []
        for t in range(self.times.shape[1]):
            means = points[chosen] + self.motion[index, t].flatten(0, 2)[chosen]
            at_times.append(Gaussians(means, *activate(self._raw_at(index, t)[chosen])))
        return Gaussians.stack(at_times)
