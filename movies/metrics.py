"""Measures of a prediction against the truth: pure functions, one value per sample."""

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.geometry import rotation_angle

_SSIM_RADIUS = 5  # int(3.5 sigma + 0.5), as scikit-image truncates


def psnr(images: Tensor, target: Tensor) -> Tensor:  # [..., 3, H, W] each -> [...]
    """Peak signal-to-noise ratio in dB of images in [0, 1]; equal images give infinity."""
    return -10 * (images - target).square().mean(dim=(-3, -2, -1)).log10()


def ssim(images: Tensor, target: Tensor) -> Tensor:  # [..., C, H, W] each, in [0, 1] -> [...]
    """Structural similarity with a Gaussian window of sigma 1.5 and population covariance (Wang et al. 2004).

    Equal to scikit-image with gaussian_weights=True, sigma=1.5, use_sample_covariance=False: mirrored borders, the
    outer 5 pixels left out of the mean. Differentiable.
    """
    lead, (height, width) = images.shape[:-3], images.shape[-2:]
    x, y = (t.reshape(-1, 1, height, width) for t in (images, target))
    moments = _blur(torch.cat([x, y, x * x, y * y, x * y]))  # [5L, 1, H, W]
    mean_x, mean_y, xx, yy, xy = moments.chunk(5)
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    r = _SSIM_RADIUS
    return similarity[..., r : height - r, r : width - r].reshape(*lead, -1).mean(dim=-1)


def _blur(x: Tensor) -> Tensor:  # [L, 1, H, W] -> the same; the border repeats the edge pixel when mirrored
    offsets = torch.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    kernel = kernel / kernel.sum()
    # Pixels within the radius of the border are left out by `ssim`, so any padding gives the same mean there.
    x = F.conv2d(x, kernel.view(1, 1, 1, -1), padding=(0, _SSIM_RADIUS))
    return F.conv2d(x, kernel.view(1, 1, -1, 1), padding=(_SSIM_RADIUS, 0))


def absrel(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [B, ...] each -> [B]
    """Mean |depth - target| / target over valid pixels; NaN where there are none."""
    return _mean_where((depth - target).abs() / target.clamp(min=1e-8), mask)


def delta(depth: Tensor, target: Tensor, mask: Tensor, threshold: float = 1.25) -> Tensor:  # [B, ...] each -> [B]
    """Share of valid pixels with max(depth/target, target/depth) below the threshold; NaN where there are none."""
    depth, target = depth.clamp(min=1e-8), target.clamp(min=1e-8)
    return _mean_where((torch.maximum(depth / target, target / depth) < threshold).to(depth.dtype), mask)


def endpoint_error(motion: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [B, ..., 3], [B, ..., 3], [B, ...] -> [B]
    """Mean distance between predicted and true offsets where the mask holds; NaN where it never does."""
    return _mean_where((motion - target).norm(dim=-1), mask)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:  # [B, ...], [B, ...] bool -> [B]
    kept = torch.where(mask, values, torch.zeros_like(values)).flatten(1)
    return kept.sum(dim=1) / mask.flatten(1).sum(dim=1)


def rotation_error(c2w: Tensor, target: Tensor) -> Tensor:  # [..., 4, 4] each -> [...] degrees
    """Angle between the rotations of two cameras."""
    return rotation_angle(c2w[..., :3, :3], target[..., :3, :3])


def translation_error(c2w: Tensor, target: Tensor) -> Tensor:  # [..., 4, 4] each -> [...]
    """Distance between the centres of two cameras, in the world's unit."""
    return (c2w[..., :3, 3] - target[..., :3, 3]).norm(dim=-1)


def translation_angle(c2w: Tensor, target: Tensor) -> Tensor:  # [..., 4, 4] each -> [...] degrees
    """Angle between the directions from the origin to two camera centres: an error that does not depend on scale."""
    a, b = c2w[..., :3, 3], target[..., :3, 3]
    cross = torch.linalg.cross(a, b).norm(dim=-1)
    return torch.rad2deg(torch.atan2(cross, (a * b).sum(dim=-1)))
