"""Changes of a clip before it is batched: pure functions of (generator, clip), everything in a clip moving together."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from movies.clip import Clip


def random_crop(rng: np.random.Generator, clip: Clip, height: int, width: int, min_scale: float = 1.0) -> Clip:
    """Cut a window of the aspect height:width, at least `min_scale` of the largest that fits, and resize it."""
    rows, columns = clip.views.size
    scale = min(rows / height, columns / width) * rng.uniform(min_scale, 1.0)
    crop_height = min(rows, max(1, round(height * scale)))
    crop_width = min(columns, max(1, round(width * scale)))
    top = int(rng.integers(0, rows - crop_height + 1))
    left = int(rng.integers(0, columns - crop_width + 1))
    if (crop_height, crop_width) != (rows, columns):
        clip = clip.cropped(top, left, crop_height, crop_width)
    return clip.resized(height, width)


def color_jitter(rng: np.random.Generator, clip: Clip, strength: float) -> Clip:
    """Brightness, contrast, saturation and gamma of all views changed alike, each by a factor within 1 +- strength."""
    if strength == 0:
        return clip
    brightness, contrast, saturation, gamma = rng.uniform(1 - strength, 1 + strength, size=4).tolist()
    images = clip.images * brightness
    mean = images.mean()
    images = mean + (images - mean) * contrast
    gray = luma(images)
    images = (gray + (images - gray) * saturation).clamp(0, 1) ** gamma
    return replace(clip, views=replace(clip.views, images=images))


def luma(images: Tensor) -> Tensor:  # [V, 3, H, W] -> [V, 1, H, W]
    weights = images.new_tensor([0.299, 0.587, 0.114])
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


def trim_depth(clip: Clip, low: float, high: float) -> Clip:
    """Depth outside the quantiles `low` to `high` of its view's valid depth no longer counts."""
    if (low, high) == (0.0, 1.0):
        return clip
    depth = torch.where(clip.views.depth_mask, clip.views.depth, torch.nan).flatten(1)  # [V, H * W]
    bounds = depth.nanquantile(torch.tensor([low, high]), dim=1)[..., None, None]  # [2, V, 1, 1], NaN without any
    inside = (clip.views.depth >= bounds[0]) & (clip.views.depth <= bounds[1])
    return replace(clip, views=replace(clip.views, depth_mask=clip.views.depth_mask & inside))


def unit_times(clip: Clip) -> Clip:
    """Times moved and scaled so that the context spans [0, 1]; equal times all become 0."""
    context = clip.context.times
    start, span = context.min(), context.max() - context.min()
    times = (clip.times - start) / torch.where(span > 0, span, torch.ones_like(span))
    return replace(clip, views=replace(clip.views, times=times))


def normalized(clip: Clip) -> Clip:
    """The frame in which networks see a clip: first camera the identity, unit mean distance, times in [0, 1]."""
    return unit_times(clip.canonical().unit_scale()[0])
