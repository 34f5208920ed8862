"""A slow, independent rasteriser: every Gaussian against every pixel, in float64, with torch's own gradients.

Written from the equations (EWA splatting, Zwicker et al. 2001; 3DGS, Kerbl et al. 2023) and gsplat's constants, with
none of the CPU rasteriser's steps: no tiles, no bounds, full covariance matrices.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.gaussians import Gaussians

NEAR, FAR, BLUR, ALPHA_MIN, ALPHA_MAX, T_MIN = 0.001, 100.0, 0.3, 1 / 255, 0.999, 1e-4


@dataclass(frozen=True)
class TwinRendering:
    """One picture. `sure` is False where float32 may rightly decide otherwise: see `_composite`."""

    image: Tensor  # [3, H, W]
    alpha: Tensor  # [1, H, W]
    depth: Tensor  # [1, H, W]
    sure: Tensor  # [H, W] bool


def render_twin(gaussians: Gaussians, camera: Cameras, height: int, width: int, background: Tensor) -> TwinRendering:
    """Render one set of Gaussians [N] from one camera []."""
    g = gaussians.map(lambda x: x.double())
    K = camera.Ks(height, width).double()
    centers, covariances, depths = _project(g, camera.viewmats().double(), K, height, width)
    keep = (depths >= NEAR) & (depths <= FAR)
    order = torch.nonzero(keep)[:, 0][depths[keep].argsort(stable=True)]
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([xs, ys], dim=-1).double().reshape(-1, 2)  # [H*W, 2]
    values = torch.cat([g.colors, depths[:, None]], dim=-1)[order]
    alphas = _alphas(pixels, centers[order], covariances[order], g.opacities[order])
    summed, transmittance, sure = _composite(alphas, values)
    alpha = 1 - transmittance
    image = summed[:, :3] + transmittance[:, None] * background.double()
    depth = summed[:, 3] / alpha.clamp(min=1e-10)
    size = (height, width)
    return TwinRendering(
        image.T.reshape(3, *size), alpha.reshape(1, *size), depth.reshape(1, *size), sure.reshape(size)
    )


def _rotations(quats: Tensor) -> Tensor:  # [N, 4] -> [N, 3, 3]
    """R = I + 2 w [v]x + 2 [v]x^2 of the normalised quaternion."""
    unit = quats / quats.norm(dim=-1, keepdim=True)
    x, y, z = unit[:, 1], unit[:, 2], unit[:, 3]
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1).reshape(-1, 3, 3)
    return torch.eye(3, dtype=quats.dtype) + 2 * unit[:, :1, None] * cross + 2 * cross @ cross


def _project(g: Gaussians, viewmat: Tensor, K: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centres [N, 2] and covariances [N, 2, 2] in pixels, depths [N]."""
    points = g.means @ viewmat[:3, :3].T + viewmat[:3, 3]
    x, y, z = points.unbind(-1)
    axes = viewmat[:3, :3] @ _rotations(g.quats) @ torch.diag_embed(g.scales)
    focal, center = K.diagonal()[:2], K[:2, 2]
    size = torch.tensor([width, height], dtype=torch.float64)
    margin = 0.3 * 0.5 * size / focal
    low, high = -center / focal - margin, (size - center) / focal + margin
    ratio = torch.minimum(torch.maximum(points[:, :2] / z[:, None], low), high)  # [N, 2]
    o = torch.zeros_like(z)
    rows = [focal[0] / z, o, -focal[0] * ratio[:, 0] / z, o, focal[1] / z, -focal[1] * ratio[:, 1] / z]
    J = torch.stack(rows, dim=-1).reshape(-1, 2, 3)
    covariances = J @ axes @ axes.mT @ J.mT + BLUR * torch.eye(2, dtype=torch.float64)
    return torch.stack([x, y], dim=-1) / z[:, None] * focal + center, covariances, z


def _alphas(pixels: Tensor, centers: Tensor, covariances: Tensor, opacities: Tensor) -> Tensor:  # [N, H*W]
    """o exp(-d^T C^-1 d / 2), not yet clamped."""
    delta = pixels[None] - centers[:, None]  # [N, H*W, 2]
    sigma = 0.5 * (delta * torch.linalg.solve(covariances, delta.mT).mT).sum(-1)
    return opacities[:, None] * torch.exp(-sigma)


def _composite(alphas: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Front to back over `alphas` [N, P] and `values` [N, D]: sums [P, D], transmittance [P], sure [P].

    The picture jumps where an alpha crosses 1/255, or 0.999 (its gradient does), and where the transmittance crosses
    1e-4. float32 may land on the other side of a threshold when the value is within some 1e-5 of it, relatively (a
    few hundred roundings): such pixels are marked, not compared.
    """
    num_pixels = alphas.shape[1]
    transmittance = torch.ones(num_pixels, dtype=torch.float64)
    open_, sure = torch.ones(num_pixels, dtype=torch.bool), torch.ones(num_pixels, dtype=torch.bool)
    summed = torch.zeros(num_pixels, values.shape[1], dtype=torch.float64)
    for bare, value in zip(alphas, values, strict=True):
        alpha = bare.clamp(max=ALPHA_MAX)
        seen = open_ & (alpha >= ALPHA_MIN)
        after = transmittance * (1 - alpha)
        near_edge = _near(bare, ALPHA_MIN) | _near(bare, ALPHA_MAX) | (seen & _near(after, T_MIN))
        sure = sure & ~(open_ & near_edge)
        open_ = open_ & ~(seen & (after <= T_MIN))
        drawn = seen & open_
        weight = torch.where(drawn, alpha * transmittance, 0)
        summed = summed + weight[:, None] * value
        transmittance = torch.where(drawn, after, transmittance)
    return summed, transmittance, sure


def _near(value: Tensor, threshold: float) -> Tensor:
    return (value / threshold - 1).abs() < 3e-5
