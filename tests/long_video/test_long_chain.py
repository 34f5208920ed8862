import numpy as np
import pytest
import torch

from movies.alignment import Similarity
from movies.cameras import Cameras
from movies.geometry import quaternion_to_matrix, rigid, rotation_angle
from movies.long_video.chain import Joint, compose, described, failing, join, refine
from movies.long_video.chunks import Geometry


def geometry(first: int, generator: torch.Generator, depth: torch.Tensor, cameras: Cameras) -> Geometry:
    """Five frames from `first` on of a scene of ten."""
    own = slice(first, first + 5)
    return Geometry(torch.arange(10)[own], depth[own], 1 + torch.rand(5, 12, 16, generator=generator), cameras[own])


def scene(generator: torch.Generator) -> tuple[torch.Tensor, Cameras]:
    centers = torch.tensor([0.2, 0.0, 0.05]) * torch.arange(10.0)[:, None]
    turns = quaternion_to_matrix(torch.tensor([1.0, 0, 0, 0]) + 0.02 * torch.randn(10, 4, generator=generator))
    depth = 2 + torch.rand(10, 12, 16, generator=generator)
    return depth, Cameras(rigid(turns, centers), torch.tensor([0.9, 1.2, 0.5, 0.5]).expand(10, 4))


def moved(given: Geometry, similarity: Similarity) -> Geometry:
    """The same chunk in another world and unit."""
    cameras = given.cameras.rescaled(similarity.scale).transformed(similarity.transform)
    return Geometry(given.frames, given.depth * similarity.scale, given.confidence, cameras)


def some_similarity(generator: torch.Generator) -> Similarity:
    turn = quaternion_to_matrix(torch.randn(4, generator=generator))
    return Similarity(torch.tensor(0.7), turn, torch.randn(3, generator=generator))


def test_a_joint_finds_how_chunks_lie(generator):
    depth, cameras = scene(generator)
    before, after = (geometry(first, generator, depth, cameras) for first in (0, 3))
    truth = some_similarity(generator)
    found = join(0, 1, before, moved(after, truth.inverse()))
    assert float(found.similarity.scale) == pytest.approx(0.7, rel=1e-4)
    assert rotation_angle(found.similarity.rotation, truth.rotation) < 1e-2
    assert found.residual < 1e-4 and found.inliers == 1.0 and found.fault == ""
    said = described(found, [before.frames, after.frames])
    assert said["frames"] == [3, 4] and said["scale"] == pytest.approx(0.7, rel=1e-4)


def test_a_joint_that_does_not_hold_is_said(generator):
    depth, cameras = scene(generator)
    before, after = (geometry(first, generator, depth, cameras) for first in (0, 3))
    other = Geometry(after.frames, 2 + 3 * torch.rand(5, 12, 16, generator=generator), after.confidence, after.cameras)
    frames = [before.frames, after.frames]
    poor = join(0, 1, before, other)
    assert poor.inliers < 0.5
    said = failing([poor], frames)[0]
    assert said.startswith("1 of 1 joints do not hold: before frame 3 only") and "out of place" in said
    assert (
        "agree about depth" in failing([poor] * 5, frames, given=True)[0]
        and "and 2 more" in failing([poor] * 5, frames)[0]
    )
    large = join(0, 1, before, moved(after, Similarity(torch.tensor(5.0), torch.eye(3), torch.zeros(3))))
    assert "5.0 times as large" in large.fault and large.inliers == 1.0


@pytest.mark.parametrize("broken", [float("nan"), 0.0])
def test_without_points_the_shared_cameras_are_matched(generator, broken):
    depth, cameras = scene(generator)
    before, after = (geometry(first, generator, depth, cameras) for first in (0, 3))
    truth = Similarity(torch.ones(()), some_similarity(generator).rotation, torch.ones(3))
    after = moved(after, truth.inverse())
    blind = Geometry(after.frames, torch.full_like(after.depth, broken), after.confidence, after.cameras)
    found = join(0, 1, before, blind)
    assert not found.points and "shared cameras alone" in found.fault
    torch.testing.assert_close(found.similarity.transform, truth.transform, atol=1e-4, rtol=0)
    assert described(found, [before.frames, after.frames])["residual"] is None


def test_given_cameras_are_measured_and_not_moved(generator):
    depth, cameras = scene(generator)
    before, after = (geometry(first, generator, depth, cameras) for first in (0, 3))
    found = join(0, 1, before, Geometry(after.frames, 1.05 * after.depth, after.confidence, after.cameras), given=True)
    assert torch.equal(found.similarity.rotation, torch.eye(3)) and float(found.similarity.scale) == 1
    assert found.residual == pytest.approx(0.05, rel=0.3) and found.inliers == 1.0


def test_joints_compose_along_the_clip(generator):
    steps = [some_similarity(generator) for _ in range(3)]
    joints = [Joint(k, k + 1, s, 0.0, 1.0) for k, s in enumerate(steps)]
    del joints[1]  # a cut between the second and the third chunk
    placed = compose(4, joints)
    points = torch.randn(5, 3, generator=generator)
    torch.testing.assert_close(placed[1](points), steps[0](points))
    assert torch.equal(placed[2](points), points)
    torch.testing.assert_close(placed[3](points), steps[2](points))


def test_refinement_spreads_what_a_loop_does_not_close(generator):
    """Twelve chunks round a circle; each joint is a little off, the loop knows better."""
    angle = torch.tensor(2 * np.pi / 12)
    turn = quaternion_to_matrix(torch.stack([(angle / 2).cos(), torch.zeros(()), (angle / 2).sin(), torch.zeros(())]))
    true_step = Similarity(torch.ones(()), turn, torch.tensor([1.0, 0.0, 0.0]))
    wrong_turn = quaternion_to_matrix(torch.tensor([1.0, 0.0, 0.01, 0.0]))
    step = Similarity(torch.tensor(1.01), turn @ wrong_turn, torch.tensor([1.02, 0.0, 0.0]))
    joints = [Joint(k, k + 1, step, 0.0, 1.0) for k in range(11)]
    truth = compose(12, [Joint(k, k + 1, true_step, 0.0, 1.0) for k in range(11)])
    loop = Joint(0, 11, truth[11], 0.0, 1.0)
    refined = refine(compose(12, joints), joints, [loop])
    assert refined.after < 0.3 * refined.before
    ends = [(placed[11].translation - truth[11].translation).norm() for placed in (refined.placed, compose(12, joints))]
    assert ends[0] < 0.2 * ends[1]
    assert torch.equal(refined.placed[0].rotation, torch.eye(3))
