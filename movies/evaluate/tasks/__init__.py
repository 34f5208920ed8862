"""What is scored: a task takes a case and a prediction and gives named values, one per sample (frame, pair, clip).

`TASKS[name]` says which answers the task needs and how it scores them. A sample that has no truth is NaN and left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import Protocol
from movies.evaluate.tasks import depth, motion, novel_views, pose, tracks


@dataclass(frozen=True)
class Scorer:
    """One task: the fields of a Prediction that it needs, and its function."""

    needs: tuple[str, ...]
    score: Callable[[Case, Prediction, Protocol], dict[str, Tensor]]  # metric -> [samples]
    library: str = ""  # of the extra `evaluate`, where it needs one


TASKS = {
    "novel_views": Scorer(("images",), novel_views.score),
    "tracks": Scorer(("tracks", "visible"), tracks.score),
    "depth": Scorer(("depth",), depth.score),
    "boundary": Scorer(("depth",), depth.score_boundary, "skimage"),
    "pose": Scorer(("c2w",), pose.score),
    "points": Scorer(("points",), pose.score_points),
    "flow": Scorer(("flow",), motion.score_flow),
    "masks": Scorer(("moving",), motion.score_masks),
}
