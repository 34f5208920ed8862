"""What a network makes of held-out clips, as one PNG: a column a clip."""

from pathlib import Path

import torch
from torch import Tensor

from movies.clip import Batch
from movies.d4rt.objective import D4RTObjective
from movies.model.vggt import VGGTPrediction
from movies.objective import MoviesObjective, VGGTObjective
from movies.splats import DynamicSplats
from movies.video import contact_sheet, false_color, motion_picture, write_image

MOST = 6  # clips on a sheet


@torch.no_grad()
def write_pictures(
    path: Path,
    objective: MoviesObjective | VGGTObjective,
    prediction: DynamicSplats | VGGTPrediction,
    batch: Batch,
) -> None:
    """Write the sheet of a batch: its first target and the rendering of it; of its first view image, depth, motion."""
    if isinstance(objective, D4RTObjective):
        return  # its queries are points, not pictures
    rows = _depth_rows(prediction.depth, batch)
    if isinstance(objective, MoviesObjective):
        rows = _rendered_rows(objective, prediction, batch) | rows
        rows["motion"] = motion_picture(prediction.motion[:, 0, 0])
    columns = min(len(batch.names), MOST)
    write_image(path, contact_sheet({name: row[:columns].cpu() for name, row in rows.items()}, columns))


def _rendered_rows(objective: MoviesObjective, splats: DynamicSplats, batch: Batch) -> dict[str, Tensor]:
    target, images = objective.rendered_targets(batch).images, objective.render(splats, batch).images
    return {"target": target[:, 0], "rendering": images[:, 0]}  # [B, 3, h, w]


def _depth_rows(depth: Tensor, batch: Batch) -> dict[str, Tensor]:  # [B, V, H, W]
    """Predicted and true depth in one range of colours."""
    context = batch.context
    both = torch.stack([depth[:, 0].float(), context.depth[:, 0]])  # [2, B, H, W]
    mask = torch.stack([torch.ones_like(context.depth_mask[:, 0]), context.depth_mask[:, 0]])
    predicted, true = false_color(both, mask, logarithmic=True)
    return {"first view": context.images[:, 0], "depth": predicted, "true depth": true}
