"""Similarities between point sets: Umeyama's closed form (1991), weighted and batched; a robust fit on top of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.errors import InputError
from movies.geometry import rigid
from movies.shapes import check_shape

LINE = 1e-11  # variance across over variance along: points this thin are a line, as float32 would round one
TRIM_STEPS, INLIER_FACTOR = 10, 3.0  # steps on the better half; what counts in the end, in median residuals


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation x + translation, with leading dims [...]."""

    scale: Tensor  # [...]
    rotation: Tensor  # [..., 3, 3]
    translation: Tensor  # [..., 3]

    def __call__(self, points: Tensor) -> Tensor:  # [..., P, 3] -> [..., P, 3]
        rotated = points @ self.rotation.transpose(-1, -2)
        return self.scale[..., None, None] * rotated + self.translation[..., None, :]

    @property
    def transform(self) -> Tensor:  # [..., 4, 4]
        """The rigid part, to be applied after `scale`, as `Scene4D.placed` and `Cameras` take them."""
        return rigid(self.rotation, self.translation)

    def after(self, first: "Similarity") -> "Similarity":
        """x -> self(first(x))."""
        translation = self(first.translation[..., None, :])[..., 0, :]
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, translation)

    def inverse(self) -> "Similarity":
        rotation = self.rotation.transpose(-1, -2)
        translation = -(rotation @ self.translation[..., None])[..., 0] / self.scale[..., None]
        return Similarity(1 / self.scale, rotation, translation)

    @staticmethod
    def identity() -> "Similarity":
        return Similarity(torch.ones(()), torch.eye(3), torch.zeros(3))


def umeyama(source: Tensor, target: Tensor, weights: Tensor | None = None, with_scale: bool = True) -> Similarity:
    """Least-squares similarity (or rigid motion) that takes `source` [..., P, 3] to `target` [..., P, 3].

    `weights` [..., P] are non-negative. Computed in float64 and returned in the dtype of `source`; never a
    reflection; points of one plane are enough. Raises InputError for fewer than 3 points, shapes that differ, numbers
    that are not finite, and points that all coincide or lie on one line, about which any turn would do.
    """
    check_shape("source", source, (..., None, 3))
    check_shape("target", target, tuple(source.shape))
    weights = torch.ones_like(source[..., 0]) if weights is None else weights
    check_shape("weights", weights, tuple(source.shape[:-1]))
    _check_count(source)
    if not (source.isfinite().all() and target.isfinite().all() and weights.isfinite().all()):
        raise InputError("alignment needs finite points and weights; mask the others out first")
    x, y, w = source.double(), target.double(), weights.double()
    w = w / w.sum(dim=-1, keepdim=True).clamp(min=1e-300)
    mean_x, mean_y = (w[..., None] * x).sum(dim=-2), (w[..., None] * y).sum(dim=-2)
    x, y = x - mean_x[..., None, :], y - mean_y[..., None, :]
    variance = (w * x.square().sum(dim=-1)).sum(dim=-1)  # [...]
    if not (variance > 0).all():
        raise InputError("alignment needs points that do not all coincide")
    if _on_a_line(x, w) or _on_a_line(y, w):
        raise InputError("alignment needs points that do not lie on one line: the turn about it would be free")
    u, singular, vh = torch.linalg.svd((w[..., None] * y).transpose(-1, -2) @ x)  # covariance [..., 3, 3]
    signs = torch.ones_like(singular)
    signs[..., 2] = torch.where(torch.linalg.det(u @ vh) < 0, -1.0, 1.0)
    rotation = (u * signs[..., None, :]) @ vh
    scale = (singular * signs).sum(dim=-1) / variance if with_scale else torch.ones_like(variance)
    translation = mean_y - scale[..., None] * (rotation @ mean_x[..., None])[..., 0]
    return Similarity(*(value.to(source.dtype) for value in (scale, rotation, translation)))


def symmetric_umeyama(source: Tensor, target: Tensor, weights: Tensor) -> Similarity:
    """`umeyama` with the scale that both directions agree on (Horn 1987), for points that are noisy on both sides.

    The least-squares scale is smaller by the share of noise in the source's variance: a thousandth a joint makes a
    tenth over a hundred joints.
    """
    there, back = umeyama(source, target, weights), umeyama(target, source, weights)
    scale = (there.scale / back.scale).sqrt()
    share = (weights / weights.sum(dim=-1, keepdim=True))[..., None]
    centre, goal = (share * source).sum(dim=-2), (share * target).sum(dim=-2)
    turned = (there.rotation @ centre[..., None])[..., 0]
    return Similarity(scale, there.rotation, goal - scale[..., None] * turned)


def _check_count(points: Tensor) -> None:
    if points.shape[-2] < 3:
        raise InputError(f"alignment needs at least 3 points, got {points.shape[-2]}")


@torch.no_grad()
def _on_a_line(centred: Tensor, weights: Tensor) -> bool:  # [..., P, 3], [..., P]
    variances = torch.linalg.eigvalsh((weights[..., None] * centred).transpose(-1, -2) @ centred)  # ascending
    return not (variances[..., 1] > LINE * variances[..., 2]).all()


@dataclass(frozen=True)
class RobustFit:
    """A similarity, how far each point misses its partner under it, and which points it was fitted to."""

    similarity: Similarity
    residuals: Tensor  # [..., P] distances, times the square root of the weights
    inliers: Tensor  # [..., P] bool


def robust_umeyama(
    source: Tensor,
    target: Tensor,
    confidence: Tensor,
    weights: Tensor | None = None,
    share: float = 0.85,
    with_scale: bool = True,
) -> RobustFit:
    """`umeyama` of the most confident `share` of the points (D4RT, appendix B), then of those among them that agree.

    The fit is repeated on the better half until it settles (least trimmed squares, Rousseeuw 1984), then on all within
    three median residuals, so that up to a good third of the points may be plainly wrong. `confidence` and `weights`
    are [..., P]. Raises InputError as `umeyama` does, and for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"the share of points kept must be in (0, 1], got {share:g}")
    check_shape("confidence", confidence, tuple(source.shape[:-1]))
    _check_count(source)
    weights = torch.ones_like(source[..., 0]) if weights is None else weights
    confident = confidence >= -_quantile(-confidence, torch.ones_like(confidence, dtype=torch.bool), share)
    chosen = confident
    for _ in range(TRIM_STEPS):
        fit = umeyama(source, target, weights * chosen, with_scale)
        before, chosen = chosen, _within(_residuals(fit, source, target, weights), confident, target, 1.0)
        if torch.equal(before, chosen):
            break
    for _ in range(2):
        fit = umeyama(source, target, weights * chosen, with_scale)
        residuals = _residuals(fit, source, target, weights)
        chosen = _within(residuals, confident, target, INLIER_FACTOR)
    fit = umeyama(source, target, weights * chosen, with_scale)
    return RobustFit(fit, _residuals(fit, source, target, weights), chosen)


def _residuals(fit: Similarity, source: Tensor, target: Tensor, weights: Tensor) -> Tensor:  # -> [..., P]
    return (fit(source) - target).norm(dim=-1) * weights.sqrt()


def _within(residuals: Tensor, confident: Tensor, target: Tensor, factor: float) -> Tensor:  # -> bool [..., P]
    """Confident points whose residual is at most `factor` medians; rounding never counts against a point."""
    eps = 10 * torch.finfo(target.dtype).eps * target.norm(dim=-1).amax(dim=-1, keepdim=True)
    return confident & (residuals <= factor * _quantile(residuals, confident, 0.5) + eps)


def _quantile(values: Tensor, mask: Tensor, share: float) -> Tensor:  # [..., P] -> [..., 1]
    """The value that a `share` of those in the mask do not pass."""
    ordered = values.masked_fill(~mask, torch.inf).sort(dim=-1).values
    rank = (mask.sum(dim=-1, keepdim=True) * share).ceil().long() - 1
    return ordered.gather(-1, rank.clamp(min=0))
