"""The only door to gsplat: the CUDA rasteriser."""

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians

NEAR, FAR = 0.001, 100.0


def rasterize(
    gaussians: Gaussians,  # [S, N]
    cameras: Cameras,  # [S, C]
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colours [S, C, 3, H, W], alphas and accumulated depths [S, C, 1, H, W], without a background.

    Raises InputError where gsplat's CUDA kernels cannot be loaded or built.
    """
    if len(gaussians) == 0 or 0 in cameras.shape:
        # gsplat launches no kernel for nothing and its shapes then differ between versions.
        return _nothing(gaussians, cameras, height, width)
    gaussians = _finite(gaussians)
    # Dense (not packed): nearly all of our Gaussians are in view, and a view without any is no special case there.
    rendered, alphas, _ = _rasterization()(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.colors,
        cameras.viewmats().float().detach(),
        cameras.Ks(height, width).float().detach(),
        width,
        height,
        near_plane=NEAR,
        far_plane=FAR,
        packed=False,
        render_mode="RGB+D",
    )
    rendered, alphas = rendered.movedim(-1, -3), alphas.movedim(-1, -3)  # [S, C, 4, H, W], [S, C, 1, H, W]
    return rendered[..., :3, :, :], alphas, rendered[..., 3:, :, :]


def _rasterization():
    """gsplat's entry point; importing builds nothing, the first call does."""
    try:
        from gsplat import rasterization
        from gsplat.cuda._backend import _C
    except ImportError as error:
        raise InputError(f"gsplat cannot be loaded ({error}): pip install 'gsplat>=1.5.3'") from error
    if _C is None:
        raise InputError("gsplat found no CUDA toolkit to build its kernels with: install nvcc, or render on the CPU")
    return rasterization


def _finite(gaussians: Gaussians) -> Gaussians:
    """Gaussians that are not finite, or have no rotation, replaced by ones that are never drawn.

    gsplat compares with near and far in ways that NaN passes, and min(0.999, NaN) is 0.999 on CUDA: one such Gaussian
    would be painted over every pixel of its tiles.
    """
    g = gaussians
    total = g.means.abs().sum(-1) + g.quats.abs().sum(-1) + g.scales.abs().sum(-1) + g.colors.abs().sum(-1)
    good = torch.isfinite(total + g.opacities.abs()) & (g.quats != 0).any(-1)  # [S, N]
    column = good[..., None]
    return Gaussians(
        means=torch.where(column, g.means, 0),
        quats=torch.where(column, g.quats, 1),
        scales=torch.where(column, g.scales, 1),
        opacities=torch.where(good, g.opacities, 0),
        colors=torch.where(column, g.colors, 0),
    )


def _nothing(gaussians: Gaussians, cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Empty pictures that still hang on the Gaussians' graph, so that backward works."""
    zero = sum(x.sum() for x in (gaussians.means, gaussians.quats, gaussians.scales)) * 0
    zero = zero + (gaussians.opacities.sum() + gaussians.colors.sum()) * 0
    empty = zero.expand(*cameras.shape, 1, height, width)
    return empty.expand(*cameras.shape, 3, height, width), empty, empty
