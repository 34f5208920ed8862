"""Renderings against pictures that were held back, both as an 8-bit file holds them."""

import torch
from torch import Tensor

from movies import metrics
from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import Protocol

PERFECT = 100.0  # dB of equal pictures: an infinite one would be the mean of any scene


def score(case: Case, prediction: Prediction, protocol: Protocol) -> dict[str, Tensor]:  # [T] each
    """psnr, ssim; mpsnr over the protocol's mask, and mssim where that is co-visibility (DyCheck)."""
    images, truth = (metrics.quantised(x) for x in (prediction.images, case.target.images))
    scores = {"psnr": metrics.psnr(images, truth).clamp(max=PERFECT), "ssim": metrics.ssim(images, truth)}
    if protocol.mask != "none":
        scores["mpsnr"] = metrics.masked_psnr(images, truth, case.target_mask).clamp(max=PERFECT)
    if protocol.mask == "covisible":
        scores["mssim"] = metrics.masked_ssim(images, truth, case.target_mask)
    return scores


def perceptual(case: Case, prediction: Prediction, protocol: Protocol, distance) -> dict[str, Tensor]:  # [T] each
    """lpips by a network; mlpips of pictures that are black outside of the co-visible pixels."""
    images, truth = (metrics.quantised(x) for x in (prediction.images, case.target.images))
    scores = {"lpips": _distances(distance, images, truth)}
    if protocol.mask == "covisible":
        kept = case.target_mask[:, None]
        scores["mlpips"] = _distances(distance, images * kept, truth * kept)
    return scores


def _distances(distance, images: Tensor, truth: Tensor) -> Tensor:  # [T, 3, H, W] each -> [T]
    with torch.no_grad():
        return torch.cat([distance(a[None], b[None]).reshape(1) for a, b in zip(images, truth, strict=True)])
