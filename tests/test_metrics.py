"""Measures against scikit-image and hand-worked values."""

import math

import pytest
import torch

from movies import metrics


def test_ssim_equals_scikit_image(generator):
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is a development dependency")
    target = torch.rand(2, 3, 32, 27, generator=generator)
    images = (target + 0.2 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    for got, x, y in zip(metrics.ssim(images, target), images, target, strict=True):
        want = skimage.structural_similarity(x.double().numpy(), y.double().numpy(), channel_axis=0, **options)
        assert got.item() == pytest.approx(want, abs=2e-6)  # float32 against float64


def test_ssim_of_equal_images_is_one_and_has_gradients(generator):
    images = torch.rand(1, 3, 16, 16, generator=generator, requires_grad=True)
    assert metrics.ssim(images, images.detach()).item() == pytest.approx(1.0)
    metrics.ssim(images, torch.zeros_like(images)).sum().backward()
    assert images.grad.isfinite().all()


def test_psnr_by_hand():
    target = torch.zeros(2, 3, 4, 4)
    images = target.clone()
    images[1] = 0.1
    got = metrics.psnr(images, target)
    assert got[0].item() == math.inf and got[1].item() == pytest.approx(20.0, abs=1e-4)


def test_depth_measures_by_hand():
    target = torch.tensor([[[1.0, 2.0, float("nan")]], [[0.0, 0.0, 0.0]]])
    depth = torch.tensor([[[1.5, 2.0, 1.0]], [[1.0, 1.0, 1.0]]])
    mask = torch.tensor([[[True, True, False]], [[False] * 3]])
    assert metrics.absrel(depth, target, mask)[0].item() == pytest.approx(0.25)
    assert metrics.delta(depth, target, mask)[0].item() == pytest.approx(0.5)
    assert metrics.absrel(depth, target, mask)[1].isnan() and metrics.delta(depth, target, mask)[1].isnan()


def test_endpoint_error_by_hand():
    motion, target = torch.zeros(1, 2, 3), torch.tensor([[[3.0, 4.0, 0.0], [9.0, 9.0, 9.0]]])
    assert metrics.endpoint_error(motion, target, torch.tensor([[True, False]])).item() == pytest.approx(5.0)


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
