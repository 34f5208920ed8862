"""Scene flow and moving-object masks of the input frames, in the unit of the given cameras."""

from torch import Tensor

from movies import metrics
from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import Protocol


def score_flow(case: Case, prediction: Prediction, protocol: Protocol) -> dict[str, Tensor]:  # [V - 1] each
    """flow_epe over all known pixels, flow_epe_moving over those that move, flow_size_moving: of predicting none."""
    flow, target, known = prediction.flow, case.flow, case.flow_mask
    moving = known & case.moving[:-1]
    return {
        "flow_epe": metrics.endpoint_error(flow, target, known),
        "flow_epe_moving": metrics.endpoint_error(flow, target, moving),
        "flow_size_moving": metrics.endpoint_error(target * 0, target, moving),
    }


def score_masks(case: Case, prediction: Prediction, protocol: Protocol) -> dict[str, Tensor]:  # [V]
    """moving_iou of every frame; a frame without movement that none is seen in has no value."""
    return {"moving_iou": metrics.iou(prediction.moving, case.moving)}
