"""Training queries: shares within binomial bounds, labels of the tracked point, clips without tracks or depth."""

import math
from dataclasses import replace

import pytest
import torch
from d4rt_cases import NUM_FRAMES, synthetic_batch

from movies.cameras import Cameras
from movies.clip import Batch, Clip, Tracks, Views
from movies.d4rt.sampling import SamplerConfig, draw_queries, known_tracks, sample
from movies.d4rt.surfaces import depth_edges, depth_normals, nth_true
from movies.geometry import pixel_rays, transform_points


@pytest.fixture(scope="module")
def batch() -> Batch:
    return synthetic_batch(static=False)


def within_binomial(count: int, number: int, share: float) -> bool:
    """Within four standard deviations: one run in 16,000 would fall outside, and the seed is fixed."""
    return abs(count - number * share) < 4 * math.sqrt(number * share * (1 - share))


def test_shares_are_those_asked_for(batch):
    """Edges 30 %; target and camera one frame with 0.4, and by chance in 1 of T of the others; times uniform."""
    config = SamplerConfig(num_queries=20_000)
    edges = depth_edges(batch.views.depth, batch.views.depth_mask)
    assert 0.02 < edges.float().mean() < 0.5
    draws = draw_queries(batch.context, batch.tracks, edges, config, torch.Generator().manual_seed(0))
    queries, number = draws.queries, draws.found.numel()
    assert draws.found.all()
    assert within_binomial(int(draws.from_edge.sum()), number, 0.3)
    tied = 0.4 + 0.6 / NUM_FRAMES
    assert within_binomial(int((queries.target == queries.camera).sum()), number, tied)
    for name in ("source", "target", "camera"):
        counts = getattr(queries, name).flatten().bincount(minlength=NUM_FRAMES)
        assert all(within_binomial(int(c), number, 1 / NUM_FRAMES) for c in counts), name
    none = draw_queries(batch.context, batch.tracks, edges, replace(config, edge_share=0.0, same_camera=0.0))
    assert not none.from_edge.any()


def test_edge_queries_lie_at_edges_and_all_where_their_track_is_seen(batch):
    views, tracks = batch.context, batch.tracks
    edges = depth_edges(views.depth, views.depth_mask)
    draws = draw_queries(views, tracks, edges, SamplerConfig(2000), torch.Generator().manual_seed(1))
    pixel = (draws.queries.uv * 24).long().clamp(0, 23)
    rows = torch.arange(2)[:, None]
    at_edge = edges[rows, draws.queries.source, pixel[..., 1], pixel[..., 0]]
    assert at_edge[draws.from_edge].all() and not at_edge[~draws.from_edge].all()
    assert tracks.visible[rows, draws.queries.source, draws.track].all()


def test_labels_are_of_the_tracked_point_not_of_the_pixel(batch):
    """A moving point has left its pixel: its label is where the world has it at the target time."""
    generator = torch.Generator().manual_seed(2)
    config = SamplerConfig(3000, same_camera=1.0)
    queries, labels = sample(batch, config, generator)
    edges = depth_edges(batch.views.depth, batch.views.depth_mask)
    draws = draw_queries(batch.context, batch.tracks, edges, config, torch.Generator().manual_seed(2))
    assert torch.equal(draws.queries.uv, queries.uv)
    rows, cameras = torch.arange(2)[:, None], batch.views.cameras
    world = batch.tracks.points[rows, queries.target, draws.track]  # [B, N, 3]
    back = transform_points(cameras.c2w[rows, queries.camera], labels.points[..., None, :])[..., 0, :]
    assert torch.allclose(back, world, atol=1e-5)
    moved = world - batch.tracks.points[rows, queries.source, draws.track]
    assert torch.allclose(labels.displacement.norm(dim=-1), moved.norm(dim=-1), atol=1e-5)
    assert (moved.norm(dim=-1) > 0.05).any()
    assert torch.equal(labels.visible, batch.tracks.visible[rows, queries.target, draws.track])
    own = queries.target == queries.source
    assert torch.allclose(labels.positions[own], queries.uv[own], atol=1e-5)
    assert (labels.positions - queries.uv).norm(dim=-1)[labels.positions_mask & ~own].mean() > 0.01


def test_a_hand_worked_label():
    """A point moves by 1 to the right, its camera 1 forward: from (0, 0, 4) to (1, 0, 3) in the second camera."""
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[1, 2, 3] = 1.0
    cameras = Cameras(c2w, torch.tensor([1.0, 1, 0.5, 0.5]).expand(2, 4))
    tracks = Tracks(torch.tensor([[[0.0, 0, 4]], [[1, 0, 4]]]), torch.ones(2, 1, dtype=torch.bool))
    depth = torch.full((2, 8, 8), 4.0)
    views = Views(torch.zeros(2, 3, 8, 8), cameras, torch.tensor([0.0, 1]), depth, torch.ones_like(depth).bool())
    batch = Batch.stack([Clip(views, tracks, 2)])
    queries, labels = sample(batch, SamplerConfig(200), torch.Generator().manual_seed(0))
    asked = (queries.source == 0) & (queries.target == 1) & (queries.camera == 1)
    assert asked.any() and labels.points_mask.all()
    expected = {
        "points": [1.0, 0, 3],
        "positions": [0.5 + 1 / 3, 0.5],
        "displacement": [1.0, 0, 0],
        "normals": [0.0, 0, -1],
    }
    for name, value in expected.items():
        assert torch.allclose(getattr(labels, name)[asked], torch.tensor(value), atol=1e-6), name
    assert torch.allclose(queries.uv[asked], torch.tensor([0.5, 0.5]))


def test_static_clips_without_tracks_are_asked_about_their_depth():
    batch = synthetic_batch(static=True)
    bare = replace(batch, tracks=Tracks.empty(2, NUM_FRAMES))
    queries, labels = sample(bare, SamplerConfig(500), torch.Generator().manual_seed(0))
    assert labels.points_mask.all() and (labels.displacement == 0).all()
    assert (queries.source != queries.target).any() and labels.visible.float().mean() > 0.5
    rows = torch.arange(2)[:, None]
    pixel = (labels.positions * 24).long().clamp(0, 23)
    depth = batch.views.depth[rows, queries.target, pixel[..., 1], pixel[..., 0]]
    seen = labels.visible & (queries.target == queries.camera)
    assert torch.allclose(labels.points[..., 2][seen], depth[seen], rtol=0.04)


def test_moving_clips_without_tracks_are_asked_about_each_time_alone(batch):
    bare = replace(batch, tracks=Tracks.empty(2, NUM_FRAMES))
    queries, labels = sample(bare, SamplerConfig(300), torch.Generator().manual_seed(0))
    assert torch.equal(queries.source, queries.target) and (queries.camera != queries.target).any()
    assert labels.points_mask.all() and (labels.displacement == 0).all()


def test_only_clips_that_lack_tracks_get_points_of_depth(batch):
    tracks = Tracks(batch.tracks.points.clone(), batch.tracks.visible.clone())
    tracks.visible[1] = False
    mixed = known_tracks(replace(batch, tracks=tracks), SamplerConfig(64), torch.Generator().manual_seed(0))
    assert mixed.visible.shape[2] == 400 + 64
    assert not mixed.visible[0, :, 400:].any() and mixed.visible[1, :, 400:].any()
    assert known_tracks(batch, SamplerConfig(64), None).visible.shape[2] == 400


def test_nothing_known_asks_in_vain(batch):
    blank = torch.zeros_like(batch.views.depth)
    views = replace(batch.views, depth=blank, depth_mask=blank.bool())
    empty = replace(batch, views=views, tracks=Tracks.empty(2, NUM_FRAMES))
    queries, labels = sample(empty, SamplerConfig(30), torch.Generator().manual_seed(0))
    queries.check(NUM_FRAMES)
    assert not labels.points_mask.any() and not labels.normals_mask.any() and not labels.visible.any()
    assert all(x.isfinite().all() for x in vars(labels).values())


def test_edges_of_a_step_and_normals_of_a_plane():
    everywhere = torch.ones(9, 24).bool()
    assert not depth_edges(torch.linspace(2, 2.2, 24).expand(9, 24), everywhere).any()
    wide = torch.full((9, 40), 2.0)
    wide[:, 20:] = 2.4
    columns = depth_edges(wide, torch.ones_like(wide).bool()).any(dim=0)
    assert columns.tolist() == [18 <= i <= 21 for i in range(40)]
    slope = torch.linspace(2, 40, 40).expand(9, 40)  # steep everywhere: only its steepest tenth counts
    assert 0 < depth_edges(slope, torch.ones_like(slope).bool()).float().mean() < 0.2

    fxfycxcy = torch.tensor([1.0, 1.0, 0.5, 0.5])
    rays = pixel_rays(fxfycxcy, 9, 24)
    plane = 3 / (1 + 0.5 * rays[..., 0])  # z + x / 2 = 3
    normals, known = depth_normals(plane, everywhere, fxfycxcy)
    expected = torch.tensor([-0.5, 0, -1]) / math.sqrt(1.25)
    assert known[1:-1, 1:-1].all() and not known[0].any()
    assert torch.allclose(normals[known], expected.expand(int(known.sum()), 3), atol=1e-5)


def test_nth_true_counts_in_rows():
    mask = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()
    rows = torch.tensor([0, 0, 0, 1, 2])
    assert nth_true(mask, rows, torch.tensor([0.0, 0.5, 0.99, 0.5, 0.9])).tolist() == [1, 3, 4, -1, 0]
