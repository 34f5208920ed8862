"""The training objective of D4RT: queries drawn from a batch, asked in one pass, compared with what is known."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from movies import metrics
from movies.clip import Batch, Views
from movies.d4rt.losses import MOVING, d4rt_losses, mean_depth
from movies.d4rt.network import D4RT
from movies.d4rt.queries import Queries, QueryAnswers
from movies.d4rt.sampling import Labels, SamplerConfig, sample
from movies.losses import masked_mean
from movies.objective import LossTerms


@dataclass(frozen=True)
class D4RTObjectiveConfig:
    """Weights of the terms, as published, and how queries are drawn (`SamplerConfig`).

    `kind` "published" is the paper's loss, "squared" one for random starts.
    """

    points: float = 1.0
    confidence: float = 0.2
    positions: float = 0.1
    visible: float = 0.1
    displacement: float = 0.1
    normals: float = 0.5
    kind: Literal["published", "squared"] = "published"
    num_queries: int = 2048
    edge_share: float = 0.3
    same_camera: float = 0.4

    note = ""  # nothing to tell of a run

    def sampler(self) -> SamplerConfig:
        return SamplerConfig(self.num_queries, self.edge_share, self.same_camera)


@dataclass(frozen=True)
class Asked:
    """Queries with their answers and labels."""

    queries: Queries
    answers: QueryAnswers
    labels: Labels


class D4RTObjective:
    """Points, confidence, positions, visibility, displacement and normals of sampled queries."""

    def __init__(self, config: D4RTObjectiveConfig) -> None:
        self.config = config

    def predict(self, model: D4RT, batch: Batch, generator: torch.Generator | None = None) -> Asked:
        """Queries of the context views, drawn from `generator`, and the model's answers."""
        with torch.no_grad(), torch.autocast(batch.views.images.device.type, enabled=False):
            queries, labels = sample(batch, self.config.sampler(), generator)
        return Asked(queries, model(batch.context.images, aspects(batch.context), queries), labels)

    def terms(self, asked: Asked, batch: Batch, generator: torch.Generator | None = None) -> LossTerms:
        """Every term, and measures of depth, motion, place and visibility."""
        values = d4rt_losses(asked.answers, asked.labels, self.config.kind == "squared")
        trust = {"points": batch.depth_weight, "displacement": batch.motion_weight}
        weights = {name: getattr(self.config, name) * trust.get(name, 1.0) for name in values}
        return LossTerms(values, weights, measures(asked))


def aspects(views: Views) -> Tensor:  # [B]
    """Width over height of the pictures before they were made square, which cameras of square pixels remember."""
    return (views.cameras.fxfycxcy[:, 0, 1] / views.cameras.fxfycxcy[:, 0, 0]).float()


@torch.no_grad()
def measures(asked: Asked) -> dict[str, Tensor]:  # [B] each, NaN where nothing applies
    """Figures that nobody minimises; lengths are scaled by the ratio of mean depths first, as the loss does."""
    queries, answers, labels = asked.queries, asked.answers, asked.labels
    mask = labels.points_mask
    unit = mean_depth(labels.points, mask) / mean_depth(answers.points, mask)
    points, displacement = answers.points * unit, answers.displacement * unit
    still = (queries.source == queries.target) & (queries.target == queries.camera) & mask
    moving = mask & (labels.displacement.norm(dim=-1) >= MOVING)
    unmoved = metrics.endpoint_error(torch.zeros_like(points), labels.displacement, moving)
    other = mask & (queries.camera != queries.source)
    return {
        "absrel": metrics.absrel(points[..., 2], labels.points[..., 2], still),
        "point_error": metrics.endpoint_error(points, labels.points, mask),
        "other_camera_error": metrics.endpoint_error(points, labels.points, other),
        "position_error": metrics.endpoint_error(answers.positions, labels.positions, labels.positions_mask & other),
        "motion_error": metrics.endpoint_error(displacement, labels.displacement, moving) / unmoved,
        "visible_right": masked_mean((answers.visible == labels.visible).float(), mask),
    }
