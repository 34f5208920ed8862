"""Cameras and point clouds of the input frames."""

from torch import Tensor

from movies import metrics
from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import Protocol


def score(case: Case, prediction: Prediction, protocol: Protocol) -> dict[str, Tensor]:  # [1] each
    """ate, rpe_t (the truth's unit) and rpe_r (degrees), after the best Sim(3)."""
    target = case.context.cameras.c2w
    step = metrics.relative_pose_error(prediction.c2w, target)
    ate = metrics.trajectory_error(prediction.c2w, target)
    return {"ate": ate[None], "rpe_t": step.translation[None], "rpe_r": step.rotation[None]}


def score_points(case: Case, prediction: Prediction, protocol: Protocol) -> dict[str, Tensor]:  # [1]
    """point_l1: all pixels' points in the first camera's frame, brought to the true median distance from it."""
    target, mask = case.context.points(), case.context.depth_mask  # [V, H, W, 3], [V, H, W]
    points = prediction.points * metrics.median_scale(prediction.points, target, mask)
    return {"point_l1": metrics.point_l1(points[None], target[None], mask[None])}
