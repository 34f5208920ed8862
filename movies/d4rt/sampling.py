"""Training queries and what is known of their answers, drawn from ground-truth trajectories (D4RT, appendix A)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.clip import Batch, Tracks, Views
from movies.d4rt.queries import Queries
from movies.d4rt.surfaces import depth_edges, depth_normals, depth_tracks, nth_true, pixel_of
from movies.geometry import project, rigid_inverse, transform_points

NEAREST = 1e-3  # a point nearer to a camera's plane than this has no image position
FARTHEST_OFF = 1.0  # picture sizes outside the picture up to which an image position is still a label


@dataclass(frozen=True)
class SamplerConfig:
    """How queries are drawn: their number a clip, the share at edges, how often target and camera are one frame."""

    num_queries: int = 2048
    edge_share: float = 0.3
    same_camera: float = 0.4


@dataclass(frozen=True)
class Labels:
    """The truth about N queries of B clips, in the unit of the clip. What is not known is NaN or 0 under its mask."""

    points: Tensor  # [B, N, 3] the tracked point at the target time, in the camera asked for
    points_mask: Tensor  # [B, N] bool
    positions: Tensor  # [B, N, 2]
    positions_mask: Tensor  # [B, N] in front of the camera, and not far off its picture
    visible: Tensor  # [B, N] bool, in the frame of the target time
    displacement: Tensor  # [B, N, 3] since the source frame, in the axes of the camera asked for
    normals: Tensor  # [B, N, 3]
    normals_mask: Tensor  # [B, N] where the point is seen at the target time and the surface is smooth


@dataclass(frozen=True)
class Draws:
    """Which track each query follows, and whether any could be found for it."""

    queries: Queries
    track: Tensor  # [B, N] int64
    found: Tensor  # [B, N] bool
    from_edge: Tensor  # [B, N] bool: drawn among the points at edges


def sample(batch: Batch, config: SamplerConfig, generator: torch.Generator | None = None) -> tuple[Queries, Labels]:
    """Queries of the context views of a batch, and their labels."""
    views, tracks = batch.context, known_tracks(batch, config, generator)
    edges = depth_edges(views.depth, views.depth_mask)
    draws = draw_queries(views, tracks, edges, config, generator)
    return draws.queries, label(views, tracks, draws)


def known_tracks(batch: Batch, config: SamplerConfig, generator: torch.Generator | None) -> Tracks:
    """The context's tracks; clips that have none get points of their depth maps instead."""
    tracks = batch.tracks.select(slice(0, batch.num_context))
    lacking = ~tracks.visible.flatten(1).any(dim=1)  # [B]
    if not lacking.any():
        return tracks
    extra = depth_tracks(batch.context, batch.is_static, config.num_queries, generator)
    points = torch.cat([tracks.points, extra.points], dim=2)
    return Tracks(points, torch.cat([tracks.visible, extra.visible & lacking[:, None, None]], dim=2))


def draw_queries(
    views: Views,  # [B, T]
    tracks: Tracks,  # [B, T, P]
    edges: Tensor,  # [B, T, H, W] bool
    config: SamplerConfig,
    generator: torch.Generator | None = None,
) -> Draws:
    """Source, target and camera frames uniform, target and camera the same one with a probability of their own.

    A point is any that the source frame sees, one at an edge for a share of the queries where there are any. A point
    whose place at the target time is not known is asked for at its own time.
    """
    num_batch, num_frames, num_points = tracks.visible.shape
    device, shape = tracks.points.device, (num_batch, config.num_queries)

    def chance() -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    source, target, camera = ((chance() * num_frames).long() for _ in range(3))
    tied = chance() < config.same_camera
    xy, _ = project(tracks.points, views.cameras.fxfycxcy, views.cameras.c2w)
    pixel, inside = pixel_of(xy, *views.size)
    seen = (tracks.visible & inside).flatten(0, 1)  # [B T, P]
    at_edge = seen & edges.flatten(2).gather(2, pixel).flatten(0, 1)
    rows = torch.arange(num_batch, device=device)[:, None] * num_frames + source
    fraction = chance()
    edge_track, any_track = (nth_true(mask, rows, fraction) for mask in (at_edge, seen))
    from_edge = (chance() < config.edge_share) & (edge_track >= 0)
    track = torch.where(from_edge, edge_track, any_track)
    found, track = track >= 0, track.clamp(min=0)

    known = tracks.points.isfinite().all(dim=-1).flatten(1)  # [B, T P]
    target = torch.where(known.gather(1, target * num_points + track), target, source)
    camera = torch.where(tied, target, camera)
    uv = xy.flatten(1, 2).gather(1, (source * num_points + track)[..., None].expand(-1, -1, 2))
    uv = torch.where(found[..., None], uv, 0.5)
    return Draws(Queries(uv, source, target, camera), track, found, from_edge)


def label(views: Views, tracks: Tracks, draws: Draws) -> Labels:
    """What the tracks and depth maps say of the queries drawn."""
    queries, num_points = draws.queries, tracks.points.shape[2]
    batch = torch.arange(len(draws.track), device=draws.track.device)[:, None]
    c2w, fxfycxcy = views.cameras.c2w[batch, queries.camera], views.cameras.fxfycxcy[batch, queries.camera]
    flat = tracks.points.flatten(1, 2)
    start, end = (flat[batch, frame * num_points + draws.track] for frame in (queries.source, queries.target))
    mask = draws.found & end.isfinite().all(dim=-1)
    end = torch.where(mask[..., None], end, 0.0)
    moved = torch.where(mask[..., None], end - start, 0.0)

    points = transform_points(rigid_inverse(c2w), end[..., None, :])[..., 0, :]
    positions, z = (x[..., 0, :] if x.dim() == 4 else x[..., 0] for x in project(end[..., None, :], fxfycxcy, c2w))
    near = ((positions >= -FARTHEST_OFF) & (positions <= 1 + FARTHEST_OFF)).all(dim=-1)
    visible = tracks.visible.flatten(1)[batch, queries.target * num_points + draws.track] & mask
    normals, normals_mask = _normals(views, queries, end, visible)
    to_camera = c2w[..., :3, :3].transpose(-1, -2)
    return Labels(
        points,
        mask,
        positions,
        mask & (z > NEAREST) & near,
        visible,
        (to_camera @ moved[..., None])[..., 0],
        (to_camera @ normals[..., None])[..., 0],
        normals_mask,
    )


def _normals(views: Views, queries: Queries, points: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """World normals [B, N, 3] of points as the depth maps of the target times show them, and where they do [B, N]."""
    batch = torch.arange(len(points), device=points.device)[:, None]
    normals, known = depth_normals(views.depth, views.depth_mask, views.cameras.fxfycxcy)
    c2w = views.cameras.c2w[batch, queries.target]
    positions, _ = project(points[..., None, :], views.cameras.fxfycxcy[batch, queries.target], c2w)
    pixel, inside = pixel_of(positions[..., 0, :], *views.size)
    place = (batch, queries.target, pixel)
    world = (c2w[..., :3, :3] @ normals.flatten(2, 3)[place][..., None])[..., 0]
    return world, visible & inside & known.flatten(2)[place]
