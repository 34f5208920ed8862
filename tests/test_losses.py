"""Losses against values recorded from the reference implementation, and against hand-worked ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from movies import losses

GOLDEN = load_file(Path(__file__).parent / "data" / "golden_losses.safetensors")
DEPTH = [GOLDEN[f"in/depth/{name}"] for name in ("pred", "gt", "mask", "conf")]
MOTION = [GOLDEN[f"in/motion/{name}"] for name in ("pred", "gt", "conf")]


@pytest.mark.parametrize(("weight", "name"), [(1.0, "alpha0/mask"), (0.0, "nograd/mask")])
def test_depth_loss_equals_the_reference(weight, name):
    depth, target, mask, _ = DEPTH
    assert_close(losses.depth_loss(depth, target, mask.bool(), weight), GOLDEN[f"out/depth/{name}"])


def test_depth_loss_without_mask_equals_the_reference():
    depth, target, mask, _ = DEPTH
    got = losses.depth_loss(depth, target, torch.ones_like(mask).bool())
    assert_close(got, GOLDEN["out/depth/alpha0/nomask"])


@pytest.mark.parametrize("scales", [1, 4])
def test_gradient_loss_equals_the_reference_with_confidences_of_one(scales):
    depth, target, mask, _ = DEPTH
    error = (depth - target) * mask
    got = losses.gradient_loss(error, mask.bool(), torch.ones_like(depth), scales)
    assert_close(got, GOLDEN[f"out/grad/scales{scales}/conf_ones"])
    assert_close(got, 2 * GOLDEN[f"out/grad/scales{scales}/noconf"])  # the published factor 2


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_confident_depth_loss_equals_the_reference_but_for_the_mended_gradient(alpha):
    depth, target, mask, confidence = DEPTH
    got = losses.confident_depth_loss(depth, target, mask.bool(), confidence, alpha, gradient_weight=0.0)
    name = f"out/depth/alpha{'0' if alpha == 0 else alpha}/mask_conf"
    assert_close(got, GOLDEN[name] - GOLDEN["out/grad/scales4/conf"], tolerance=1e-5)  # a difference of two float32


def test_gradient_loss_counts_confidence_per_pixel():
    error = torch.zeros(1, 1, 2, 4)
    error[..., 3] = 1.0  # one vertical edge between columns 2 and 3
    weight = torch.ones_like(error)
    weight[..., :2] = 9.0  # away from the edge: must not matter
    mask = torch.ones_like(error).bool()
    assert losses.gradient_loss(error, mask, weight, 1).item() == pytest.approx(2 / 8)
    weight[..., 2:] = 5.0
    assert losses.gradient_loss(error, mask, weight, 1).item() == pytest.approx(5 * 2 / 8)


def test_motion_loss_equals_the_reference():
    motion, target, confidence = MOTION
    assert_close(losses.motion_loss(motion, target, 0.0), GOLDEN["out/motion/nodist/noconf"])
    assert_close(losses.motion_loss(motion, target), GOLDEN["out/motion/alpha0/noconf"])
    every = torch.ones(1, len(motion), dtype=torch.bool)
    for alpha, name in ((0.0, "alpha0"), (0.2, "alpha0.2")):
        got = losses.confident_motion_loss(motion[None], target[None], every, confidence[None], alpha)
        assert_close(got[0], GOLDEN[f"out/motion/{name}/conf"])


def test_motion_loss_of_no_points_is_zero_and_keeps_the_graph():
    motion = torch.zeros(0, 3, requires_grad=True)
    loss = losses.motion_loss(motion, torch.zeros(0, 3))
    loss.backward()
    assert loss.item() == 0 and motion.grad.shape == (0, 3)


def test_sampled_pairs_come_from_valid_points_and_repeat_with_the_seed():
    torch.manual_seed(0)
    motion, target = torch.randn(2, 500, 3), torch.randn(2, 500, 3)
    mask = torch.rand(2, 500) < 0.3
    target[~mask] = float("nan")

    def run(seed):
        return losses.masked_motion_loss(motion, target, mask, 10.0, 100, torch.Generator().manual_seed(seed))

    assert run(1).isfinite().all() and torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    few = losses.masked_motion_loss(motion, target, mask, 10.0, 300)  # more than are valid: all of them
    one = [losses.motion_loss(motion[b][mask[b]], target[b][mask[b]]) for b in range(2)]
    assert_close(few, torch.stack(one))


def test_squared_motion_loss_by_hand():
    target = torch.tensor([[[0.15, 0.0, 0.0], [0.0, 0.0, 0.0], [float("nan")] * 3]])
    mask = torch.tensor([[True, True, False]])
    motion = torch.zeros(1, 3, 3, requires_grad=True)
    loss = losses.squared_motion_loss(motion, target, mask)
    assert loss.item() == pytest.approx(1.0 + 0.3 * 0.5)
    loss.sum().backward()
    assert motion.grad.isfinite().all() and motion.grad[0, 0, 0] < 0


def test_log_depth_loss_ignores_a_nan_outside_the_mask():
    depth = torch.full((1, 1, 4, 4), 2.0, requires_grad=True)
    target = torch.full((1, 1, 4, 4), 1.0)
    target[0, 0, 0, 0] = float("nan")
    mask = target == 1.0
    loss = losses.log_depth_loss(depth, target, mask)
    assert loss.item() == pytest.approx(0.693147, rel=1e-5)
    loss.sum().backward()
    assert depth.grad.isfinite().all()


def test_point_loss_is_relative_to_the_distance():
    target = torch.tensor([[[[[0.0, 0, 2.0], [0, 0, 4.0]]]]])
    got = losses.point_loss(target * 1.1, target, torch.ones(1, 1, 1, 2, dtype=torch.bool))
    assert got.item() == pytest.approx(0.1, rel=1e-5)


def test_camera_loss_takes_either_quaternion_and_weighs_the_last_iteration_most():
    target = torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 1, 1]).expand(1, 2, 9)
    flipped = target.clone()
    flipped[..., 3:7] *= -1
    assert losses.camera_loss(flipped[None], target).item() == 0
    wrong = target + torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0, 0])
    first, last = torch.stack([wrong, target]), torch.stack([target, wrong])
    assert losses.camera_loss(first, target).item() == pytest.approx(0.6 / 1.6)
    assert losses.camera_loss(last, target).item() == pytest.approx(1 / 1.6)


def assert_close(got, want, tolerance=1e-6):
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def test_squared_camera_loss_counts_in_usual_sizes():
    target = torch.zeros(1, 2, 9)
    target[..., 6] = 1
    moved = target.clone()
    moved[:, 1, 0] = 0.1  # one usual translation in one of two views
    moved[:, 1, 7] = 0.2  # and one usual field of view
    assert losses.squared_camera_loss(moved[None], target).item() == pytest.approx(1.0)
    flipped = target * torch.tensor([1.0, 1, 1, -1, -1, -1, -1, 1, 1])
    assert losses.squared_camera_loss(flipped[None], target).item() == 0
