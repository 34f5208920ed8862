"""Camera measures by hand, and the trajectory error against the alignment itself."""

import math

import pytest
import torch

from movies import metrics
from movies.alignment import umeyama
from movies.errors import InputError
from movies.geometry import quaternion_to_matrix, rigid


def test_camera_errors_by_hand():
    target = torch.eye(4).repeat(2, 1, 1)
    target[:, :3, 3] = torch.tensor([1.0, 0.0, 0.0])
    c2w = target.clone()
    angle = math.radians(30)
    c2w[1, :2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    c2w[1, :3, 3] = torch.tensor([0.0, 2.0, 0.0])
    torch.testing.assert_close(metrics.rotation_error(c2w, target), torch.tensor([0.0, 30.0]))
    torch.testing.assert_close(metrics.translation_error(c2w, target), torch.tensor([0.0, 5**0.5]))
    torch.testing.assert_close(metrics.translation_angle(c2w, target), torch.tensor([0.0, 90.0]))


def trajectory(generator, num: int = 6) -> torch.Tensor:  # [num, 4, 4] float64
    quats = torch.randn(num, 4, generator=generator, dtype=torch.float64)
    return rigid(quaternion_to_matrix(quats), torch.randn(num, 3, generator=generator, dtype=torch.float64))


def moved(c2w: torch.Tensor, generator, scale: float = 3.0) -> torch.Tensor:
    """The same cameras in a world of another origin, turn and unit."""
    turn = rigid(*(x[0] for x in (trajectory(generator, 1)[:, :3, :3], trajectory(generator, 1)[:, :3, 3])))
    other = c2w.clone()
    other[:, :3, 3] *= scale
    return turn @ other


def test_trajectories_do_not_depend_on_the_world(generator):
    c2w = trajectory(generator)
    other = moved(c2w, generator)
    assert metrics.trajectory_error(other, c2w).item() == pytest.approx(0, abs=1e-6)
    error = metrics.relative_pose_error(other, c2w)
    assert error.translation.item() == pytest.approx(0, abs=1e-6)
    assert error.rotation.item() == pytest.approx(0, abs=1e-5)


def test_trajectory_error_equals_aligning_first(generator):
    c2w, target = trajectory(generator), trajectory(generator)
    fit = umeyama(c2w[:, :3, 3], target[:, :3, 3])
    left = (fit(c2w[:, :3, 3]) - target[:, :3, 3]).square().sum(dim=-1).mean().sqrt()
    assert metrics.trajectory_error(c2w, target).item() == pytest.approx(left.item(), rel=1e-9)


def test_a_mirrored_trajectory_is_not_a_perfect_one(generator):
    c2w = trajectory(generator)
    mirrored = c2w.clone()
    mirrored[:, 0, 3] *= -1
    assert metrics.trajectory_error(mirrored, c2w) > 0.1


def test_trajectory_errors_by_hand():
    """A camera drives straight on, 1 a frame; the prediction does so at half the scale, and turns 10 degrees once."""
    target = torch.eye(4).repeat(5, 1, 1)
    target[:, 2, 3] = torch.arange(5.0)
    c2w, turn = target.clone(), math.radians(10)
    c2w[:, 2, 3] /= 2
    c2w[3:, :2, :2] = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    assert metrics.trajectory_error(c2w, target).item() == pytest.approx(0, abs=1e-6)
    error = metrics.relative_pose_error(c2w, target)
    assert error.translation.item() == pytest.approx(0, abs=1e-6)
    assert error.rotation.item() == pytest.approx((10**2 / 4) ** 0.5, rel=1e-5)
    # centres -2 -1 0 1 2 against -2 -1 0 1 2 with 0.5 aside at both ends: the scale shrinks, the offsets remain
    target[0, 0, 3] = target[4, 0, 3] = 0.5
    variance, true_variance, shared = 0.5, 2 + 0.06, 1.0  # of the prediction, of the truth, and between them
    assert metrics.trajectory_error(c2w, target).item() == pytest.approx((true_variance - shared**2 / variance) ** 0.5)


def test_trajectory_refusals():
    c2w = torch.eye(4).repeat(3, 1, 1)
    with pytest.raises(InputError, match="all stand in one place"):
        metrics.trajectory_error(c2w, c2w)
    with pytest.raises(InputError, match="at least 3 cameras, got 2"):
        metrics.trajectory_error(c2w[:2], c2w[:2])
