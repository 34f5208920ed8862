"""The network's own world: the first view's camera is the identity, and points lie at mean distance 1 or so.

Without given cameras that world and VGGT's unit are kept, unless VGGT's points lie far from mean distance 1, and its
cameras are refined by the pictures (camera_refinement.py). Given cameras are brought there and the scene is brought
back: the unit is the one in which VGGT's depth and the given cameras explain the frames best (each frame warped into
others). Where it cannot be had (no VGGT, or cameras that stand still), one unit of the given world is taken for one of
the network's.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.camera_refinement import NOT_REFINED, Refinement, refined_cameras
from movies.cameras import Cameras
from movies.clip import Clip
from movies.errors import InputError
from movies.geometry import project, unproject
from movies.model.vggt import VGGTPrediction

REACH, NUM_UNITS = (0.02, 4.0), 36  # how far apart cameras may be in the network's unit, and the steps between
NORMAL = (0.5, 2.0)  # mean distances that a bit of sky can explain; outside of it VGGT's unit is not the one trained on


@dataclass(frozen=True)
class NetworkWorld:
    """Context cameras in the network's world, and the way back: x_user = transform (scale * x_network)."""

    cameras: Cameras  # [V]
    scale: float
    transform: Tensor  # [4, 4]
    depth: Tensor  # [V, H, W] that VGGT sees in this world, [0, 0, 0] without VGGT
    refinement: Refinement = NOT_REFINED  # of estimated cameras


def fit_resolution(clip: Clip, resolution: int, patch_size: int) -> Clip:
    """The context views resized so that the longer side is `resolution`, the shorter the nearest multiple of the patch.

    The picture's proportions stay: what does not fit is cropped evenly from both edges, and the cameras follow.
    """
    if resolution < patch_size or resolution % patch_size:
        below = max(patch_size, resolution // patch_size * patch_size)
        raise InputError(f"resolution must be a multiple of the patch size {patch_size}, got {resolution}; try {below}")
    clip = replace(clip, views=clip.context, tracks=clip.tracks.select(slice(0, clip.num_context)))
    height, width = clip.views.size
    shrink = resolution / max(height, width)
    goal = [max(patch_size, round(n * shrink / patch_size) * patch_size) for n in (height, width)]
    grow = max(goal[0] / height, goal[1] / width)
    new = [max(g, round(n * grow)) for g, n in zip(goal, (height, width), strict=True)]
    top, left = (new[0] - goal[0]) // 2, (new[1] - goal[1]) // 2
    return clip.resized(*new).cropped(top, left, *goal)


def network_world(
    clip: Clip, prediction: VGGTPrediction | None, device: torch.device, refine: bool = True
) -> NetworkWorld:
    """The world for a clip's context views, from its cameras or from what VGGT says. Raises InputError for NaN.

    With `refine` estimated cameras are those that explain the pictures best; given ones are never changed.
    """
    if not clip.has_cameras:
        return _estimated_world(clip.context.images.to(device), prediction, refine)
    given = clip.context.cameras
    canonical, depth, unit = given.relative_to(given[:1]).to(device), torch.zeros(0, 0, 0), 1.0
    if prediction is not None:
        depth = prediction.depth[0]
        unit = network_unit(clip.context.images.to(device), depth, canonical)
    return NetworkWorld(canonical.rescaled(unit), 1 / unit, given.c2w[0].cpu(), depth)


def _estimated_world(images: Tensor, prediction: VGGTPrediction, refine: bool) -> NetworkWorld:  # [V, 3, H, W]
    """VGGT's cameras with the first one at the identity, in its own unit or, far from mean distance 1, in that."""
    cameras = prediction.cameras[0]
    cameras = cameras.relative_to(cameras[:1])
    if not (cameras.c2w.isfinite().all() and cameras.fxfycxcy.isfinite().all()):
        raise InputError("the camera estimate is not finite: the camera weights do not fit this clip")
    depth, refinement = prediction.depth[0], NOT_REFINED
    if refine:
        cameras, refinement = refined_cameras(images, depth, cameras)
    distance = float(unproject(depth, cameras.fxfycxcy, cameras.c2w).norm(dim=-1).mean())
    factor = 1.0 if NORMAL[0] <= distance <= NORMAL[1] or not distance > 0 else 1 / distance
    return NetworkWorld(cameras.rescaled(factor), 1.0, torch.eye(4), depth * factor, refinement)


def network_unit(images: Tensor, depth: Tensor, cameras: Cameras) -> float:  # [V, 3, H, W], [V, H, W], [V]
    """What lengths of the cameras' world are multiplied by to agree with `depth`; 1 for cameras that stand still.

    The factor that best explains the frames by one another, of a row of factors 16 % apart, refined by a parabola.
    Depth is trusted for this rather than VGGT's camera centres: a small error there turns a small baseline into none.
    """
    reach = float(torch.cdist(cameras.centers, cameras.centers).max())
    if reach < 1e-8:
        return 1.0
    low, high = (math.log(x / reach) for x in REACH)
    steps = torch.linspace(low, high, NUM_UNITS).tolist()
    costs = [_mismatch(images, depth, cameras.rescaled(math.exp(step))) for step in steps]
    best = min(range(len(steps)), key=costs.__getitem__)
    if not 0 < best < len(steps) - 1:
        return math.exp(steps[best])
    before, here, after = costs[best - 1 : best + 2]
    curvature = before - 2 * here + after
    shift = 0.5 * (before - after) / curvature if curvature > 0 else 0.0
    return math.exp(steps[best] + shift * (steps[1] - steps[0]))


def _mismatch(images: Tensor, depth: Tensor, cameras: Cameras) -> float:
    """Mean absolute difference of frames and other frames warped into them through the depth."""
    num_views, _, height, width = images.shape
    points = unproject(depth, cameras.fxfycxcy, cameras.c2w).flatten(1, 2)  # [V, HW, 3]
    unseen = (images - images.mean(dim=(2, 3), keepdim=True)).abs().mean()  # as if matched with anything
    costs = []
    for gap in sorted({1, max(1, num_views // 4), num_views // 2}):
        others = (torch.arange(num_views, device=depth.device) + gap) % num_views
        positions, z = project(points, cameras.fxfycxcy[others], cameras.c2w[others])  # [V, HW, 2], [V, HW]
        inside = ((positions >= 0) & (positions <= 1)).all(dim=-1) & (z > 1e-3)
        grid = (2 * positions - 1).unflatten(1, (height, width)).clamp(-2, 2)
        warped = F.grid_sample(images[others], grid, align_corners=False, padding_mode="border")
        difference = (warped - images).abs().mean(dim=1).flatten(1)  # [V, HW]
        costs.append(torch.where(inside, difference, unseen).mean())
    return float(torch.stack(costs).mean())
