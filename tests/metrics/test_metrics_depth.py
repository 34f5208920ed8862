"""Depth measures by hand, and the fit before them against a search."""

import pytest
import torch

from movies import metrics
from movies.errors import InputError


def test_depth_measures_by_hand():
    target = torch.tensor([[[1.0, 2.0, float("nan")]], [[0.0, 0.0, 0.0]]])
    depth = torch.tensor([[[1.5, 2.0, 1.0]], [[1.0, 1.0, 1.0]]])
    mask = torch.tensor([[[True, True, False]], [[False] * 3]])
    assert metrics.absrel(depth, target, mask)[0].item() == pytest.approx(0.25)
    assert metrics.delta(depth, target, mask)[0].item() == pytest.approx(0.5)
    assert metrics.absrel(depth, target, mask)[1].isnan() and metrics.delta(depth, target, mask)[1].isnan()


def test_square_measures_by_hand():
    target, depth = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 4.0]])
    mask = torch.ones_like(target, dtype=torch.bool)
    assert metrics.square_relative(depth, target, mask).item() == pytest.approx((1 + 2) / 2)
    assert metrics.root_mean_square(depth, target, mask).item() == pytest.approx(2.5**0.5)
    assert metrics.root_mean_square(depth.log(), target.log(), mask).item() == pytest.approx(0.693147, abs=1e-6)


def test_depth_fits_are_not_bent_by_outliers(generator):
    """Forty per cent of the pixels are far off: the mean absolute difference is still least at the true numbers."""
    depth = torch.rand(2, 10, 10, generator=generator) + 1
    target = 3 * depth + 0.5
    target[:, :4] += 20
    mask = torch.ones_like(depth, dtype=torch.bool)
    scale, shift = metrics.fit_scale_shift(depth, target, mask, with_shift=True)
    assert scale.item() == pytest.approx(3, abs=1e-3) and shift.item() == pytest.approx(0.5, abs=1e-3)
    target = 3 * depth
    target[:, :4] += 20
    scale, shift = metrics.fit_scale_shift(depth, target, mask, with_shift=False)
    assert scale.item() == pytest.approx(3, abs=1e-4) and shift.item() == 0


def test_depth_fit_equals_a_search(generator):
    optimize = pytest.importorskip("scipy.optimize")
    depth, noise = torch.rand(300, generator=generator) + 1, torch.randn(300, generator=generator)
    target, mask = 2 * depth + noise.abs(), torch.ones(300, dtype=torch.bool)
    scale, shift = metrics.fit_scale_shift(depth, target, mask, with_shift=True)

    def cost(x) -> float:
        return (x[0] * depth + x[1] - target).abs().mean().item()

    best = optimize.minimize(cost, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).fun
    assert cost([scale, shift]) <= best * (1 + 1e-3)


def test_depth_fit_refusals():
    depth, mask = torch.ones(3), torch.zeros(3, dtype=torch.bool)
    with pytest.raises(InputError, match="at least one valid pixel"):
        metrics.fit_scale_shift(depth, depth, mask, with_shift=False)
    with pytest.raises(InputError, match="needs finite depth"):
        metrics.fit_scale_shift(depth * torch.nan, depth, ~mask, with_shift=False)


def step(column: int) -> torch.Tensor:  # [1, 40, 48]
    """A near wall before a far one, its edge at a column."""
    depth = torch.full((1, 40, 48), 4.0)
    depth[..., :column] = 1.0
    return depth


def test_boundary_error_is_how_far_an_edge_is_off():
    """An edge is two pixels wide, one on each side; the nearer one lies `off` - 1 from the true ones."""
    pytest.importorskip("skimage", reason="scikit-image is an extra")
    for off in (0, 3, 7):
        accuracy, completeness = metrics.boundary_error(step(20 + off), step(20))
        assert accuracy.item() == completeness.item() == max(off - 0.5, 0)


def test_boundary_error_without_edges():
    pytest.importorskip("skimage", reason="scikit-image is an extra")
    flat = torch.ones(1, 40, 48)
    accuracy, completeness = metrics.boundary_error(flat, step(20))
    assert accuracy.item() == 10 and completeness.item() == pytest.approx((40**2 + 48**2) ** 0.5)
    assert metrics.boundary_error(step(20), flat)[0].isnan()
    assert metrics.boundary_error(step(35), step(20))[0].item() == 10  # nothing within ten pixels


def test_boundary_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.feature", None)
    with pytest.raises(InputError, match=r"scikit-image: pip install 'movies\[evaluate\]'"):
        metrics.boundary_error(step(20), step(20))
