"""3D points against 3D points: offsets, point clouds, and tracks through time (TAPVid-3D)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from movies.metrics.depth import mean_where

PIXEL_THRESHOLDS = (1.0, 2.0, 4.0, 8.0, 16.0)  # TAPVid-3D's, for an image whose shorter side has 256 pixels
SHORT_SIDE = 256


def endpoint_error(motion: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [B, ..., 3], [B, ..., 3], [B, ...] -> [B]
    """Mean distance between predicted and true offsets where the mask holds; NaN where it never does."""
    return mean_where((motion - target).norm(dim=-1), mask)


def within(points: Tensor, target: Tensor, mask: Tensor, radius: float) -> Tensor:  # as endpoint_error -> [B]
    """Share of the mask's points that lie closer than `radius` to the true ones; NaN where there are none."""
    return mean_where(((points - target).norm(dim=-1) < radius).to(points.dtype), mask)


def point_l1(points: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [B, ..., 3], [B, ..., 3], [B, ...] -> [B]
    """Mean |dx| + |dy| + |dz| of a point cloud, pixel by pixel, where the mask holds."""
    return mean_where((points - target).abs().sum(dim=-1), mask)


def median_distance(points: Tensor, mask: Tensor) -> Tensor:  # [..., 3], [...] bool -> []
    """Of the mask's points from the origin; the middle two of an even number averaged, as numpy does; NaN of none."""
    distances = points[mask].norm(dim=-1).sort().values
    middle = (len(distances) - 1) / 2
    ends = [math.floor(middle), math.ceil(middle)]
    return distances[ends].mean() if len(distances) else points.new_tensor(torch.nan)


def median_scale(points: Tensor, target: Tensor, mask: Tensor) -> Tensor:  # [..., 3], [..., 3], [...] bool -> []
    """What brings the median distance of `points` from the origin to that of `target`; NaN where the mask is empty."""
    return median_distance(target, mask) / median_distance(points, mask).clamp(min=1e-12)


def pixel_distance(depth: Tensor, fxfycxcy: Tensor, size: tuple[int, int]) -> Tensor:  # [V, P], [V, 4] -> [V, P]
    """The length that one pixel spans at a depth: TAPVid-3D's unit, z / sqrt(fx fy) for a shorter side of 256 pixels.

    `fxfycxcy` is normalised, as everywhere; `size` (height, width) is the image's, of which only the shape matters.
    """
    height, width = (n * SHORT_SIDE / min(size) for n in size)
    focal = (fxfycxcy[:, 0] * width * fxfycxcy[:, 1] * height).sqrt()  # [V]
    return depth / focal[:, None]


@dataclass(frozen=True)
class TrackScores:
    """TAPVid-3D's three figures of one video, all in [0, 1]."""

    average_jaccard: Tensor  # []
    points_within: Tensor  # [] APD: share of visible points within the thresholds, their mean
    occlusion_accuracy: Tensor  # [] share of equal visibility flags


def track_scores(
    tracks: Tensor, visible: Tensor, target: Tensor, target_visible: Tensor, unit: Tensor
) -> TrackScores:  # [V, P, 3], [V, P], [V, P, 3], [V, P], [V, P]
    """AJ, APD and OA (Koppula et al. 2024) of tracks already scaled; `unit` is `pixel_distance` at the true depth.

    A prediction is right within d pixels, d in 1, 2, 4, 8, 16. Jaccard: right and visible in both, over visible in
    truth or falsely said visible. Every frame counts, that of the query too.
    """
    distance = (tracks - target).norm(dim=-1)
    jaccards, shares = [], []
    for threshold in PIXEL_THRESHOLDS:
        right = (distance < threshold * unit) & target_visible
        false_positives = (visible & ~right).sum()
        jaccards.append((right & visible).sum() / (target_visible.sum() + false_positives))
        shares.append(right.sum() / target_visible.sum())
    equal = (target_visible == visible).float().mean()
    return TrackScores(torch.stack(jaccards).mean(), torch.stack(shares).mean(), equal)
