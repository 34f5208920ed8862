"""Depth maps against depth maps, and the scale and shift that align them first."""

import math

import numpy as np
import torch
from torch import Tensor

from movies.errors import InputError

MAX_ROUNDS, SETTLED = 100, 1e-7  # of reweighting; it ends when scale and shift move by less than this share
NEAREST_EDGE = 10.0  # pixels: predicted edges farther from any true one are not counted as its


def fit_scale_shift(source: Tensor, target: Tensor, mask: Tensor, with_shift: bool) -> tuple[Tensor, Tensor]:
    """The scale and shift (0 without `with_shift`) that bring `source` nearest to `target` where the mask holds.

    -> ([], []); all pixels [...] share them. Nearest in the mean absolute difference, which outliers do not bend:
    least squares, reweighted by the inverse residual until it settles (Weiszfeld). Raises InputError where the mask is
    empty or a number under it is not finite.
    """
    x, y = source[mask].double(), target[mask].double()  # [K] each
    if not len(x):
        raise InputError("depth alignment needs at least one valid pixel")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise InputError("depth alignment needs finite depth; mask the rest out first")
    weights, scale, shift = torch.ones_like(x), x.new_ones(()), x.new_zeros(())
    mean_depth, floor = x.abs().mean(), 1e-8 * y.abs().mean().clamp(min=1e-12)
    for _ in range(MAX_ROUNDS):
        w, before = weights / weights.sum(), scale * mean_depth + shift.abs()
        mean_x, mean_y = ((w * x).sum(), (w * y).sum()) if with_shift else (0.0, 0.0)
        scale = (w * (x - mean_x) * (y - mean_y)).sum() / (w * (x - mean_x).square()).sum().clamp(min=1e-300)
        shift = mean_y - scale * mean_x if with_shift else shift
        if (scale * mean_depth + shift.abs() - before).abs() < SETTLED * before.abs():
            break
        weights = 1 / (scale * x + shift - y).abs().clamp(min=floor)
    return scale.to(source.dtype), shift.to(source.dtype)


def absrel(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [B, ...] each -> [B]
    """Mean |depth - target| / target over valid pixels; NaN where there are none."""
    return mean_where((depth - target).abs() / target.clamp(min=1e-8), mask)


def square_relative(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [B, ...] each -> [B]
    """Mean (depth - target)^2 / target over valid pixels."""
    return mean_where((depth - target).square() / target.clamp(min=1e-8), mask)


def root_mean_square(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [B, ...] each -> [B]
    """Root of the mean squared difference over valid pixels; of logarithms, that of their logarithms."""
    return mean_where((depth - target).square(), mask).sqrt()


def delta(depth: Tensor, target: Tensor, mask: Tensor, threshold: float = 1.25) -> Tensor:  # [B, ...] each -> [B]
    """Share of valid pixels with max(depth/target, target/depth) below the threshold; NaN where there are none."""
    depth, target = depth.clamp(min=1e-8), target.clamp(min=1e-8)
    return mean_where((torch.maximum(depth / target, target / depth) < threshold).to(depth.dtype), mask)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:  # [B, ...], [B, ...] bool -> [B]
    """Mean over the pixels of the mask, NaN where there are none."""
    kept = torch.where(mask, values, torch.zeros_like(values)).flatten(1)
    return kept.sum(dim=1) / mask.flatten(1).sum(dim=1)


def boundary_error(depth: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # [K, H, W] each -> [K], [K] pixels
    """Pseudo depth boundary error (SharpDepth, Pham et al. 2024): how far depth edges lie from the true ones.

    -> (accuracy, completeness). Accuracy: mean distance of predicted edge pixels to the nearest true edge, of those
    closer than 10 pixels (10 if there are none). Completeness: mean distance of true edge pixels to the nearest
    predicted one. Edges are Canny's, of the depth or of its inverse, each scaled to [0, 1]; depth must be positive
    everywhere. NaN where the truth has no edge. Raises InputError where scikit-image is missing.
    """
    pairs = [_edge_distances(_edges(d), _edges(t)) for d, t in zip(depth, target, strict=True)]
    accuracy, completeness = torch.tensor(pairs, dtype=torch.float32).reshape(-1, 2).unbind(-1)
    return accuracy, completeness


def _edges(depth: Tensor) -> np.ndarray:  # [H, W] -> bool
    try:
        from skimage.feature import canny
    except ImportError as error:
        raise InputError("the boundary error needs scikit-image: pip install 'movies[evaluate]'") from error
    found = np.zeros(depth.shape, dtype=bool)
    for values in (depth.double(), 1 / depth.double().clamp(min=1e-8)):
        low, high = values.min(), values.max()
        scaled = (values - low) / (high - low).clamp(min=1e-12)
        found |= canny(scaled.numpy(), sigma=math.sqrt(2), low_threshold=0.1, high_threshold=0.2)
    return found


def _edge_distances(edges: np.ndarray, true_edges: np.ndarray) -> tuple[float, float]:  # [H, W] bool each
    from scipy.ndimage import distance_transform_edt

    if not true_edges.any():
        return math.nan, math.nan
    if not edges.any():
        return NEAREST_EDGE, math.hypot(*edges.shape)
    to_true = distance_transform_edt(~true_edges)[edges]
    close = to_true[to_true < NEAREST_EDGE]
    return float(close.mean()) if len(close) else NEAREST_EDGE, float(distance_transform_edt(~edges)[true_edges].mean())
