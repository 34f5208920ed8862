"""A picture of every case: what went in, what was asked for and what came out."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.video import contact_sheet, false_color, write_image


def write_sheet(path: Path, case: Case, prediction: Prediction) -> None:
    """Rows of input frames, targets, renderings, their error, predicted and true depth; only what there is."""
    size = case.context.size
    rows = {"input": case.context.images}
    if prediction.has("images"):
        rows |= {"target": case.target.images, "rendered": prediction.images}
        rows["error"] = error_pictures(prediction.images, case.target.images)
    if prediction.has("depth"):
        rows["depth"] = depth_pictures(prediction.depth)
    if case.context.depth_mask.any():
        rows["true depth"] = false_color(case.context.depth, case.context.depth_mask, logarithmic=True)
    if prediction.has("moving"):
        rows["moving"] = prediction.moving[:, None].float().expand(-1, 3, -1, -1)
    rows = {name: F.interpolate(images, size) if images.shape[-2:] != size else images for name, images in rows.items()}
    write_image(path, contact_sheet(rows))


def error_pictures(images: Tensor, truth: Tensor) -> Tensor:  # [T, 3, H, W] each -> the same
    """Mean difference of the channels in colours."""
    error = (images - truth).abs().mean(dim=1)  # [T, H, W]
    return false_color(error, error >= 0)


def depth_pictures(depth: Tensor) -> Tensor:  # [V, h, w] -> [V, 3, h, w]
    """Depth in colours, logarithmic; black where it is not positive."""
    return false_color(depth.clamp(min=1e-6), depth > 0, logarithmic=True)
