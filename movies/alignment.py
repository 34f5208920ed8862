"""Similarities between point sets: Umeyama's closed form (1991), weighted and batched."""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.errors import InputError
from movies.shapes import check_shape


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation x + translation, with leading dims [...]."""

    scale: Tensor  # [...]
    rotation: Tensor  # [..., 3, 3]
    translation: Tensor  # [..., 3]

    def __call__(self, points: Tensor) -> Tensor:  # [..., P, 3] -> [..., P, 3]
        rotated = points @ self.rotation.transpose(-1, -2)
        return self.scale[..., None, None] * rotated + self.translation[..., None, :]


def umeyama(source: Tensor, target: Tensor, weights: Tensor | None = None, with_scale: bool = True) -> Similarity:
    """Least-squares similarity (or rigid motion) that takes `source` [..., P, 3] to `target` [..., P, 3].

    `weights` [..., P] are non-negative. Computed in float64 and returned in the dtype of `source`; never a
    reflection. Raises InputError for fewer than 3 points, shapes that differ, numbers that are not finite, and
    points that all coincide.
    """
    check_shape("source", source, (..., None, 3))
    check_shape("target", target, tuple(source.shape))
    weights = torch.ones_like(source[..., 0]) if weights is None else weights
    check_shape("weights", weights, tuple(source.shape[:-1]))
    if source.shape[-2] < 3:
        raise InputError(f"alignment needs at least 3 points, got {source.shape[-2]}")
    if not (source.isfinite().all() and target.isfinite().all() and weights.isfinite().all()):
        raise InputError("alignment needs finite points and weights; mask the others out first")
    x, y, w = source.double(), target.double(), weights.double()
    w = w / w.sum(dim=-1, keepdim=True).clamp(min=1e-300)
    mean_x, mean_y = (w[..., None] * x).sum(dim=-2), (w[..., None] * y).sum(dim=-2)
    x, y = x - mean_x[..., None, :], y - mean_y[..., None, :]
    variance = (w * x.square().sum(dim=-1)).sum(dim=-1)  # [...]
    if not (variance > 0).all():
        raise InputError("alignment needs points that do not all coincide")
    u, singular, vh = torch.linalg.svd((w[..., None] * y).transpose(-1, -2) @ x)  # covariance [..., 3, 3]
    signs = torch.ones_like(singular)
    signs[..., 2] = torch.where(torch.linalg.det(u @ vh) < 0, -1.0, 1.0)
    rotation = (u * signs[..., None, :]) @ vh
    scale = (singular * signs).sum(dim=-1) / variance if with_scale else torch.ones_like(variance)
    translation = mean_y - scale[..., None] * (rotation @ mean_x[..., None])[..., 0]
    return Similarity(*(value.to(source.dtype) for value in (scale, rotation, translation)))
