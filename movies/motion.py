"""One reconstruction read as motion: 3D point tracks, scene flow, optical flow and moving-object masks.

Of DynamicSplats a pixel's own prediction is followed. A stored Scene4D no longer knows which pixel a Gaussian came
from: there a pixel follows what renders it, the mean motion of the Gaussians seen in it, weighted by how much of the
pixel each of them fills. That holds for any camera and any two times, and blends where a pixel shows an edge.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.geometry import pixel_grid, project, transform_points
from movies.rendering import render
from movies.scene import Scene4D
from movies.splats import DynamicSplats, activate
from movies.tracks import PointTracks, Queries

HIDDEN_TOLERANCE = 0.15  # a point is hidden where it lies deeper than the rendered surface by more than this share
COVERED = 0.5  # the share of a pixel that must be covered for it to have a surface
STILL = 0.005  # in scene sizes: what moves less is not moving, as for the network's own threshold
SPREADS = 20.0  # robust standard deviations above the median motion: errors of motion have heavy tails
SMALLEST_PART = 0.002  # of a picture: smaller parts of a mask are dropped, smaller holes closed


# --- tracks


def follow_splats(splats: DynamicSplats, queries: Queries, index: int = 0) -> tuple[Tensor, Tensor]:
    """Where the pixels' points are at the target times, in the network's world: [T, P, 3], confidence [T, P].

    A query starts on its own ray at the depth of the pixel it lies in, and moves as that pixel does. The confidence is
    the opacity of the pixel's splat at each time: how far the pictures rely on it. (`motion_confidence` would say more
    of weights that were trained with it; the bundled ones were not.)
    """
    height, width = splats.depth.shape[-2:]
    pixel = (queries.views, *_pixels(queries.positions, height, width))
    start = _lift(queries.positions, splats.depth[index][pixel], splats.cameras[index][queries.views])
    at_times = (splats.motion, splats.moving, splats.raw_motion_splats)
    motion, moving, raw = (x[index][(slice(None), *pixel)] for x in at_times)  # [T, P, ...]
    raw = torch.where(moving[..., None], raw, splats.raw_splats[index][pixel])
    return start + motion, activate(raw)[2]


def follow_scene(
    scene: Scene4D, queries: Queries, times: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:  # [T] -> [T, P, 3], [T, P]
    """Where what renders the pixels is at any times, NaN where nothing does; the confidence is the cover of the pixel.

    `size` is the (height, width) of the pictures that are rendered for it.
    """
    points = scene.times.new_full((len(times), len(queries), 3), torch.nan)
    confidence = scene.times.new_zeros(len(times), len(queries))
    for view in queries.views.unique().tolist():
        own, camera = queries.views == view, scene.cameras[view]
        seen = rendered_flow(scene, camera, float(scene.view_times[view]), times, size)
        pixel = _pixels(queries.positions[own], *size)
        starts = _lift(queries.positions[own], seen.depth[pixel], scene.cameras[queries.views[own]])
        points[:, own] = starts + seen.offsets[(slice(None), *pixel)]
        confidence[:, own] = seen.alphas[pixel]
    return points, confidence


def observed(
    scene: Scene4D, points: Tensor, confidence: Tensor, queries: Queries, size: tuple[int, int]
) -> PointTracks:  # [T, P, 3], [T, P] at the scene's stored times, in its world
    """Points as the view nearest in time to each stored time sees them: positions, and visible by rendered depth."""
    cameras = scene.cameras[nearest_times(scene.view_times, scene.times)]  # [T]
    surface = rendered_depth(scene, cameras, scene.times, size)
    positions, visible = seen_by(points, cameras, surface)
    return PointTracks(points, positions, visible, confidence, scene.times, cameras, queries)


def seen_by(points: Tensor, cameras: Cameras, surface: Tensor) -> tuple[Tensor, Tensor]:  # [T, P, 3], [T], [T, H, W]
    """Normalised positions [T, P, 2] and which points [T, P] lie in the picture and not behind the surface's depth.

    A pixel of depth 0 shows nothing, and so hides nothing.
    """
    positions, z = project(points, cameras.fxfycxcy, cameras.c2w)
    inside = ((positions >= 0) & (positions < 1)).all(dim=-1) & (z > 0)
    row, column = _pixels(positions, *surface.shape[-2:])
    depth = surface.flatten(1).gather(1, row * surface.shape[-1] + column)  # [T, P]
    return positions, inside & ((z <= depth * (1 + HIDDEN_TOLERANCE)) | (depth == 0))


def _pixels(positions: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:  # [..., 2] -> row, column [...]
    """The pixels that positions lie in; those outside of the picture go to its nearest one."""
    positions = positions.nan_to_num()
    column = (positions[..., 0] * width).clamp(0, width - 1).long()
    return (positions[..., 1] * height).clamp(0, height - 1).long(), column


def _lift(positions: Tensor, depth: Tensor, cameras: Cameras) -> Tensor:  # [P, 2], [P], [P] -> [P, 3]
    """World points of image positions at given z-depths."""
    xy = (positions - cameras.fxfycxcy[:, 2:]) / cameras.fxfycxcy[:, :2]
    rays = torch.cat([xy, torch.ones_like(xy[:, :1])], dim=-1)
    return transform_points(cameras.c2w, (rays * depth[:, None])[:, None])[:, 0]


def nearest_times(known: Tensor, wanted: Tensor) -> Tensor:  # [K], [T] -> [T] positions in `known`
    """For each wanted time the known one nearest to it."""
    return (wanted[:, None] - known).abs().argmin(dim=1)


# --- depth and flow


@torch.no_grad()
def rendered_depth(scene: Scene4D, cameras: Cameras, times: Tensor, size: tuple[int, int]) -> Tensor:
    """z-depth [K, H, W] of the scene at `times` [K] as `cameras` [K] see it, input or novel views; 0 where nothing."""
    depths = []
    for camera, time in zip(cameras, times, strict=True):
        picture = render(scene.at(time), camera, *size)
        depths.append(torch.where(picture.alphas >= COVERED, picture.depths, 0.0)[0])
    return torch.stack(depths)


@dataclass(frozen=True)
class RenderedFlow:
    """What a camera sees at one time, and how far that is moved at T others."""

    depth: Tensor  # [H, W] z-depth, NaN where nothing is seen
    alphas: Tensor  # [H, W]
    offsets: Tensor  # [T, H, W, 3] world units, NaN where nothing is seen


@torch.no_grad()
def rendered_flow(
    scene: Scene4D, camera: Cameras, start: float, ends: Tensor, size: tuple[int, int]
) -> RenderedFlow:  # one camera, [T]
    """Scene flow of any view between any two times: offsets are rendered in the place of colours."""
    now = scene.at(start)
    picture = render(now, camera, *size)
    alphas = picture.alphas[0]
    seen = torch.where(alphas >= COVERED, 1.0, torch.nan)  # [H, W]
    offsets = []
    for end in ends:
        moved = replace(now, colors=scene.at(end).means - now.means)
        summed = render(moved, camera, *size).images.movedim(0, -1)  # [H, W, 3]
        offsets.append(summed * (seen / alphas)[..., None])
    return RenderedFlow(picture.depths[0] * seen, alphas, torch.stack(offsets))


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


def optical_flow(moved: Tensor, cameras: Cameras) -> Tensor:  # [..., H, W, 3] world, [...] -> [..., H, W, 2] pixels
    """How far pixels travel in the picture (x right, y down) when their points go to `moved`, seen by `cameras`.

    With the camera of the points' own view it is the motion's share; with that of another view, all that the picture
    shows. NaN for points on or behind the camera plane.
    """
    height, width = moved.shape[-3:-1]
    positions, z = project(moved.flatten(-3, -2), cameras.fxfycxcy, cameras.c2w)
    positions = torch.where(z[..., None] > 1e-6, positions, torch.nan).unflatten(-2, (height, width))
    return (positions - pixel_grid(height, width, moved.device)) * moved.new_tensor([width, height])


def flow_to_next_view(splats: DynamicSplats, index: int = 0) -> Tensor:  # [V - 1, H, W, 2] pixels
    """Optical flow of each view to the next: camera and scene together."""
    moved = splats.points()[index, :-1] + scene_flow(splats, index)[:-1]
    return optical_flow(moved, splats.cameras[index][1:])


# --- masks


def motion_magnitude(splats: DynamicSplats, index: int = 0) -> Tensor:  # [V, H, W] in scene sizes
    """How far each pixel's point ever gets from where it was at its own time, over the scene's median depth."""
    home = nearest_times(splats.times[index], splats.view_times[index])  # [V]
    return farthest(splats.motion[index], home) / splats.depth[index].median()


def farthest(positions: Tensor, home: Tensor) -> Tensor:  # [T, V, H, W, 3], [V] -> [V, H, W]
    """The largest distance over all times from the position at time number `home` of each view; NaN counts as none."""
    start = positions[home, torch.arange(len(home), device=home.device)]
    distance = torch.zeros_like(start[..., 0])
    for now in positions:  # one time after another: all differences at once are as large as the prediction
        distance = torch.maximum(distance, (now - start).norm(dim=-1).nan_to_num(0))
    return distance


def moving_masks(splats: DynamicSplats, index: int = 0) -> Tensor:  # [V, H, W] bool
    """The pixels of each view that show something that moves at any target time, cleaned."""
    return cleaned_masks(above_the_still(motion_magnitude(splats, index)))


def above_the_still(magnitude: Tensor) -> Tensor:  # [V, H, W] in scene sizes -> bool
    """Where motion stands out from that of the scene at large, all views together, and is not under STILL.

    It stands out SPREADS robust standard deviations (of the MAD) above the median. Where so much moves, or the
    prediction is so restless, that this asks too much, it is what parts the motions best into two kinds (Otsu 1979).
    """
    values = magnitude.flatten()
    middle = values.median()
    noise = middle + SPREADS * 1.4826 * (values - middle).abs().median()
    return magnitude > torch.minimum(noise, _otsu(values)).clamp(min=STILL)


def _otsu(values: Tensor, bins: int = 256) -> Tensor:  # [N] >= 0 -> []
    """The threshold with the largest variance between the values below and above it."""
    top = float(values.max())
    counts = torch.histc(values, bins, 0.0, max(top, 1e-12))
    centers = (torch.arange(bins, device=values.device) + 0.5) * top / bins
    below = counts.cumsum(dim=0) / counts.sum()
    mean = (counts * centers).cumsum(dim=0) / counts.sum()
    between = (mean[-1] * below - mean).square() / (below * (1 - below)).clamp(min=1e-9)
    best = between >= between.max() * (1 - 1e-6)  # alike in all of a gap, whose middle is taken
    return centers[best].mean()


def cleaned_masks(masks: Tensor) -> Tensor:  # [V, H, W] bool
    """Each mask without its small parts, and with small holes closed."""
    cleaned = [~_without_small_parts(~_without_small_parts(mask)) for mask in masks.cpu()]
    return torch.stack(cleaned).to(masks.device)


def _without_small_parts(mask: Tensor) -> Tensor:  # [H, W] bool, on the CPU
    from scipy import ndimage

    labels, _ = ndimage.label(mask.numpy())
    sizes = torch.bincount(torch.from_numpy(labels).flatten().long())
    sizes[0] = 0  # the background is no part
    return (sizes >= max(2, SMALLEST_PART * mask.numel()))[torch.from_numpy(labels).long()]
