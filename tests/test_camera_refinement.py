"""Perturbed cameras of synthetic worlds come back to the true ones; what cannot be aligned is left alone."""

import pytest
import torch

from movies.camera_refinement import GRID, Guess, make_level, refined_cameras, warp, warp_jacobian
from movies.cameras import Cameras
from movies.clip import Views
from movies.data.synthetic import synthetic_sequences
from movies.geometry import rigid
from movies.metrics import rotation_error, translation_error


@pytest.fixture(scope="module")
def views() -> Views:
    """Three frames of a world that stands still, with true depth; the first camera is the identity."""
    (sequence,) = synthetic_sequences(
        num_sequences=1, first_seed=7, image_size=(56, 56), num_frames=9, num_tracks=1, static=True
    )
    views, _ = sequence.read([0, 2, 4])
    return Views(views.images, views.cameras.relative_to(views.cameras[:1]), views.times, views.depth, views.depth_mask)


def turned(cameras: Cameras, degrees: float) -> Cameras:
    """All but the first, each about another axis."""
    step = torch.zeros(len(cameras), 6 + GRID**2)
    axes = torch.randn(len(cameras) - 1, 3, generator=torch.Generator().manual_seed(1))
    step[1:, :3] = torch.nn.functional.normalize(axes, dim=-1) * torch.tensor(degrees).deg2rad()
    return Cameras(Guess(cameras.c2w, torch.zeros(len(cameras), GRID**2)).moved(step).c2w, cameras.fxfycxcy)


def worst(cameras: Cameras, truth: Cameras) -> float:
    return float(rotation_error(cameras.c2w, truth.c2w).max())


def test_cameras_turned_by_five_degrees_come_back(views):
    found, refinement = refined_cameras(views.images, views.depth, turned(views.cameras, 5.0))
    assert worst(found, views.cameras) < 0.5
    assert refinement.said == "refined" and refinement.after < 0.7 * refinement.before
    assert torch.equal(found.c2w[0], views.cameras.c2w[0])


def test_true_cameras_stay_where_they_are(views):
    found, _ = refined_cameras(views.images, views.depth, views.cameras)
    assert worst(found, views.cameras) < 0.2
    apart = translation_error(found.c2w, views.cameras.c2w).max()
    assert apart < 0.05 * views.cameras.centers.norm(dim=-1).max()


def test_the_world_of_the_first_camera_is_kept(views):
    """Wherever the first camera stands, the others follow."""
    moved = views.cameras.transformed(rigid(torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), torch.ones(3)))
    found, _ = refined_cameras(views.images, views.depth, turned(moved, 3.0))
    assert worst(found, moved) < 0.5


def test_something_that_moves_over_a_third_of_the_picture_does_not_pull_the_cameras(views):
    """A noisy board of 34x30 of 56x56 pixels at its true depth, in another place in every frame."""
    images, depth = views.images.clone(), views.depth.clone()
    board = torch.rand(3, 34, 30, generator=torch.Generator().manual_seed(2))
    for v in range(3):
        window = (slice(18, 52), slice(8 + 7 * v, 38 + 7 * v))
        images[v][:, *window], depth[v][window] = 0.3 + 0.2 * board, 0.6
    found, _ = refined_cameras(images, depth, turned(views.cameras, 1.0))
    assert worst(found, views.cameras) < 0.5


def test_pictures_without_texture_keep_the_start_and_say_so(views):
    start = turned(views.cameras, 2.0)
    found, refinement = refined_cameras(torch.full_like(views.images, 0.5), views.depth, start)
    assert found is start and "nothing to align" in refinement.said


def test_one_frame_keeps_its_camera():
    camera = Cameras(torch.eye(4)[None], torch.tensor([[1.0, 1.0, 0.5, 0.5]]))
    found, refinement = refined_cameras(torch.rand(1, 3, 14, 14), torch.ones(1, 14, 14), camera)
    assert found is camera and "one frame" in refinement.said


def test_cameras_are_kept_where_no_others_explain_the_pictures_better():
    """The same picture from the same place: nothing can be better."""
    images = torch.rand(1, 3, 14, 14, generator=torch.Generator().manual_seed(3)).repeat(2, 1, 1, 1)
    cameras = Cameras(torch.eye(4).repeat(2, 1, 1), torch.tensor([1.0, 1.0, 0.5, 0.5]).repeat(2, 1))
    found, refinement = refined_cameras(images, torch.ones(2, 14, 14), cameras)
    assert found is cameras and "better" in refinement.said


def test_the_jacobian_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(2, 3, 6, 8, generator=generator, dtype=torch.float64)
    depth = 1 + torch.rand(2, 6, 8, generator=generator, dtype=torch.float64)
    lens = torch.tensor([0.9, 1.2, 0.5, 0.5], dtype=torch.float64).expand(2, 4)
    level, unknowns = make_level(images, depth, lens, 8), 6 + GRID**2
    still = Guess(torch.eye(4, dtype=torch.float64).repeat(2, 1, 1), torch.zeros(2, GRID**2, dtype=torch.float64))
    guess = still.moved(0.05 * torch.randn(2, unknowns, generator=generator, dtype=torch.float64))
    steps = 1e-5 * torch.eye(2 * unknowns, dtype=torch.float64).unflatten(1, (2, unknowns))
    ahead, behind = (torch.stack([warp(level, guess.moved(step))[0] for step in way]) for way in (steps, -steps))
    slopes = ((ahead - behind) / 2e-5).unflatten(0, (2, unknowns)).movedim(1, -1)  # [V, P, N, 2, unknowns]
    found = warp_jacobian(level, guess)
    for p, (i, j) in enumerate(zip(level.source, level.target, strict=True)):
        expected = torch.cat([slopes[i, p], slopes[j, p, ..., :6]], dim=-1)
        torch.testing.assert_close(found[p], expected, rtol=1e-6, atol=1e-7)
