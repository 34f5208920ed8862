"""What is scored: a task takes a case and a prediction and gives named values, one per sample (frame, pair, clip).

`TASKS[name]` says which answers the task needs and how it scores them. A sample that has no truth is NaN and left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from movies.evaluate.tasks import depth, motion, novel_views, pose, tracks


@dataclass(frozen=True)
class Scorer:
    """One task: the fields of a Prediction that it needs, and its function."""

    needs: tuple[str, ...]
    score: Callable[..., dict[str, Tensor]]  # (Case, Prediction, Protocol[, LPIPS]) -> metric -> [samples]
    library: str = ""  # of the extra `evaluate`, where it needs one
    network: str = ""  # of the LPIPS that it is given


TASKS = {
    "novel_views": Scorer(("images",), novel_views.score),
    "lpips_vgg": Scorer(("images",), novel_views.score_lpips, network="vgg"),
    "lpips_alex": Scorer(("images",), novel_views.score_lpips, network="alex"),
    "tracks": Scorer(("tracks", "visible"), tracks.score),
    "depth": Scorer(("depth",), depth.score),
    "boundary": Scorer(("depth",), depth.score_boundary, "skimage"),
    "pose": Scorer(("c2w",), pose.score),
    "points": Scorer(("points",), pose.score_points),
    "flow": Scorer(("flow",), motion.score_flow),
    "masks": Scorer(("moving",), motion.score_masks),
}
