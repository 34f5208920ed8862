"""Tracks, flow and masks read from splats whose motion is known by construction."""

import numpy as np
import torch

from movies.cameras import Cameras
from movies.geometry import quaternion_to_matrix, rigid
from movies.motion import grid_tracks, moving_masks, scene_flow
from movies.splats import NUM_ATTRIBUTES, DynamicSplats

V, H, W = 3, 8, 12
SPEED = torch.tensor([0.6, 0.0, 0.0])  # world units over the clip


def sliding_splats(depth: float = 2.0) -> DynamicSplats:
    """A wall before a still camera, of which the upper half slides to the right; times are the views'."""
    times = torch.linspace(0, 1, V)
    moving = torch.zeros(V, V, H, W, dtype=torch.bool)
    moving[..., : H // 2, :] = True
    elapsed = times[:, None] - times[None, :]  # [T, V]
    motion = elapsed[..., None, None, None] * SPEED * moving[..., None]
    ones = torch.ones(1, V, H, W)
    return DynamicSplats(
        depth=depth * ones,
        depth_confidence=1 + ones,
        motion=motion[None],
        motion_confidence=2 * torch.ones(1, V, V, H, W),
        moving=moving[None],
        raw_splats=torch.zeros(1, V, H, W, NUM_ATTRIBUTES),
        raw_motion_splats=torch.zeros(1, V, V, H, W, NUM_ATTRIBUTES),
        cameras=Cameras(torch.eye(4).repeat(1, V, 1, 1), torch.tensor([1.0, 1.5, 0.5, 0.5]).repeat(1, V, 1)),
        view_times=times[None],
        times=times[None],
    )


def test_tracks_follow_their_points():
    tracks = grid_tracks(sliding_splats(), stride=4)
    assert tracks.points.shape == (V, V * 2 * 3, 3)
    at_home = tracks.positions[tracks.query_views, torch.arange(len(tracks.query_views))]
    assert torch.allclose(at_home, tracks.query_positions, atol=1e-6)  # a point starts at its own pixel
    upper = tracks.query_positions[:, 1] < 0.5
    travelled = tracks.points[-1] - tracks.points[0]
    assert torch.allclose(travelled[upper], SPEED.expand(int(upper.sum()), 3), atol=1e-6)
    assert (travelled[~upper] == 0).all()
    # over the clip 0.6 units at depth 2 are 0.3 of the width
    assert torch.allclose((tracks.positions[-1] - tracks.positions[0])[upper][:, 0], torch.tensor(0.3), atol=1e-6)


def test_points_are_visible_until_they_leave_or_are_hidden():
    splats = sliding_splats()
    tracks = grid_tracks(splats, stride=1)
    inside = (tracks.positions[..., 0] >= 0) & (tracks.positions[..., 0] < 1)
    assert torch.equal(tracks.visible, inside)
    splats.depth[0, 1] = 1.0  # a nearer wall in the middle view hides what lies behind it
    tracks = grid_tracks(splats, stride=1)
    others = tracks.query_views != 1
    assert not tracks.visible[1, others].any()


def test_flow_goes_to_the_next_view_and_at_the_end_from_the_one_before():
    flow = scene_flow(sliding_splats())
    assert flow.shape == (V, H, W, 3)
    assert torch.allclose(flow[:, : H // 2], SPEED / 2, atol=1e-6)
    assert (flow[:, H // 2 :] == 0).all()


def test_masks_mark_the_moving_half():
    masks = moving_masks(sliding_splats())
    assert masks[:, : H // 2].all() and not masks[:, H // 2 :].any()


def test_tracks_are_saved_under_their_own_names(tmp_path, generator):
    tracks = grid_tracks(sliding_splats(), stride=4)
    transform = rigid(quaternion_to_matrix(torch.randn(4, generator=generator)), torch.ones(3))
    placed = tracks.placed(3.0, transform)
    assert torch.allclose(placed.points, 3 * tracks.points @ transform[:3, :3].T + 1, atol=1e-5)
    placed.save(tmp_path / "tracks.npz")
    with np.load(tmp_path / "tracks.npz") as stored:
        names = {"points", "positions", "visible", "times", "query_views", "query_positions"}
        assert set(stored.keys()) == names
        assert np.array_equal(stored["points"], placed.points.numpy()) and stored["visible"].dtype == bool
