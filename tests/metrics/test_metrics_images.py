"""Picture measures against scikit-image, a slow twin and hand-worked values."""

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


def test_masked_psnr_by_hand():
    """Outside of the mask anything may be; an empty mask gives no number."""
    target = torch.zeros(2, 3, 4, 4)
    images, mask = target.clone(), torch.zeros(2, 4, 4, dtype=torch.bool)
    images[0, :, :2], images[0, :, 2:], mask[0, :2] = 0.1, 0.9, True
    got = metrics.masked_psnr(images, target, mask)
    assert got[0].item() == pytest.approx(20.0, abs=1e-4) and got[1].isnan()


def test_masked_ssim_of_a_full_mask_is_that_of_whole_windows(generator):
    target = torch.rand(2, 3, 24, 20, generator=generator)
    images = (target + 0.2 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    full = torch.ones(2, 24, 20, dtype=torch.bool)
    torch.testing.assert_close(metrics.masked_ssim(images, target, full), metrics.ssim(images, target))


def test_masked_ssim_sees_only_the_mask(generator):
    target = torch.rand(1, 3, 24, 20, generator=generator)
    images, mask = target.clone(), torch.zeros(1, 24, 20, dtype=torch.bool)
    mask[:, :12] = True
    images[:, :, 12:] = 0
    assert metrics.masked_ssim(images, target, mask).item() == pytest.approx(1, abs=1e-6)
    images[:, :, 11] = 0
    assert metrics.masked_ssim(images, target, mask).item() < 0.99


def test_masked_ssim_window_by_window(generator):
    """The definition written out for one grey channel: rows first, each sum enlarged by the pixels that are missing."""
    target, images = torch.rand(2, 12, 11, generator=generator).double()
    mask = torch.rand(12, 11, generator=generator) < 0.5
    kernel = torch.exp(-0.5 * (torch.arange(-5, 6).double() / 1.5) ** 2)
    kernel = kernel / kernel.sum()

    def mean(x: torch.Tensor, row: int) -> torch.Tensor:
        sums = [(x[r] * mask[r] * kernel).sum() * 11 / mask[r].sum() if mask[r].any() else 0.0 for r in range(12)]
        kept = [r for r in range(row, row + 11) if mask[r].any()]
        return sum(sums[r] * kernel[r - row] for r in kept) * 11 / len(kept)

    values = []
    for row in range(2):
        x, y, xx, yy, xy = (mean(m, row) for m in (images, target, images**2, target**2, images * target))
        vx, vy = max(xx - x * x, torch.tensor(0.0)), max(yy - y * y, torch.tensor(0.0))
        cov = (xy - x * y).clamp(-((vx * vy) ** 0.5), (vx * vy) ** 0.5)
        values.append((2 * x * y + 1e-4) * (2 * cov + 9e-4) / ((x * x + y * y + 1e-4) * (vx + vy + 9e-4)))
    got = metrics.masked_ssim(*(m.expand(1, 3, 12, 11) for m in (images, target)), mask[None])
    assert got.item() == pytest.approx(sum(values).item() / 2, abs=1e-9)


def test_quantised_is_what_a_file_holds():
    assert metrics.quantised(torch.tensor([-1.0, 0.499 / 255, 0.501 / 255, 2.0])).tolist() == pytest.approx(
        [0, 0, 1 / 255, 1]
    )


def test_iou_by_hand():
    mask, target = torch.zeros(2, 2, 2, dtype=torch.bool), torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[0, 0], target[0, :, 0] = True, True
    got = metrics.iou(mask, target)
    assert got[0].item() == pytest.approx(1 / 3) and got[1].isnan()
