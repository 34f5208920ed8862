"""In D4RT's place on a walk: answers from the truth with errors, so that what is measured is how chunks are joined.

Each chunk answers in a unit of its own and from cameras and depths that are off (`movies.data.walk_oracle`); what moves
is answered as if it stood still.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.d4rt.queries import Queries, QueryAnswers, SceneTokens
from movies.d4rt.surfaces import pixel_of
from movies.data.walk_oracle import Seen, WalkOracle
from movies.geometry import project, rigid_inverse, transform_points

HIDDEN = 0.1  # a point this share behind what a frame sees is hidden in it


@dataclass(frozen=True)
class SeenTokens(SceneTokens):
    """Frames with what the oracle makes of them."""

    seen: Seen


@dataclass(frozen=True)
class QueryOracle:
    """Answers about frames that `walk` has streamed."""

    walk: WalkOracle

    def encode(self, video: Tensor) -> SeenTokens:  # [1, T, 3, H, W]
        return SeenTokens(video.new_zeros(1, 1, 1), video, self.walk.look(video))

    def query(self, tokens: SeenTokens, queries: Queries, memory_budget: int = 0) -> QueryAnswers:
        """Confidence says nothing of the errors."""
        depth, cameras = tokens.seen.depth[0], tokens.seen.cameras[0]  # [T, H, W]
        size, (source, target, camera) = depth.shape[-2:], (queries.source[0], queries.target[0], queries.camera[0])
        pixel, _ = pixel_of(queries.uv[0].clamp(max=1 - 1e-6), *size)
        lens = cameras.fxfycxcy[source]
        rays = torch.cat([(queries.uv[0] - lens[:, 2:]) / lens[:, :2], torch.ones(len(lens), 1)], dim=-1)
        own = rays * depth.flatten(1)[source, pixel][:, None]
        world = transform_points(cameras.c2w[source], own[:, None])[:, 0]  # [N, 3]
        points = transform_points(rigid_inverse(cameras.c2w[camera]), world[:, None])[:, 0]
        positions, _ = project(world[:, None], cameras.fxfycxcy[camera], cameras.c2w[camera])
        places, z = project(world[:, None], cameras.fxfycxcy[target], cameras.c2w[target])
        where, inside = pixel_of(places[:, 0], *size)
        surface = depth.flatten(1)[target, where]
        visible = inside & (z[:, 0] > 0) & (z[:, 0] < (1 + HIDDEN) * surface)
        blank = torch.zeros_like(points)
        confidence = torch.rand(len(pixel), generator=torch.Generator().manual_seed(len(pixel)))
        found = (points, positions[:, 0], visible.float() - 0.5, blank, blank, 1 + confidence)
        return QueryAnswers(*(x[None] for x in found))
