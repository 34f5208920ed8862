"""Depth of the input frames, aligned once for all of them, against the true one; and where its edges lie."""

import torch
import torch.nn.functional as F
from torch import Tensor

from movies import metrics
from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import Depth, Protocol

NEAREST = 1e-3  # metres: what a shift brings below counts as this


def score(case: Case, prediction: Prediction, protocol: Protocol) -> dict[str, Tensor]:  # [1] each
    """absrel, sqrel, rmse, log_rmse and delta over all valid pixels of the clip, for each alignment."""
    target, mask = truth_of(case, protocol.depth)
    scores = {}
    for kind in protocol.depth.alignments:
        depth = aligned(prediction.depth, target, mask, kind, protocol.depth.largest)
        flat = [x.flatten()[None] for x in (depth, target, mask)]  # one sample [1, V H W]
        scores[f"absrel_{kind}"] = metrics.absrel(*flat)
        scores[f"sqrel_{kind}"] = metrics.square_relative(*flat)
        scores[f"rmse_{kind}"] = metrics.root_mean_square(*flat)
        logs = [x.clamp(min=NEAREST).log() for x in flat[:2]]
        scores[f"log_rmse_{kind}"] = metrics.root_mean_square(*logs, flat[2])
        scores[f"delta_{kind}"] = metrics.delta(*flat)
    return scores


def score_boundary(case: Case, prediction: Prediction, protocol: Protocol) -> dict[str, Tensor]:  # [V] each
    """pdbe_accuracy and pdbe_completeness in pixels, for each alignment.

    Where the true depth is not known, both count as far away: only the rest is judged, and its border is no error.
    """
    target, mask = truth_of(case, protocol.depth)
    far = torch.tensor(protocol.depth.largest) if protocol.depth.largest else target[mask].max()
    scores = {}
    for kind in protocol.depth.alignments:
        depth = aligned(prediction.depth, target, mask, kind, protocol.depth.largest)
        pair = metrics.boundary_error(*(torch.where(mask, x, far) for x in (depth, target)))
        scores[f"pdbe_accuracy_{kind}"], scores[f"pdbe_completeness_{kind}"] = pair
    return scores


def truth_of(case: Case, rules: Depth) -> tuple[Tensor, Tensor]:  # [V, H, W] each
    """True depth and which of it counts."""
    depth, mask = case.context.depth, case.context.depth_mask
    return depth, mask & (depth < rules.largest) if rules.largest else mask


def aligned(depth: Tensor, target: Tensor, mask: Tensor, kind: str, largest: float = 0.0) -> Tensor:
    """[V, h, w] at the size of the truth [V, H, W], then brought to it by one scale (and shift) for all frames."""
    if depth.shape != target.shape:
        depth = F.interpolate(depth[:, None], target.shape[1:], mode="bicubic", align_corners=False)[:, 0]
    if kind == "median":
        depth = depth * target[mask].median() / depth[mask].median()
    elif kind != "none":
        scale, shift = metrics.fit_scale_shift(depth, target, mask, with_shift=kind == "scale_shift")
        depth = scale * depth + shift
    return depth.clamp(min=NEAREST, max=largest or None)
