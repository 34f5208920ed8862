"""Merging: what becomes of Gaussians that are one place seen twice, by hand-worked moments."""

import math
from dataclasses import replace

import pytest
import torch

from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.geometry import quaternion_to_matrix
from movies.merging import merge, merge_groups
from movies.rendering import render
from movies.scene import Scene4D

SIZE = (32, 32)
PIXEL = 2.0 / 32  # at distance 2 with a focal length of one picture


def gaussians(means, scales, opacities, quats=None, colors=None) -> Gaussians:
    num = len(means)
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(num, 1) if quats is None else torch.tensor(quats)
    colors = torch.full((num, 3), 0.5) if colors is None else torch.tensor(colors)
    return Gaussians(torch.tensor(means), quats, torch.tensor(scales), torch.tensor(opacities), colors)


def covariance(g: Gaussians) -> torch.Tensor:  # [N, 3, 3]
    rotation = quaternion_to_matrix(g.quats)
    return rotation @ torch.diag_embed(g.scales.square()) @ rotation.transpose(-1, -2)


def scene_of(static: Gaussians, moving: Gaussians | None = None, times=(0.0,)) -> Scene4D:
    moving = Gaussians.empty(len(times)) if moving is None else moving
    views = Cameras(torch.eye(4)[None], torch.tensor([[1.0, 1.0, 0.5, 0.5]]))
    return Scene4D(static, moving, torch.tensor(times), views, torch.zeros(1), SIZE)


def test_two_equal_splats_have_the_moments_worked_by_hand():
    """Half a unit to each side along x: the variance along x grows by 0.25, and nothing else changes."""
    pair = gaussians([[-0.5, 0, 2.0], [0.5, 0, 2.0]], [[0.3, 0.2, 0.1]] * 2, [0.5, 0.5])
    merged = merge_groups(pair, torch.tensor([0, 0]), torch.zeros(2))
    assert torch.allclose(merged.means, torch.tensor([[0.0, 0, 2]]), atol=1e-6)
    assert torch.allclose(covariance(merged)[0], torch.diag(torch.tensor([0.09 + 0.25, 0.04, 0.01])), atol=1e-6)
    # optical thickness times area stays: 2 ln 2 * 0.3 * 0.2 spread over sqrt(0.34) * 0.2
    assert float(merged.opacities) == pytest.approx(1 - math.exp(-2 * math.log(2) * 0.3 / math.sqrt(0.34)))


def test_unequal_splats_are_weighted_by_thickness_and_area():
    """Thickness ln 2 on an area of 1 against ln 4 on 2: masses 1 to 4. A quarter turn puts x in the place of y."""
    half = math.sqrt(0.5)
    pair = gaussians(
        [[0.0, 0, 0], [1.0, 0, 0]],
        [[1.0, 1.0, 0.1], [1.0, 2.0, 0.1]],
        [0.5, 0.75],
        [[1.0, 0, 0, 0], [half, 0, 0, half]],
        [[1.0, 0, 0], [0, 1.0, 0]],
    )
    merged = merge_groups(pair, torch.tensor([0, 0]), torch.zeros(2))
    assert torch.allclose(merged.means, torch.tensor([[0.8, 0, 0]]), atol=1e-6)
    assert torch.allclose(merged.colors, torch.tensor([[0.2, 0.8, 0]]), atol=1e-6)
    x = 0.2 * (1 + 0.8**2) + 0.8 * (4 + 0.2**2)
    assert torch.allclose(covariance(merged)[0], torch.diag(torch.tensor([x, 1.0, 0.01])), atol=1e-5)


def test_splats_on_top_of_each_other_cover_as_both_did():
    pair = gaussians([[0.0, 0, 2.0]] * 2, [[0.3, 0.2, 0.1]] * 2, [0.5, 0.8])
    merged = merge_groups(pair, torch.tensor([0, 0]), torch.full((2,), PIXEL))
    assert float(merged.opacities) == pytest.approx(1 - 0.5 * 0.2)
    assert torch.allclose(covariance(merged), covariance(pair)[:1], atol=1e-6)


def test_groups_of_one_stay_bit_for_bit(generator):
    quats = torch.randn(4, 4, generator=generator).tolist()
    some = gaussians(torch.rand(4, 3, generator=generator).tolist(), [[0.1, 0.2, 0.3]] * 4, [0.3] * 4, quats)
    merged = merge_groups(some, torch.tensor([2, 0, 1, 0]), torch.zeros(4))
    assert len(merged) == 3
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert torch.equal(getattr(merged, name)[[2, 1]], getattr(some, name)[[0, 2]]), name


def test_cells_grow_with_the_distance_and_hold_duplicates_together():
    """Two splats half a pixel of the distance 2 apart: one cell there, but not where a pixel is a twentieth of it."""
    means = [[0.01, 0.01, 2.0], [0.01 + PIXEL / 2, 0.01, 2.0], [0.001, 0.001, 0.1], [0.001 + PIXEL / 2, 0.001, 0.1]]
    scene = scene_of(gaussians(means, [[1e-4] * 3] * 4, [0.5] * 4))
    merged = merge(scene, 2.0, SIZE).static
    assert len(merged) == 3
    assert len(merge(scene, 0.1, SIZE).static) == 4


def test_what_parts_later_is_not_merged():
    together, apart = [[0.0, 0, 2.0], [0.001, 0, 2.0]], [[0.0, 0, 2.0], [1.0, 0, 2.0]]
    for last, num in ((together, 1), (apart, 2)):
        times = [gaussians(m, [[0.01, 0.02, 0.03]] * 2, [0.5] * 2) for m in (together, together, last)]
        scene = scene_of(Gaussians.empty(), Gaussians.stack(times), (0.0, 0.5, 1.0))
        assert merge(scene, 1.0, SIZE).moving.means.shape == (3, num, 3)


def test_axes_keep_their_names_through_time():
    """A pair drifts apart along x, so that its long axis becomes x; between times the ellipsoid must not tumble."""
    gaps = (0.0, 0.02, 0.04)
    times = [gaussians([[0.1 - x, 0, 2.0], [0.1 + x, 0, 2.0]], [[0.01, 0.02, 0.005]] * 2, [0.5] * 2) for x in gaps]
    scene = merge(scene_of(Gaussians.empty(), Gaussians.stack(times), (0.0, 0.5, 1.0)), 2.0, SIZE)
    assert scene.moving.means.shape == (3, 1, 3)
    for k, x in enumerate(gaps):
        wanted = torch.diag(torch.tensor([1e-4 + x * x, 4e-4, 2.5e-5]))
        assert torch.allclose(covariance(scene.moving[k])[0], wanted, atol=1e-7)
    between = covariance(scene.at(0.25))[0]
    assert torch.allclose(between, torch.diag(between.diagonal()), atol=1e-7)
    assert math.sqrt(between[0, 0]) == pytest.approx((0.01 + math.hypot(0.01, 0.02)) / 2, rel=1e-3)


def test_a_wall_seen_twice_looks_as_before(generator):
    """A wall of splats a pixel apart and its copy from another frame, a little off: half are left, 35 dB alike."""
    place = (torch.arange(-16.0, 16) + 0.3) * PIXEL
    y, x = torch.meshgrid(place, place, indexing="ij")
    means = torch.stack([x, y, torch.full_like(x, 2.0)], dim=-1).reshape(-1, 3)
    colors = 0.5 + 0.3 * torch.stack([torch.sin(3 * means[:, 0]), torch.cos(2 * means[:, 1]), means[:, 0]], dim=-1)
    num = len(means)
    quats, scales = torch.tensor([1.0, 0, 0, 0]).repeat(num, 1), torch.full((num, 3), PIXEL / 3)
    sheet = Gaussians(means, quats, scales, torch.full((num,), 0.6), colors)
    copy = replace(sheet, means=means + 0.05 * PIXEL * torch.rand(num, 3, generator=generator))
    scene = scene_of(Gaussians.cat([sheet, copy]))
    merged = merge(scene, 1.0, SIZE)
    before, after = (render(s.at(0.0), s.cameras[0], *SIZE).images for s in (scene, merged))
    assert len(merged) <= 1.05 * num
    assert -10 * math.log10(float((before - after).square().mean())) > 35


def test_merging_wants_cameras():
    scene = scene_of(Gaussians.empty())
    blind = replace(scene, cameras=scene.cameras[:0], view_times=torch.zeros(0))
    with pytest.raises(InputError, match="without cameras cannot be merged"):
        merge(blind, 1.0, SIZE)
