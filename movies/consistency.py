"""How well a prediction agrees with itself: views among each other, and its depth with another network's.

Every pixel of a view is lifted to its point, followed to a neighbouring view's time, seen in that view, taken back from
the surface predicted there, and compared with where it started. A prediction of one true scene comes back to the pixel.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.cameras import Cameras
from movies.geometry import pixel_grid, project
from movies.motion import nearest_times
from movies.splats import DynamicSplats


@dataclass(frozen=True)
class Consistency:
    """For each of V views against the next one (the last against the one before), at the network's size."""

    error: Tensor  # [V] median distance in pixels between start and return; NaN where the views share nothing
    within: Tensor  # [V] share of the pixels inside the other view that return to within a pixel
    overlap: Tensor  # [V] share of all pixels that lie inside the other view


def reprojection(splats: DynamicSplats, index: int = 0) -> Consistency:
    """Self-consistency of batch item `index`.

    Pixels hidden in the other view do not return either: the median bears them as long as they are few, while
    leaving out what lies behind the other view's surface would leave out wrong depth as well.
    """
    num_views, height, width = splats.depth.shape[1:]
    points = splats.points()[index]  # [V, H, W, 3]
    own_times = nearest_times(splats.times[index], splats.view_times[index])  # [V] positions among the target times
    start = pixel_grid(height, width, points.device).flatten(0, 1)  # [HW, 2]
    pixels = torch.tensor([width, height], device=points.device)
    rows = []
    for i in range(num_views):
        j = i + 1 if i + 1 < num_views else max(i - 1, 0)
        there = (points[i] + splats.motion[index, own_times[j], i]).flatten(0, 1)  # [HW, 3] at the other's time
        back = points[j] + splats.motion[index, own_times[i], j]  # [H, W, 3] the other's surface at this time
        camera, other = splats.cameras[index][i], splats.cameras[index][j]
        xy, z = project(there, other.fxfycxcy, other.c2w)
        inside = ((xy >= 0) & (xy <= 1)).all(dim=-1) & (z > 1e-6)
        returned, _ = project(_sampled(back.movedim(-1, 0), xy), camera.fxfycxcy, camera.c2w)
        error = ((returned - start) * pixels).norm(dim=-1)[inside]
        within = (error < 1).float().mean() if len(error) else error.new_tensor(0.0)
        rows.append((error.median() if len(error) else error.new_tensor(torch.nan), within, inside.float().mean()))
    return Consistency(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _sampled(maps: Tensor, xy: Tensor) -> Tensor:  # [C, H, W], [P, 2] normalised -> [P, C]
    grid = (2 * xy - 1).clamp(-2, 2)[None, None]  # [1, 1, P, 2]
    sampled = F.grid_sample(maps[None].float(), grid, align_corners=False, padding_mode="border")  # [1, C, 1, P]
    return sampled[0, :, 0].T


def depth_agreement(reference: Tensor, depth: Tensor) -> tuple[float, float]:  # [V, H, W] each
    """(median of depth / reference, half the spread of its middle half as a factor): (1, 1) is perfect agreement."""
    ratios = (depth / reference.clamp(min=1e-6)).flatten().float()
    ratios = ratios[ratios.isfinite() & (ratios > 0)]
    if not len(ratios):
        return float("nan"), float("nan")
    thinned = ratios[:: max(1, len(ratios) // 100_000)].log()
    low, middle, high = thinned.quantile(torch.tensor([0.25, 0.5, 0.75], device=thinned.device)).exp().tolist()
    return middle, (high / low) ** 0.5


def parallax(cameras: Cameras, depth: Tensor) -> float:  # [V], [V, H, W]
    """The largest distance between camera centres over the median depth."""
    return float(torch.cdist(cameras.centers, cameras.centers).max() / depth.median())
