"""The strong augmentation of a video (D4RT, appendix A): one crop of any aspect, one change of colours, for all frames.

Cameras, depth and tracks move with the crop. What the paper leaves open (ranges of colours, blur and zoom) is ours.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from movies.clip import Clip
from movies.data.transforms import luma

# RGB to YIQ, in which hue is an angle.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class VideoAugmentation:
    """How much is changed, and probabilities of colour drop, blur and zoom; the paper's where it has any."""

    brightness: float = 0.3  # factors within 1 +- this
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.1  # turns, either way
    drop: float = 0.2
    blur: float = 0.4
    largest_blur: float = 2.0  # pixels of 256
    least_area: float = 0.3
    zoom: float = 0.05
    largest_zoom: float = 2.0


def augment(rng: np.random.Generator, clip: Clip, height: int, width: int, config: VideoAugmentation) -> Clip:
    """The clip cropped, resized to (height, width) whatever its aspect, and coloured anew."""
    clip = clip.cropped(*draw_window(rng, *clip.views.size, config)).resized(height, width)
    images = recolored(rng, clip.images, config)
    if rng.random() < config.blur:
        images = blurred(images, rng.uniform(0.05, config.largest_blur) * height / 256)
    return replace(clip, views=replace(clip.views, images=images))


def draw_window(
    rng: np.random.Generator, rows: int, columns: int, config: VideoAugmentation
) -> tuple[int, int, int, int]:
    """(top, left, height, width): a share of the area, of an aspect log-uniform among those that fit the picture."""
    area = rng.uniform(config.least_area, 1.0) * rows * columns
    aspect = math.exp(rng.uniform(math.log(area / rows**2), math.log(columns**2 / area)))
    zoom = rng.uniform(1.0, config.largest_zoom) if rng.random() < config.zoom else 1.0
    height = min(rows, max(1, round(math.sqrt(area / aspect) / zoom)))
    width = min(columns, max(1, round(math.sqrt(area * aspect) / zoom)))
    return int(rng.integers(0, rows - height + 1)), int(rng.integers(0, columns - width + 1)), height, width


def recolored(rng: np.random.Generator, images: Tensor, config: VideoAugmentation) -> Tensor:  # [V, 3, H, W]
    """Brightness, contrast, saturation and hue of all frames changed alike; now and then no colour is left."""
    spread = (config.brightness, config.contrast, config.saturation)
    brightness, contrast, saturation = (rng.uniform(1 - s, 1 + s) for s in spread)
    turn = rng.uniform(-config.hue, config.hue)
    images = images * brightness
    mean = images.mean()
    images = _turned(mean + (images - mean) * contrast, turn)
    gray = luma(images)
    saturation = 0.0 if rng.random() < config.drop else saturation
    return (gray + (images - gray) * saturation).clamp(0, 1)


def _turned(images: Tensor, turn: float) -> Tensor:  # [V, 3, H, W], turns
    """Hue turned, luma kept."""
    to_yiq = torch.tensor(YIQ, dtype=torch.float64)
    c, s = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    rotation = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
    matrix = (torch.linalg.inv(to_yiq) @ rotation @ to_yiq).to(images.dtype)
    return torch.einsum("ij,vjhw->vihw", matrix, images)


def blurred(images: Tensor, sigma: float) -> Tensor:  # [V, 3, H, W]
    """A Gaussian of `sigma` pixels, the border repeated."""
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    for turned in (kernel, kernel.transpose(-1, -2)):
        pad = (radius, radius, 0, 0) if turned.shape[-1] > 1 else (0, 0, radius, radius)
        images = F.conv2d(F.pad(images, pad, mode="replicate"), turned, groups=3)
    return images
