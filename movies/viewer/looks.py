"""A scene in the colours of something else than its pictures: of depth, motion or opacity."""

from dataclasses import replace

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.scene import Scene4D
from movies.video import false_color
from movies.widening import depths_before

STILL = 0.02  # of the longest motion: what moves less is shown as still
GREY = torch.tensor([0.3, 0.59, 0.11])  # of red, green and blue in brightness


def with_camera(scene: Scene4D) -> Scene4D:
    """The scene, looked at along the world's axes where it has no input camera."""
    if len(scene.cameras):
        return scene
    camera = Cameras(torch.eye(4)[None], torch.tensor([[1.0, 1.0, 0.5, 0.5]])).to(scene.times.device)
    return replace(scene, cameras=camera, view_times=scene.times[:1])


def recolored(scene: Scene4D, look: str) -> Scene4D:
    """The scene in the colours of one of LOOKS. Raises InputError for another."""
    if look not in LOOKS:
        raise InputError(f"unknown colouring {look!r}: choose one of {', '.join(LOOKS)}")
    return LOOKS[look](scene)


def _as_depth(scene: Scene4D) -> Scene4D:
    """z-depth before the first input camera, near ones blue, far ones red, logarithmically."""
    means = torch.cat([scene.static.means, scene.moving.means.flatten(0, 1)])  # [S + T M, 3]
    z = depths_before(means, scene.cameras.c2w[0])
    colors = false_color(z[None], z[None].isfinite(), logarithmic=True)[:, 0].T  # [S + T M, 3]
    return _with_colors(scene, colors[: len(scene.static)], colors[len(scene.static) :])


def _as_motion(scene: Scene4D) -> Scene4D:
    """How far each Gaussian gets from where it is first: blue a little, red far; what stands still is grey."""
    reach = (scene.moving.means - scene.moving.means[:1]).norm(dim=-1).amax(dim=0)  # [M]
    moves = reach > STILL * reach.max() if len(reach) else reach > 0
    grey = scene.moving.colors @ GREY.to(reach)
    colors = torch.where(moves[:, None], false_color(reach[None], moves[None])[:, 0].T, 0.5 * grey[..., None])
    still = 0.5 * (scene.static.colors @ GREY.to(reach))
    return _with_colors(scene, still[:, None].expand(-1, 3), colors)


def _as_opacity(scene: Scene4D) -> Scene4D:
    """White where opaque, black where clear."""
    static, moving = scene.static.opacities, scene.moving.opacities
    return _with_colors(scene, static[:, None].expand(-1, 3), moving[..., None].expand(*moving.shape, 3))


def _with_colors(scene: Scene4D, static: Tensor, moving: Tensor) -> Scene4D:  # [S, 3], [T, M, 3] or flattened
    moving = moving.reshape(scene.moving.means.shape)
    return replace(scene, static=replace(scene.static, colors=static), moving=replace(scene.moving, colors=moving))


LOOKS = {"rgb": lambda scene: scene, "depth": _as_depth, "motion": _as_motion, "opacity": _as_opacity}
