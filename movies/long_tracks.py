"""Pixels followed by D4RT through clips of any length: chunk by chunk in both directions, in one world a shot."""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.alignment import Similarity
from movies.cameras import Cameras
from movies.d4rt.reading import D4RTReading
from movies.long_queries import QueryNetworks
from movies.long_video.chain import join
from movies.long_video.chunks import Geometry
from movies.long_video.frames import Frames, chunk_clips
from movies.long_video.plan import Plan
from movies.tracks import PointTracks, Queries


@dataclass(frozen=True)
class Known:
    """What is known of P points at F frames so far, and of the cameras; filled in place."""

    points: Tensor  # [F, P, 3] in the world of the shot, NaN where nothing is known
    positions: Tensor  # [F, P, 2]
    visible: Tensor  # [F, P]
    confidence: Tensor  # [F, P]
    cameras: Cameras  # [F]

    @staticmethod
    def nothing(num_frames: int, num_points: int) -> "Known":
        shape = (num_frames, num_points)
        cameras = Cameras(torch.eye(4).repeat(num_frames, 1, 1), torch.full((num_frames, 4), 0.5))
        unseen = torch.zeros(shape, dtype=torch.bool)
        return Known(torch.full((*shape, 3), torch.nan), torch.zeros(*shape, 2), unseen, torch.zeros(shape), cameras)

    def starts(self, own: Tensor, asked: Queries, forwards: bool) -> tuple[Tensor, Queries]:  # [V] -> [K] of P
        """Of which points a chunk knows a pixel: that which was asked for, or where it was seen next to it."""
        here = asked.views == own[:, None]  # [V, P]
        before = asked.views < own[0] if forwards else asked.views > own[-1]
        seen = self.visible[own] & before
        order = torch.arange(1, len(own) + 1)[:, None] if forwards else torch.arange(len(own), 0, -1)[:, None]
        row = torch.where(here.any(dim=0), here.long().argmax(dim=0), (seen * order).argmax(dim=0))  # [P]
        chosen = (here | seen).any(dim=0).nonzero()[:, 0]
        row = row[chosen]
        carried = self.positions[own[row], chosen].clamp(0, 1)
        return chosen, Queries(row, torch.where(here[row, chosen][:, None], asked.positions[chosen], carried))

    def add(self, own: Tensor, chosen: Tensor, tracks: PointTracks, similarity: Similarity) -> None:
        """What is known already stays."""
        fresh = self.points[own][:, chosen].isnan().any(dim=-1)  # [V, K]
        frame, point = own[:, None].expand_as(fresh)[fresh], chosen.expand_as(fresh)[fresh]
        self.points[frame, point] = similarity(tracks.points.cpu())[fresh]
        for name in ("positions", "visible", "confidence"):
            getattr(self, name)[frame, point] = getattr(tracks, name).cpu()[fresh]


@torch.no_grad()
def follow_through(frames: Frames, plan: Plan, networks: QueryNetworks, asked: Queries) -> PointTracks:
    """Pixels (`views` are positions among the clip's frames) followed to all frames.

    From chunk to chunk a point goes on from the shared frame in which it was seen last (backwards: first); where none
    sees it, it is unknown from there on. One chunk is in memory.
    """
    model, known, placed = networks.model(), Known.nothing(len(frames), len(asked)), []
    before: Geometry | None = None
    for k, clip in enumerate(chunk_clips(frames, list(plan.chunks))):
        own = torch.tensor(plan.chunks[k].frames)
        reading = networks.reading(clip, model)
        geometry = networks.geometry(reading, own)
        follows = before is not None and plan.chunks[k - 1].shot == plan.chunks[k].shot
        step = join(k - 1, k, before, geometry).similarity if follows else Similarity.identity()
        placed.append(placed[-1].after(step) if follows else step)
        before = geometry
        here = geometry.cameras.rescaled(placed[k].scale).transformed(placed[k].transform)
        known.cameras.c2w[own], known.cameras.fxfycxcy[own] = here.c2w, here.fxfycxcy
        _fill(known, reading, own, asked, placed[k], forwards=True)
    for k in reversed(range(len(plan.chunks) - 1)):
        own = torch.tensor(plan.chunks[k].frames)
        if (known.visible[own] & (asked.views > own[-1])).any():
            clip = next(chunk_clips(frames, [plan.chunks[k]]))
            _fill(known, networks.reading(clip, model), own, asked, placed[k], forwards=False)
    times = torch.linspace(0, 1, len(frames))
    return PointTracks(known.points, known.positions, known.visible, known.confidence, times, known.cameras, asked)


def _fill(
    known: Known, reading: D4RTReading, own: Tensor, asked: Queries, similarity: Similarity, forwards: bool
) -> None:
    chosen, queries = known.starts(own, asked, forwards)
    if len(chosen):
        known.add(own, chosen, reading.tracks(queries.to(reading.times.device)), similarity)
