"""Renderings against pictures that were held back, both as an 8-bit file holds them."""

import torch
from torch import Tensor

from movies import metrics
from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import Protocol
from movies.metrics.depth import mean_where
from movies.perceptual import LPIPS

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


@torch.no_grad()
def score_lpips(case: Case, prediction: Prediction, protocol: Protocol, lpips: LPIPS) -> dict[str, Tensor]:  # [T] each
    """lpips_<network>; mlpips_<network>: the mean over co-visible pixels, of pictures that are black elsewhere."""
    images, truth = (metrics.quantised(x) for x in (prediction.images, case.target.images))
    pairs = list(zip(images, truth, case.target_mask, strict=True))  # one at a time: large pictures need much memory
    scores = {f"lpips_{lpips.network}": torch.stack([lpips(a, b) for a, b, _ in pairs])}
    if protocol.mask == "covisible":
        maps = torch.stack([lpips.distance_map(a * seen, b * seen) for a, b, seen in pairs])  # [T, H, W]
        scores[f"mlpips_{lpips.network}"] = mean_where(maps, case.target_mask)
    return scores
