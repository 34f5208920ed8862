"""Pictures against pictures, masks against masks."""

import torch
import torch.nn.functional as F
from torch import Tensor

_RADIUS = 5  # int(3.5 sigma + 0.5), as scikit-image truncates
_C1, _C2 = 0.01**2, 0.03**2


def psnr(images: Tensor, target: Tensor) -> Tensor:  # [..., 3, H, W] each -> [...]
    """Peak signal-to-noise ratio in dB of images in [0, 1]; equal images give infinity."""
    return -10 * (images - target).square().mean(dim=(-3, -2, -1)).log10()


def masked_psnr(images: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [..., 3, H, W] twice, [..., H, W] -> [...]
    """PSNR over the pixels of the mask, their three channels alike (DyCheck's mPSNR); NaN where the mask is empty."""
    error = (images - target).square().mean(dim=-3)  # [..., H, W]
    error = torch.where(mask, error, torch.zeros_like(error)).sum(dim=(-2, -1)) / mask.sum(dim=(-2, -1))
    return -10 * error.log10()


def quantised(images: Tensor) -> Tensor:  # [...] in [0, 1] -> the same, in whole 8-bit steps
    """Images as a file holds them: published figures are measured on stored pictures."""
    return (images.clamp(0, 1) * 255).round() / 255


def ssim(images: Tensor, target: Tensor) -> Tensor:  # [..., C, H, W] each, in [0, 1] -> [...]
    """Structural similarity with a Gaussian window of sigma 1.5 and population covariance (Wang et al. 2004).

    Equal to scikit-image with gaussian_weights=True, sigma=1.5, use_sample_covariance=False: mirrored borders, the
    outer 5 pixels left out of the mean. Differentiable.
    """
    lead, (height, width) = images.shape[:-3], images.shape[-2:]
    x, y = (t.reshape(-1, 1, height, width) for t in (images, target))
    moments = _blur(torch.cat([x, y, x * x, y * y, x * y]))  # [5L, 1, H, W]
    mean_x, mean_y, xx, yy, xy = moments.chunk(5)
    similarity = _similarity(mean_x, mean_y, xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y)
    r = _RADIUS
    return similarity[..., r : height - r, r : width - r].reshape(*lead, -1).mean(dim=-1)


def masked_ssim(images: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [K, 3, H, W] twice, [K, H, W] -> [K]
    """SSIM whose windows see the mask's pixels only (DyCheck's mSSIM).

    Partial convolutions (Liu et al. 2018) with the window of `ssim`, rows and columns one after the other, no padding.
    The mean goes over all windows; one that sees no pixel of the mask counts as 1, as it does there.
    """
    x, y, seen = images, target, mask[:, None].to(images.dtype).expand_as(images)
    moments = [_partial_blur(t, seen) for t in (x, y, x * x, y * y, x * y)]  # [K, 3, H - 10, W - 10]
    mean_x, mean_y, xx, yy, xy = moments
    var_x, var_y = (xx - mean_x**2).clamp(min=0), (yy - mean_y**2).clamp(min=0)
    covariance = xy - mean_x * mean_y
    largest = (var_x * var_y).sqrt()
    return _similarity(mean_x, mean_y, var_x, var_y, covariance.clamp(-largest, largest)).mean(dim=(-3, -2, -1))


def iou(mask: Tensor, target: Tensor) -> Tensor:  # [..., H, W] bool each -> [...]
    """Intersection over union; NaN where both are empty: there is nothing to find, and nothing was found."""
    shared, either = ((op(mask, target)).sum(dim=(-2, -1)) for op in (torch.logical_and, torch.logical_or))
    return shared / either


def _similarity(mean_x: Tensor, mean_y: Tensor, var_x: Tensor, var_y: Tensor, covariance: Tensor) -> Tensor:
    similarity = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return similarity / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))


def _window(x: Tensor) -> Tensor:  # [11]
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    return kernel / kernel.sum()


def _blur(x: Tensor) -> Tensor:  # [L, 1, H, W] -> the same
    kernel = _window(x)
    # Pixels within the radius of the border are left out by `ssim`, so any padding gives the same mean there.
    x = F.conv2d(x, kernel.view(1, 1, 1, -1), padding=(0, _RADIUS))
    return F.conv2d(x, kernel.view(1, 1, -1, 1), padding=(_RADIUS, 0))


def _partial_blur(x: Tensor, seen: Tensor) -> Tensor:  # [K, 3, H, W] each -> [K, 3, H - 10, W - 10]
    """The window's sum over what is seen, enlarged by the share of the window's pixels that is not."""
    lead, kernel = x.shape[:2], _window(x)
    x, seen = x.flatten(0, 1)[:, None], seen.flatten(0, 1)[:, None]
    for shape in ((1, 1, 1, -1), (1, 1, -1, 1)):
        count = F.conv2d(seen, torch.ones_like(kernel).view(shape))
        total = F.conv2d(x * seen, kernel.view(shape)) * len(kernel) / count.clamp(min=1)
        x, seen = torch.where(count > 0.5, total, torch.zeros_like(total)), (count > 0.5).to(x.dtype)
    return x[:, 0].unflatten(0, lead)
