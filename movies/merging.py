"""Near-duplicate Gaussians made into one: what several frames saw of one place, once.

Gaussians of one cell of a grid become the Gaussian with their mass, mean and covariance (moment matching). The grid is
adapted to what can be told apart: a cell is a multiple of a footprint, which is a pixel of the nearest input camera and
the splat's own size. The mass of a splat is its optical thickness -log(1 - opacity) times its area on the screen, so
that splats on top of each other become more opaque as their product of transmittances says, and splats side by side
keep their opacity. Moving Gaussians become one where they share cells at the first, the middle and the last time.
"""

from dataclasses import replace

import torch
from torch import Tensor

from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.geometry import matrix_to_quaternion, quaternion_to_matrix
from movies.scene import Scene4D

MOVING_CELLS = 4.0  # cells of moving Gaussians in those of static ones: three of them must agree
RENDERER_BLUR = 0.3  # square pixels that movies.rendering adds to every splat
MOST_OPAQUE = 0.999
LEAST_MASS = 1e-12  # lets transparent splats have a mean
# The orders that three axes can have.
_ORDERS = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])


def merge(scene: Scene4D, cell: float, size: tuple[int, int]) -> Scene4D:
    """The scene with the Gaussians of a cell made into one; `cell` counts footprints at (height, width) `size`.

    Gaussians alone in their cell stay as they are, bit for bit. Raises InputError for a scene without cameras.
    """
    if not len(scene.cameras):
        raise InputError("a scene without cameras cannot be merged: they say how large a pixel is")
    cells = _cells(scene, scene.static, cell, size)
    static = merge_groups(scene.static, _groups(cells), _pixel(scene, scene.static, size))
    checked = sorted({0, len(scene.times) // 2, len(scene.times) - 1})
    cells = torch.cat([_cells(scene, scene.moving[t], MOVING_CELLS * cell, size) for t in checked], dim=1)
    return replace(scene, static=static, moving=_merge_moving(scene, _groups(cells), size))


def _groups(cells: Tensor) -> Tensor:  # [N, K] int64 -> [N] the number of each cell
    return cells.unique(dim=0, return_inverse=True)[1]


def _merge_moving(scene: Scene4D, groups: Tensor, size: tuple[int, int]) -> Gaussians:  # [M] -> [T, G]
    several, merged = torch.bincount(groups) > 1, []
    for now in (scene.moving[t] for t in range(len(scene.times))):
        part = merge_groups(now, groups, _pixel(scene, now, size))
        if merged:
            _overwrite(part, several, _axes_like(part.select(several), merged[-1].select(several)))
        merged.append(part)
    return Gaussians.stack(merged)


def _pixel(scene: Scene4D, g: Gaussians, size: tuple[int, int]) -> Tensor:  # [N]
    """The size in the world of a pixel of the input camera nearest to each Gaussian."""
    focal = scene.cameras.fxfycxcy[:, 0].max() * size[1]
    return torch.cdist(g.means, scene.cameras.centers).amin(dim=1) / focal


def _cells(scene: Scene4D, g: Gaussians, cell: float, size: tuple[int, int]) -> Tensor:  # [N] -> [N, 4] int64
    """The cell of each Gaussian: its level (its edge is a power of two) and its place in the grid of that level."""
    footprint = torch.hypot(_pixel(scene, g, size), g.scales.amax(dim=-1)).clamp(min=1e-12)
    level = (cell * footprint).log2().round()
    return torch.cat([level[:, None], (g.means / 2 ** level[:, None]).floor()], dim=1).long()


def merge_groups(g: Gaussians, groups: Tensor, pixel: Tensor) -> Gaussians:  # [N], [N] in 0..G-1, [N] -> [G]
    """One Gaussian for each group, in the groups' order; `pixel` is the size of a pixel at each Gaussian."""
    counts = torch.bincount(groups)
    several, alone = counts > 1, (counts == 1)[groups]
    among_several = (several.cumsum(0) - 1)[groups[~alone]]
    merged = g.map(lambda x: x.new_empty(len(counts), *x.shape[1:]))
    _overwrite(merged, several, _moments(g.select(~alone), among_several, pixel[~alone], int(several.sum())))
    _overwrite(merged, groups[alone], g.select(alone))
    return merged


def _overwrite(g: Gaussians, where: Tensor, values: Gaussians) -> None:
    for name, x in vars(values).items():
        getattr(g, name)[where] = x


def _moments(g: Gaussians, groups: Tensor, pixel: Tensor, num: int) -> Gaussians:  # [N] -> [num]
    g, pixel = g.map(Tensor.double), pixel.double()
    thickness = -torch.log1p(-g.opacities.clamp(0, MOST_OPAQUE)) * _area(g.scales, pixel)
    mass = thickness + LEAST_MASS * _area(g.scales, pixel)

    def summed(x: Tensor) -> Tensor:  # [N, ...] -> [num, ...]
        return x.new_zeros(num, *x.shape[1:]).index_add_(0, groups, x)

    total = summed(mass)

    def mean(x: Tensor) -> Tensor:  # [N, ...] -> [num, ...]
        weight = mass / total[groups]
        return summed(weight.reshape(-1, *[1] * (x.dim() - 1)) * x)

    centers = mean(g.means)
    rotation, offset = quaternion_to_matrix(g.quats), g.means - centers[groups]
    own = (rotation * g.scales.square()[:, None]) @ rotation.transpose(1, 2)
    variances, axes = torch.linalg.eigh(mean(own + offset[:, :, None] * offset[:, None]))
    axes = axes * torch.linalg.det(axes)[:, None, None]
    scales = variances.clamp(min=0).sqrt()
    opacities = -torch.expm1(-summed(thickness) / _area(scales, mean(pixel)).clamp(min=1e-300))
    merged = Gaussians(centers, matrix_to_quaternion(axes), scales, opacities, mean(g.colors))
    return merged.map(Tensor.float)


def _area(scales: Tensor, pixel: Tensor) -> Tensor:  # [N, 3], [N] -> [N]
    """What a splat covers on the screen, seen along its shortest axis, the renderer's blur included."""
    largest = (scales.square() + RENDERER_BLUR * pixel.square()[:, None]).sqrt().topk(2, dim=-1).values
    return largest.prod(dim=-1)


def _axes_like(g: Gaussians, before: Gaussians) -> Gaussians:  # [G] each
    """The same ellipsoids with their axes named and directed as nearly as before, so that times can be interpolated.

    Eigenvectors come in order of their lengths and with any sign, and both change between times.
    """
    rotation = quaternion_to_matrix(g.quats)
    agreement = quaternion_to_matrix(before.quats).transpose(1, 2) @ rotation  # [G, 3 before, 3 now]
    orders = _ORDERS.to(g.device)
    quality = agreement.abs()[:, torch.arange(3, device=g.device), orders].sum(dim=-1)  # [G, 6]
    order = orders[quality.argmax(dim=1)]  # [G, 3]
    along = agreement.gather(2, order[:, :, None])[..., 0]  # [G, 3]
    signs = torch.where(along < 0, -1.0, 1.0)
    axes = rotation.gather(2, order[:, None].expand(-1, 3, -1)) * signs[:, None]
    mirrored = torch.linalg.det(axes) < 0
    least = torch.nn.functional.one_hot(
        along.abs().argmin(dim=1), 3
    ).bool()  # a rotation: turn the axis that fits least
    axes = torch.where((mirrored[:, None] & least)[:, None], -axes, axes)
    return replace(g, quats=matrix_to_quaternion(axes), scales=g.scales.gather(1, order))
