"""The composite loss of D4RT (appendix A): every term per clip, over the queries whose label is known."""

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.d4rt.queries import QueryAnswers
from movies.d4rt.sampling import Labels
from movies.losses import MOTION_UNIT, masked_mean, squared_motion_loss

MOVING = 0.005  # clip units: a point that moves less counts as still
POSITION_UNIT = 0.05  # of the picture; brings the squared loss of positions near 1


def signed_log(x: Tensor) -> Tensor:  # [...] -> [...]
    """sign(x) log(1 + |x|): far points count less."""
    return x.sign() * x.abs().log1p()


def mean_depth(points: Tensor, mask: Tensor) -> Tensor:  # [B, N, 3], [B, N] -> [B, 1, 1]
    """Mean distance from the cameras' planes: the unit of a clip's points. Points may lie behind a camera too."""
    return masked_mean(points[..., 2].abs(), mask).clamp(min=1e-6)[:, None, None]


def point_errors(answers: QueryAnswers, labels: Labels, squared: bool) -> Tensor:  # [B, N]
    """|prediction - target| after dividing each by its own mean depth and `signed_log`; mean over x, y, z."""
    mask = labels.points_mask
    scaled = [signed_log(p / mean_depth(p, mask)) for p in (answers.points, labels.points)]
    error = scaled[0] - scaled[1]
    return (error / MOTION_UNIT).square().mean(dim=-1) if squared else error.abs().mean(dim=-1)


def d4rt_losses(answers: QueryAnswers, labels: Labels, squared: bool = False) -> dict[str, Tensor]:  # [B] each
    """The terms, unweighted: points (weighted by confidence), confidence, positions, visible, displacement, normals.

    `squared` is for random starts: squared errors leave the constant answer where absolute ones stay, and confidence
    is learned from the errors without weighting them, as it would first give up what is hard.
    """
    mask = labels.points_mask
    errors = point_errors(answers, labels, squared)
    weighted = errors + answers.confidence * errors.detach() if squared else answers.confidence * errors
    seen = F.binary_cross_entropy_with_logits(answers.visibility, labels.visible.float(), reduction="none")
    cosine = (answers.normals * labels.normals).sum(dim=-1)
    return {
        "points": masked_mean(weighted, mask),
        "confidence": masked_mean(-answers.confidence.log(), mask),
        "positions": masked_mean(_position_errors(answers, labels, squared), labels.positions_mask),
        "visible": masked_mean(seen, mask),
        "displacement": displacement_loss(answers, labels, squared),
        "normals": masked_mean(1 - cosine, labels.normals_mask),
    }


def _position_errors(answers: QueryAnswers, labels: Labels, squared: bool) -> Tensor:  # [B, N]
    target = torch.where(labels.positions_mask[..., None], labels.positions, 0.0)
    error = answers.positions - target
    return (error / POSITION_UNIT).square().mean(dim=-1) if squared else error.abs().mean(dim=-1)


def displacement_loss(answers: QueryAnswers, labels: Labels, squared: bool) -> Tensor:  # [B]
    """Absolute error of the displacement, prediction and target each in units of their points' mean depth."""
    mask = labels.points_mask
    moved, target = (
        x.displacement / mean_depth(x.points, mask) for x in (answers, labels)
    )  # fmt: skip
    if squared:
        return squared_motion_loss(moved, target, mask, MOVING)
    return masked_mean((moved - target).abs().mean(dim=-1), mask)
