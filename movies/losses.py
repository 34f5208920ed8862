"""The training losses: pure functions, one value per sample, weighted elsewhere (objective.py).

Depth and motion follow MoVieS (equations 5 and 6) with the published weighting; the squared motion loss, the log-depth
loss and the camera loss are for networks that start from random weights. A mask that is False everywhere gives 0.
"""

import torch
from torch import Tensor

from movies.shapes import check_shape

NUM_GRADIENT_SCALES = 4
MOTION_UNIT = 0.15  # a typical offset in a world of unit mean distance; brings the squared loss near 1

# Translation (scene units), quaternion and field of view (radians): what a hand-held clip moves and lenses differ by.
USUAL_POSE = (0.1, 0.05, 0.2)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:  # [B, ...], [B, ...] bool -> [B]
    """Mean over the True entries of each sample; 0 where there are none. NaN outside the mask does no harm."""
    kept = torch.where(mask, values, torch.zeros_like(values)).flatten(1)
    return kept.sum(dim=1) / mask.flatten(1).sum(dim=1).clamp(min=1)


def depth_loss(
    depth: Tensor,  # [B, V, H, W]
    target: Tensor,  # [B, V, H, W]
    mask: Tensor,  # [B, V, H, W] bool
    gradient_weight: float = 1.0,
) -> Tensor:  # [B]
    """Mean squared error plus multi-scale gradient error over the valid pixels (MoVieS, equation 5)."""
    return confident_depth_loss(depth, target, mask, torch.ones_like(depth), 0.0, gradient_weight)


def confident_depth_loss(
    depth: Tensor,  # [B, V, H, W]
    target: Tensor,  # [B, V, H, W]
    mask: Tensor,  # [B, V, H, W] bool
    confidence: Tensor,  # [B, V, H, W] > 0
    alpha: float = 0.2,
    gradient_weight: float = 1.0,
) -> Tensor:  # [B]
    """`depth_loss` with errors weighted by the predicted confidence, which -alpha log(confidence) keeps from vanishing.

    Confidence counts per pixel in the gradient term too (the published code takes one mean over the whole batch).
    """
    for name, tensor in (("target", target), ("mask", mask), ("confidence", confidence)):
        check_shape(name, tensor, tuple(depth.shape))
    mask = mask.bool()
    error = torch.where(mask, depth - target, torch.zeros_like(depth))
    squares = masked_mean(error.square() * confidence - alpha * confidence.log(), mask)
    return squares + gradient_weight * gradient_loss(error, mask, confidence)


def log_depth_loss(
    depth: Tensor,  # [B, V, H, W]
    target: Tensor,  # [B, V, H, W]
    mask: Tensor,  # [B, V, H, W] bool
    gradient_weight: float = 1.0,
) -> Tensor:  # [B]
    """Absolute error of the log of depth plus its multi-scale gradients: near and far count alike."""
    mask = mask.bool() & (target > 0)
    one = torch.ones_like(depth)
    error = torch.where(mask, depth, one).log() - torch.where(mask, target, one).log()
    return masked_mean(error.abs(), mask) + gradient_weight * gradient_loss(error, mask, one)


def gradient_loss(
    error: Tensor,  # [B, V, H, W], 0 outside the mask
    mask: Tensor,  # [B, V, H, W] bool
    weight: Tensor,  # [B, V, H, W]
    num_scales: int = NUM_GRADIENT_SCALES,
) -> Tensor:  # [B]
    """Absolute differences of neighbouring errors at every 1st, 2nd, 4th ... pixel, per valid pixel, mean of scales.

    A pair counts where both pixels are valid, with the mean of their weights.
    """
    total = error.new_zeros(error.shape[0])
    for scale in range(num_scales):
        step = 2**scale
        e, m, w = (x[..., ::step, ::step] for x in (error, mask, weight))
        pairs = _pair_sum(e, m, w, dim=-1) + _pair_sum(e, m, w, dim=-2)
        total = total + pairs / m.flatten(1).sum(dim=1).clamp(min=1)
    return total / num_scales


def _pair_sum(error: Tensor, mask: Tensor, weight: Tensor, dim: int) -> Tensor:  # [B, V, H, W] each -> [B]
    size = error.shape[dim] - 1
    (e0, m0, w0), (e1, m1, w1) = ([x.narrow(dim, start, size) for x in (error, mask, weight)] for start in (0, 1))
    pairs = (e1 - e0).abs() * (w0 + w1) / 2
    return torch.where(m0 & m1, pairs, torch.zeros_like(pairs)).flatten(1).sum(dim=1)


def motion_loss(
    motion: Tensor,  # [M, 3]
    target: Tensor,  # [M, 3]
    distribution_weight: float = 10.0,
    max_samples: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:  # []
    """Point-wise L1 plus the L1 of pairwise dot products over at most `max_samples` points (MoVieS, equation 6)."""
    mask = torch.ones(1, motion.shape[0], dtype=torch.bool, device=motion.device)
    return masked_motion_loss(motion[None], target[None], mask, distribution_weight, max_samples, generator)[0]


def masked_motion_loss(
    motion: Tensor,  # [B, M, 3]
    target: Tensor,  # [B, M, 3], anything outside the mask
    mask: Tensor,  # [B, M] bool
    distribution_weight: float = 10.0,
    max_samples: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:  # [B]
    """`motion_loss` of a batch whose samples have different numbers of points."""
    motion, target = _zero_outside(mask, motion, target)
    pointwise = masked_mean((motion - target).abs().mean(dim=-1), mask)
    return pointwise + distribution_weight * distribution_loss(motion, target, mask, max_samples, generator)


def confident_motion_loss(
    motion: Tensor,  # [B, M, 3]
    target: Tensor,  # [B, M, 3]
    mask: Tensor,  # [B, M] bool
    confidence: Tensor,  # [B, M] > 0
    alpha: float = 0.2,
    distribution_weight: float = 10.0,
    max_samples: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:  # [B]
    """`masked_motion_loss` with the point-wise errors weighted by confidence, less alpha log(confidence)."""
    motion, target = _zero_outside(mask, motion, target)
    weighted = (motion - target).abs().mean(dim=-1) * confidence - alpha * confidence.log()
    pairs = distribution_loss(motion, target, mask, max_samples, generator)
    return masked_mean(weighted, mask) + distribution_weight * pairs


def distribution_loss(
    motion: Tensor,  # [B, M, 3]
    target: Tensor,  # [B, M, 3]
    mask: Tensor,  # [B, M] bool
    max_samples: int,
    generator: torch.Generator | None = None,
) -> Tensor:  # [B]
    """Mean |motion_i . motion_j - target_i . target_j| over the pairs of at most `max_samples` points of a sample."""
    if motion.shape[1] > max_samples:
        keys = torch.rand(mask.shape, generator=generator, device=mask.device).masked_fill(~mask, -1.0)
        index = keys.topk(max_samples, dim=1).indices  # [B, max_samples], valid points first
        motion, target = (x.gather(1, index[..., None].expand(-1, -1, 3)) for x in (motion, target))
        mask = mask.gather(1, index)
    motion, target = _zero_outside(mask, motion, target)
    difference = motion @ motion.transpose(1, 2) - target @ target.transpose(1, 2)  # [B, M, M]
    return masked_mean(difference.abs(), mask[:, :, None] & mask[:, None, :])


def _zero_outside(mask: Tensor, *tensors: Tensor) -> list[Tensor]:  # [B, M], [B, M, 3] ...
    return [torch.where(mask[..., None], x, torch.zeros_like(x)) for x in tensors]


def squared_motion_loss(
    motion: Tensor,  # [B, M, 3]
    target: Tensor,  # [B, M, 3], anything outside the mask
    mask: Tensor,  # [B, M] bool
    threshold: float = 0.005,
    still_weight: float = 0.3,
) -> Tensor:  # [B]
    """Squared error of motion in units of 0.15: mean over moving points + `still_weight` x mean over all.

    L1 has its minimum at the median, and most points stand still, so from random weights it never leaves zero motion;
    the squared error has a gradient towards the mean motion from the first step.
    """
    motion, target = _zero_outside(mask, motion, target)
    errors = ((motion - target) / MOTION_UNIT).square().sum(dim=-1)
    moving = mask & (target.norm(dim=-1) >= threshold)
    return masked_mean(errors, moving) + still_weight * masked_mean(errors, mask)


def photometric_loss(images: Tensor, target: Tensor) -> Tensor:  # [B, T, 3, H, W] each -> [B]
    """Mean squared error of images."""
    check_shape("target", target, tuple(images.shape))
    return (images - target).square().flatten(1).mean(dim=1)


def point_loss(
    points: Tensor,  # [B, V, H, W, 3]
    target: Tensor,  # [B, V, H, W, 3]
    mask: Tensor,  # [B, V, H, W] bool
) -> Tensor:  # [B]
    """Mean distance between predicted and true points, each relative to the true point's distance from the origin.

    The origin is the first camera, so the error is about that of depth: far points do not drown near ones.
    """
    size = target.norm(dim=-1).clamp(min=0.1)
    return masked_mean((points - target).norm(dim=-1) / size, mask)


def camera_loss(pose_encodings: Tensor, target: Tensor, decay: float = 0.6) -> Tensor:  # [I, B, V, 9], [B, V, 9] -> [B]
    """L1 of the pose encodings of all I refinements of the camera head, the last weighing 1, earlier ones `decay` less.

    A quaternion and its negative are one rotation: the nearer of the two counts (VGGT, camera loss).
    """
    errors = _pose_errors(pose_encodings, target).abs()
    parts = [errors[..., part].mean(dim=(2, 3)) for part in (slice(0, 3), slice(3, 7), slice(7, 9))]
    return _over_iterations(sum(parts), decay)


def squared_camera_loss(pose_encodings: Tensor, target: Tensor, decay: float = 0.6) -> Tensor:  # as camera_loss
    """Squared errors of translation, quaternion and field of view, each over the square of its usual size.

    For random starts: most of a hand-held camera's motion is near zero, where L1 is content with predicting none.
    """
    errors = _pose_errors(pose_encodings, target).square()
    usual = zip((slice(0, 3), slice(3, 7), slice(7, 9)), USUAL_POSE, strict=True)
    parts = [errors[..., part].sum(dim=-1).mean(dim=2) / size**2 for part, size in usual]
    return _over_iterations(sum(parts), decay)


def _pose_errors(pose_encodings: Tensor, target: Tensor) -> Tensor:  # [I, B, V, 9], [B, V, 9] -> [I, B, V, 9]
    quat = pose_encodings[..., 3:7]
    sign = torch.where((quat * target[..., 3:7]).sum(dim=-1, keepdim=True) < 0, -1.0, 1.0)
    return torch.cat([pose_encodings[..., :3], quat * sign, pose_encodings[..., 7:]], dim=-1) - target


def _over_iterations(errors: Tensor, decay: float) -> Tensor:  # [I, B] -> [B]
    count = len(errors)
    weights = decay ** torch.arange(count - 1, -1, -1, dtype=errors.dtype, device=errors.device)
    return (errors * weights[:, None]).sum(dim=0) / weights.sum()
