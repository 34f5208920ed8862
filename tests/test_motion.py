"""Tracks, flow and masks read from splats and scenes whose motion is known by construction."""

from dataclasses import replace

import pytest
import torch

from movies.cameras import Cameras
from movies.gaussians import Gaussians
from movies.geometry import project
from movies.motion import (
    HIDDEN_TOLERANCE,
    above_the_still,
    cleaned_masks,
    flow_to_next_view,
    follow_scene,
    follow_splats,
    motion_magnitude,
    moving_masks,
    observed,
    optical_flow,
    rendered_depth,
    rendered_flow,
    scene_flow,
)
from movies.scene import Scene4D
from movies.splats import NUM_ATTRIBUTES, DynamicSplats
from movies.tracks import Queries

V, H, W = 3, 16, 24
SPEED = torch.tensor([0.6, 0.0, 0.0])  # world units over the clip
LENS = torch.tensor([1.0, 1.5, 0.5, 0.5])  # square pixels: 24 of them a unit at depth 1


def sliding_splats(depth: float = 2.0) -> DynamicSplats:
    """A wall before a still camera, of which the upper half slides to the right; times are the views'."""
    times = torch.linspace(0, 1, V)
    moving = torch.zeros(V, V, H, W, dtype=torch.bool)
    moving[..., : H // 2, :] = True
    elapsed = times[:, None] - times[None, :]  # [T, V]
    motion = elapsed[..., None, None, None] * SPEED * moving[..., None]
    ones = torch.ones(1, V, H, W)
    raw = torch.zeros(1, V, H, W, NUM_ATTRIBUTES)
    raw[..., 3:6] = 1000 * 0.4 * depth / W  # standard deviation 0.4 pixels
    raw[..., 6], raw[..., 10] = 1.0, 2.5
    return DynamicSplats(
        depth=depth * ones,
        depth_confidence=1 + ones,
        motion=motion[None],
        motion_confidence=4 * torch.ones(1, V, V, H, W),
        moving=moving[None],
        raw_splats=raw,
        raw_motion_splats=raw[:, None].repeat(1, V, 1, 1, 1, 1),
        cameras=Cameras(torch.eye(4).repeat(1, V, 1, 1), LENS.repeat(1, V, 1)),
        view_times=times[None],
        times=times[None],
    )


def all_pixels(stride: int = 1) -> Queries:
    return Queries.grid(H, W, stride, torch.arange(V))


# --- tracks


def test_tracks_follow_their_points():
    splats, queries = sliding_splats(), all_pixels(4)
    splats.raw_splats[..., 10] = 1.5
    points, confidence = follow_splats(splats, queries)
    tracks = observed(splats.to_scene(), points, confidence, queries, (H, W))
    assert tracks.points.shape == (V, V * 4 * 6, 3)
    at_home = tracks.positions[queries.views, torch.arange(len(queries))]
    assert torch.allclose(at_home, queries.positions, atol=1e-6)  # a point starts at its own pixel
    upper = queries.positions[:, 1] < 0.5
    travelled = tracks.points[-1] - tracks.points[0]
    assert torch.allclose(travelled[upper], SPEED.expand(int(upper.sum()), 3), atol=1e-6)
    assert (travelled[~upper] == 0).all()
    # over the clip 0.6 units at depth 2 are 0.3 of the width
    assert torch.allclose((tracks.positions[-1] - tracks.positions[0])[upper][:, 0], torch.tensor(0.3), atol=1e-6)
    # opacities: sigmoid(2 * 2.5 - 2) = 0.953 of what moves, sigmoid(2 * 1.5 - 2) = 0.731 of the rest
    assert torch.allclose(tracks.confidence[:, upper], torch.tensor(0.9526), atol=1e-4)
    assert torch.allclose(tracks.confidence[:, ~upper], torch.tensor(0.7311), atol=1e-4)


def test_a_query_starts_on_its_own_ray_not_at_the_pixels_centre():
    queries = Queries(torch.tensor([1]), torch.tensor([[0.51, 0.26]]))
    points, _ = follow_splats(sliding_splats(), queries)
    # depth 2, lens 1 and 1.5: x = 2 (0.51 - 0.5) / 1, y = 2 (0.26 - 0.5) / 1.5; half the way left at time 0
    assert torch.allclose(points[0, 0], torch.tensor([0.02 - 0.3, -0.32, 2.0]), atol=1e-6)


def test_points_are_visible_until_they_leave_or_are_hidden():
    splats, queries = sliding_splats(), all_pixels()
    points, confidence = follow_splats(splats, queries)
    tracks = observed(splats.to_scene(), points, confidence, queries, (H, W))
    inside = (tracks.positions[..., 0] >= 0) & (tracks.positions[..., 0] < 1)
    assert torch.equal(tracks.visible, inside)


def test_a_nearer_wall_hides_what_lies_behind_it():
    """A card at depth 1 moves over the left half between the times 0 and 1; the wall behind is at depth 2."""
    scene = carded_scene()
    queries = Queries(torch.zeros(2, dtype=torch.long), torch.tensor([[0.25, 0.5], [0.75, 0.5]]))
    wall = torch.tensor([[-0.5, 0.0, 2.0], [0.5, 0.0, 2.0]]).expand(2, 2, 3)
    tracks = observed(scene, wall, torch.ones(2, 2), queries, (H, W))
    assert tracks.visible.tolist() == [[True, True], [False, True]]
    on_the_card = torch.tensor([[-0.25, 0.0, 1.0]]).expand(2, 1, 3)
    tracks = observed(scene, on_the_card, torch.ones(2, 1), Queries(queries.views[:1], queries.positions[:1]), (H, W))
    assert tracks.visible.all()
    just_behind = on_the_card * (1 + 0.5 * HIDDEN_TOLERANCE)
    assert observed(scene, just_behind, torch.ones(2, 1), tracks.queries, (H, W)).visible.all()


def card(left: float, depth: float, footprint: float = 0.7) -> Gaussians:
    """A rectangle of opaque splats, a unit of the depth's width wide from `left`, as high as the picture."""
    step = 0.5 * depth / W
    x = left + step * torch.arange(int(0.5 * depth / step))
    y = torch.arange(-0.36 * depth, 0.36 * depth, step)
    grid = torch.cartesian_prod(x, y)
    means = torch.cat([grid, torch.full((len(grid), 1), depth)], dim=1)
    num = len(means)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(num, 4)
    return Gaussians(means, quats, torch.full((num, 3), footprint * step), torch.full((num,), 0.99), torch.ones(num, 3))


def carded_scene() -> Scene4D:
    """A still wall over the whole picture, and a card that comes from outside of it to its left half."""
    wall = Gaussians.cat([card(-1.0, 2.0), card(0.0, 2.0)])
    here = card(-0.5, 1.0)
    away = replace(here, means=here.means - torch.tensor([0.6, 0, 0]))
    moving = Gaussians(*(torch.stack([a, b]) for a, b in zip(vars(away).values(), vars(here).values(), strict=True)))
    times = torch.tensor([0.0, 1.0])
    return Scene4D(wall, moving, times, Cameras(torch.eye(4).repeat(2, 1, 1), LENS.repeat(2, 1)), times, (H, W))


def test_a_stored_scene_is_followed_by_what_renders_its_pixels():
    scene = carded_scene()
    queries = Queries(torch.tensor([1, 1]), torch.tensor([[0.2, 0.4], [0.8, 0.4]]))  # on the card, on the wall
    points, confidence = follow_scene(scene, queries, torch.tensor([0.0, 0.5, 1.0]), (H, W))
    assert torch.allclose(points[2], torch.tensor([[-0.3, -0.0667, 1.0], [0.6, -0.1333, 2.0]]), atol=2e-3)
    assert torch.allclose(points[2] - points[0], torch.tensor([[0.6, 0, 0], [0, 0, 0]]), atol=1e-3)
    assert torch.allclose(points[2] - points[1], torch.tensor([[0.3, 0, 0], [0, 0, 0]]), atol=1e-3)
    assert (confidence > 0.95).all()


def test_where_a_scene_shows_nothing_there_is_nothing_to_follow():
    scene = carded_scene()
    bare = replace(scene, static=Gaussians.empty())
    queries = Queries(torch.tensor([1]), torch.tensor([[0.9, 0.5]]))
    points, confidence = follow_scene(bare, queries, bare.times, (H, W))
    assert points.isnan().all() and (confidence == 0).all()
    assert not observed(bare, points, confidence, queries, (H, W)).visible.any()


def test_splats_and_the_scene_stored_of_them_agree():
    splats, queries = sliding_splats(), Queries(torch.tensor([1, 1]), torch.tensor([[0.5, 0.2], [0.5, 0.8]]))
    predicted, _ = follow_splats(splats, queries)
    stored, _ = follow_scene(splats.to_scene(), queries, splats.times[0], (H, W))
    assert torch.allclose(predicted, stored, atol=1e-3)


# --- depth and flow


def test_depth_of_input_and_novel_views():
    scene = carded_scene()
    closer = torch.eye(4)
    closer[2, 3] = 0.5
    views = Cameras(torch.stack([torch.eye(4), torch.eye(4), closer]), LENS.repeat(3, 1))
    depth = rendered_depth(scene, views, torch.tensor([0.0, 1.0, 1.0]), (H, W))
    assert depth[:, 8, 4].tolist() == pytest.approx([2.0, 1.0, 0.5], rel=1e-2)
    assert depth[:2, 8, 20].tolist() == pytest.approx([2.0, 2.0], rel=1e-2)


def test_flow_of_any_view_between_any_two_times():
    scene = carded_scene()
    aside = torch.eye(4)
    aside[0, 3] = -0.3
    seen = rendered_flow(scene, Cameras(aside, LENS), 0.75, torch.tensor([0.25, 1.0]), (H, W))
    # the card's middle stands at x = -0.4 then: 0.1 to the left of this camera, at 0.4 of the width
    assert torch.allclose(seen.offsets[:, 8, 9], torch.tensor([[-0.3, 0, 0], [0.15, 0, 0]]), atol=1e-3)
    assert torch.allclose(seen.offsets[:, 8, 22], torch.zeros(2, 3), atol=1e-6)
    assert float(seen.depth[8, 9]) == pytest.approx(1.0, rel=1e-2)


def test_optical_flow_of_a_known_vector_in_known_cameras():
    points = torch.tensor([0.0, 0.0, 2.0]).expand(1, 1, 3)  # one pixel, its centre at the principal point
    still = Cameras(torch.eye(4), torch.tensor([24.0, 24.0, 0.5, 0.5]))
    moved = points + torch.tensor([0.5, -0.25, 0.0])
    assert optical_flow(moved, still)[0, 0].tolist() == pytest.approx([6.0, -3.0])  # 24 px * 0.5 / 2, 24 * -0.25 / 2
    forward = torch.eye(4)
    forward[:3, 3] = torch.tensor([0.5, 0.0, 1.0])  # the camera follows to the right, and halves the distance
    assert optical_flow(moved, Cameras(forward, still.fxfycxcy))[0, 0].tolist() == pytest.approx([0.0, -6.0])
    assert optical_flow(-moved, still).isnan().all()  # behind the camera


def test_flow_goes_to_the_next_view_and_at_the_end_from_the_one_before():
    flow = scene_flow(sliding_splats())
    assert flow.shape == (V, H, W, 3)
    assert torch.allclose(flow[:, : H // 2], SPEED / 2, atol=1e-6)
    assert (flow[:, H // 2 :] == 0).all()
    pixels = flow_to_next_view(sliding_splats())
    assert pixels.shape == (V - 1, H, W, 2)
    # 0.3 units at depth 2 are 0.15 of the width
    assert torch.allclose(pixels[:, : H // 2], torch.tensor([0.15 * W, 0.0]), atol=1e-4)
    assert pixels[:, H // 2 :].abs().max() < 1e-4


# --- masks


def test_masks_mark_the_moving_half():
    splats = sliding_splats()
    magnitude = motion_magnitude(splats)
    # view 0 and 2 see 0.6 units of motion, view 1 at most 0.3; the median depth is 2
    assert torch.allclose(magnitude[:, 0, 0], torch.tensor([0.3, 0.15, 0.3]))
    masks = moving_masks(splats)
    assert masks[:, : H // 2].all() and not masks[:, H // 2 :].any()


def test_a_mask_stands_above_the_restlessness_of_the_rest(generator):
    magnitude = 0.002 * torch.rand(2, 32, 32, generator=generator)
    magnitude[:, 4:12, 4:12] = 0.2
    still = torch.ones(2, 32, 32, dtype=torch.bool)
    still[:, 4:12, 4:12] = False
    assert torch.equal(above_the_still(magnitude), ~still)
    restless = magnitude + 0.05 * torch.rand(2, 32, 32, generator=generator)  # more than a tenth of the motion
    assert torch.equal(above_the_still(restless), ~still)
    assert not above_the_still(0.004 * torch.rand(2, 32, 32, generator=generator)).any()  # under what counts at all
    assert not above_the_still(torch.zeros(2, 32, 32)).any()


def test_masks_lose_specks_and_small_holes_and_keep_the_rest():
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:30, 10:30] = True
    clean = mask.clone()
    mask[0, 20, 20], mask[0, 50, 50:53] = False, True
    assert torch.equal(cleaned_masks(mask), clean)
    clean[0, 15:20, 15:20] = False  # a hole of this size is meant
    assert torch.equal(cleaned_masks(clean), clean)


def test_positions_are_those_of_the_projection():
    scene = carded_scene()
    points = torch.rand(2, 5, 3) + torch.tensor([-0.5, -0.5, 1.0])
    queries = Queries(torch.zeros(5, dtype=torch.long), torch.rand(5, 2))
    tracks = observed(scene, points, torch.ones(2, 5), queries, (H, W))
    xy, z = project(points, scene.cameras.fxfycxcy, scene.cameras.c2w)
    assert torch.equal(tracks.positions, xy) and torch.equal(tracks.camera_points()[..., 2], z)
