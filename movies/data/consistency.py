"""Do images, cameras, depth and tracks of a sequence agree, and if not, which mistake would explain it?

Pixels of one view are carried by its depth into another view, where their depth and colour are compared; tracks are
compared with the depth they project to. The same is done with every hypothesis of `HYPOTHESES` applied: the one
under which the data agree far better names the likely mistake.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Tracks, Views
from movies.geometry import pixel_rays, project, rigid_inverse

WORST = 0.5  # a residual of pixels that meet nothing, and the most that any counts
POINTS = 4096  # pixels of a view that are carried over
DENSE = 0.5  # share of pixels with depth whose neighbours must have it too for it to be a map
BETTER = 0.6  # a hypothesis explains the data where it leaves less than this of the disagreement,
MARGIN = 0.006  # and takes away at least so much of it
STILL = 1 / 3  # of the points of any clip stand still
LIMIT = 0.12  # disagreement that cannot be right even where nothing explains it


@dataclass(frozen=True)
class Sample:
    """Some views of a sequence with their tracks, and the cameras of the frames before and after each of them."""

    views: Views  # V
    tracks: Tracks
    before: Cameras  # V
    after: Cameras  # V


@dataclass(frozen=True)
class Residuals:
    """Medians of how far the data disagree, 0 to WORST; NaN where there is nothing to compare.

    `depth` and `tracks` are relative to the depth, `color` of pixels (or of tracks without a depth map) in [0, 1].
    Without a depth map `tracks` is how far points wander from frame to frame, of those that wander least.
    """

    depth: float
    color: float
    tracks: float

    @property
    def total(self) -> float:
        """The sum of what could be compared; colour counts less than places, as shading and motion disturb it."""
        color = (0.5 if math.isnan(self.depth) else 0.3) * self.color
        return sum(value for value in (self.depth, color, self.tracks) if not math.isnan(value))


@dataclass(frozen=True)
class Verdict:
    """What was found: residuals as the data are, whether they can be right, and what explains them if not."""

    residuals: Residuals
    agrees: bool
    hint: str


def judge(sample: Sample) -> Verdict:
    """Compare the data with themselves as they are and under every hypothesis."""
    now = residuals(sample.views, sample.tracks)
    trials = {hint: residuals(*change(sample)).total for hint, change in HYPOTHESES.items()}
    hint = min(trials, key=trials.get)
    if trials[hint] < BETTER * now.total and now.total - trials[hint] > MARGIN:
        return Verdict(now, False, hint)
    return Verdict(now, now.total <= LIMIT, "")


# --- hypotheses --------------------------------------------------------------------------------------------------


def _with_c2w(change: Callable[[Tensor], Tensor]) -> Callable[[Sample], tuple[Views, Tracks]]:
    def apply(sample: Sample) -> tuple[Views, Tracks]:
        return _with_cameras(sample, Cameras(change(sample.views.cameras.c2w), sample.views.cameras.fxfycxcy))

    return apply


def _with_cameras(sample: Sample, cameras: Cameras) -> tuple[Views, Tracks]:
    return replace(sample.views, cameras=cameras), sample.tracks


def _with_depth(factor: float) -> Callable[[Sample], tuple[Views, Tracks]]:
    """Depth maps rescaled, or the tracks where there are no maps."""

    def apply(sample: Sample) -> tuple[Views, Tracks]:
        if _is_dense(sample.views):
            return replace(sample.views, depth=sample.views.depth * factor), sample.tracks
        return sample.views, Tracks(sample.tracks.points * factor, sample.tracks.visible)

    return apply


def _from_ray_distance(sample: Sample) -> tuple[Views, Tracks]:
    """Depth maps, or where there are none tracks, brought nearer by the length of their ray at depth 1."""
    views, tracks = sample.views, sample.tracks
    if _is_dense(views):
        lengths = pixel_rays(views.cameras.fxfycxcy, *views.size).norm(dim=-1)
        return replace(views, depth=views.depth / lengths), tracks
    offsets = _offsets(tracks, views.cameras)
    _, z = project(tracks.points, views.cameras.fxfycxcy, views.cameras.c2w)
    points = views.cameras.centers[:, None] + offsets * (z / offsets.norm(dim=-1))[..., None]
    return views, Tracks(points, tracks.visible)


def _offsets(tracks: Tracks, cameras: Cameras) -> Tensor:  # [V, P, 3] world, from the camera to the point
    return tracks.points - cameras.centers[:, None]


def _flipped(c2w: Tensor) -> Tensor:
    return c2w @ torch.diag(c2w.new_tensor([1.0, -1.0, -1.0, 1.0]))


HYPOTHESES: dict[str, Callable[[Sample], tuple[Views, Tracks]]] = {
    "inverted poses: world-to-camera read as camera-to-world, or the other way round": _with_c2w(rigid_inverse),
    "OpenGL axes (y up, z back) read as OpenCV's": _with_c2w(_flipped),
    "inverted poses in OpenGL axes": _with_c2w(lambda c2w: _flipped(rigid_inverse(c2w))),
    "centimetres read as metres: depth is 100 times too large for the cameras": _with_depth(0.01),
    "millimetres read as metres: depth is 1000 times too large for the cameras": _with_depth(0.001),
    "metres read as centimetres: depth is 100 times too small for the cameras": _with_depth(100.0),
    "ray distance read as z-depth": _from_ray_distance,
    "frames off by one: every camera belongs to the frame before it": lambda s: _with_cameras(s, s.after),
    "frames off by one: every camera belongs to the frame after it": lambda s: _with_cameras(s, s.before),
}


# --- residuals ---------------------------------------------------------------------------------------------------


def residuals(views: Views, tracks: Tracks) -> Residuals:
    """How far views and tracks disagree, over all pairs of the views."""
    dense = _is_dense(views)
    known = _known(tracks)
    depth = color = followed = float("nan")
    if dense:
        pairs = [(a, b) for a in range(len(views)) for b in range(len(views)) if a != b]
        found = torch.tensor([_carried(views, a, b) for a, b in pairs])
        depth, color = found.mean(dim=0).tolist()
    if known.any():
        if dense:
            followed = _on_surface(views, tracks, known)
        else:
            color, followed = _same_color(views, tracks, known), _wandering(views, tracks, known)
    return Residuals(depth, color, followed)


def _is_dense(views: Views) -> bool:
    """Depth is a map, not a by-product of tracks: most pixels that have it have neighbours with it."""
    mask = views.depth_mask
    whole = mask[..., 1:, 1:] & mask[..., :-1, 1:] & mask[..., 1:, :-1] & mask[..., :-1, :-1]
    return bool(whole.float().mean() > DENSE * mask.float().mean())


def _known(tracks: Tracks) -> Tensor:  # [V, P] bool
    """Visible points; all that have a position where the cameras leave hardly any visible."""
    known = tracks.points.isfinite().all(dim=-1)
    seen = known & tracks.visible
    return seen if seen.sum() > 0.05 * known.sum() else known


def _carried(views: Views, a: int, b: int) -> tuple[float, float]:
    """Relative depth and colour residual of view `a` carried into view `b`."""
    chosen = views.depth_mask[a].flatten().nonzero()[:, 0]
    chosen = chosen[:: max(1, len(chosen) // POINTS)]
    points = views.select([a]).points()[0].flatten(0, 1)[chosen]  # [N, 3]
    xy, z = project(points, views.cameras.fxfycxcy[b], views.cameras.c2w[b])
    inverse, valid = _inverse_depth(views, b, xy, z)
    if valid.sum() < 0.05 * max(len(chosen), 1):
        return WORST, WORST
    before = views.images[a].flatten(1)[:, chosen]  # [3, N]
    difference = (_sampled(views.images[b], xy) - before).abs().mean(dim=0)
    return _median((z * inverse - 1).abs()[valid]), _median(difference[valid])


def _on_surface(views: Views, tracks: Tracks, known: Tensor) -> float:
    """How far visible points lie before or behind the surface in their pixel, relative to its depth."""
    found = []
    for v in range(len(views)):
        xy, z = project(tracks.points[v].nan_to_num(), views.cameras.fxfycxcy[v], views.cameras.c2w[v])
        inverse, valid = _inverse_depth(views, v, xy, z)
        valid &= known[v]
        enough = valid.sum() >= 0.05 * known[v].sum()
        found.append(_median((z * inverse - 1).abs()[valid]) if enough else WORST)
    return sum(found) / len(found)


def _same_color(views: Views, tracks: Tracks, known: Tensor) -> float:
    """How far the colours of points in neighbouring views differ."""
    points = tracks.points.nan_to_num()
    xy, z = project(points, views.cameras.fxfycxcy, views.cameras.c2w)
    inside = known & ((xy > 0) & (xy < 1)).all(dim=-1) & (z > 0)
    colors = torch.stack([_sampled(views.images[v], xy[v]) for v in range(len(views))])  # [V, 3, P]
    found = []
    for a in range(len(views) - 1):
        both = inside[a] & inside[a + 1]
        enough = both.sum() >= 0.05 * (known[a] & known[a + 1]).sum().clamp(min=1)
        found.append(_median((colors[a] - colors[a + 1]).abs().mean(dim=0)[both]) if enough else WORST)
    return sum(found) / max(len(found), 1)


def _wandering(views: Views, tracks: Tracks, known: Tensor) -> float:
    """How far points move between neighbouring views, relative to their distance; of the STILL share that moves least.

    What stands still must not move with the camera, which colours cannot tell: along its ray a point keeps its pixel.
    """
    distance = _offsets(tracks, views.cameras).norm(dim=-1)  # [V, P]
    moved = (tracks.points[1:] - tracks.points[:-1]).norm(dim=-1) / distance[:-1]
    both = known[1:] & known[:-1] & moved.isfinite()
    found = [
        min(torch.quantile(row[use], STILL).item(), WORST) for row, use in zip(moved, both, strict=True) if use.any()
    ]
    return sum(found) / len(found) if found else float("nan")


def _inverse_depth(views: Views, view: int, xy: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:  # [N], [N] bool
    """1 / depth at image positions, which is linear on planes, and where all four pixels around have depth."""
    mask = views.depth_mask[view].float()
    inverse = mask / torch.where(views.depth_mask[view], views.depth[view], torch.ones_like(mask))
    sampled = _sampled(torch.stack([inverse, mask]), xy)
    return sampled[0], (sampled[1] > 0.999) & (z > 0)


def _sampled(maps: Tensor, xy: Tensor) -> Tensor:  # [C, H, W], [N, 2] -> [C, N], bilinear, 0 outside
    return F.grid_sample(maps[None], (2 * xy - 1)[None, None], align_corners=False)[0, :, 0]


def _median(values: Tensor) -> float:
    return min(values.median().item(), WORST) if values.numel() else WORST
