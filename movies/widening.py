"""Pictures larger than the input views, without gaps between the splats."""

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor

from movies.gaussians import Gaussians
from movies.scene import Scene4D

BLUR = 0.3  # square pixels by which the renderer widens every splat


def widened(scene: Scene4D, enlarged: float = math.inf) -> Scene4D:
    """The scene for pictures `enlarged` times as large as its input views', without gaps between its splats.

    Splats are made for the input views' pixels, by whose share (BLUR) the renderer widens them. Smaller pixels widen
    them less and gaps open; here what is missing becomes part of the splats, as seen from the nearest input view.
    """
    static, moving = (widen(g, scene, enlarged) for g in (scene.static, scene.moving))
    return replace(scene, static=static, moving=moving)


def widen(gaussians: Gaussians, scene: Scene4D, enlarged: float) -> Gaussians:  # [..., N]
    """Gaussians before the input views of a scene, as `widened`."""
    width = scene.image_size[1]
    if enlarged <= 1 or not width or not len(scene.cameras):
        return gaussians
    missing = BLUR * (1 - 1 / enlarged**2) / (scene.cameras.fxfycxcy[0, 0] * width) ** 2
    depths = [depths_before(gaussians.means, c2w) for c2w in scene.cameras.c2w]
    nearest = functools.reduce(torch.minimum, depths)  # [..., N]
    variances = gaussians.scales**2 + missing * nearest.where(nearest.isfinite(), 0)[..., None] ** 2
    return replace(gaussians, scales=variances.sqrt())


def depths_before(means: Tensor, c2w: Tensor) -> Tensor:  # [..., N, 3], [4, 4] -> [..., N]
    """z-depths before a camera, infinite behind it."""
    z = (means - c2w[:3, 3]) @ c2w[:3, 2]
    return z.where(z > 0, math.inf)
