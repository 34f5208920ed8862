"""Self-consistency: true geometry comes back to its pixel, wrong geometry does not."""

import math
from dataclasses import replace

import pytest
import torch

from movies.cameras import Cameras
from movies.consistency import depth_agreement, parallax, reprojection
from movies.data.synthetic import SyntheticSequence
from movies.splats import NUM_ATTRIBUTES, DynamicSplats


@pytest.fixture(scope="module")
def true_splats() -> DynamicSplats:
    """The true depth of a world where nothing moves, seen by four cameras."""
    views, _ = SyntheticSequence(3, (56, 56), 9, is_static=True).read([0, 2, 4, 6])
    depth = torch.where(views.depth_mask, views.depth, 30.0)[None]
    dense = (1, 4, *depth.shape[1:])
    raw = torch.zeros(*depth.shape, NUM_ATTRIBUTES)
    return DynamicSplats(
        depth, torch.ones_like(depth), torch.zeros(*dense, 3), torch.ones(dense), torch.zeros(dense, dtype=torch.bool),
        raw, raw[:, None].expand(*dense, NUM_ATTRIBUTES), views.cameras.reshape(1, 4), views.times[None],
        views.times[None],
    )  # fmt: skip


def test_true_depth_returns_to_its_pixels(true_splats):
    found = reprojection(true_splats)
    assert found.error.shape == (4,) and (found.error < 0.1).all()
    assert (found.within > 0.85).all() and (found.overlap > 0.3).all()


def test_wrong_depth_does_not_return(true_splats):
    wrong = replace(true_splats, depth=true_splats.depth * torch.tensor([1.0, 1.4, 0.7, 1.2])[None, :, None, None])
    assert (reprojection(wrong).error > 5 * reprojection(true_splats).error.clamp(min=0.05)).all()


def test_motion_is_followed(true_splats):
    """The whole world runs ahead with the cameras: with its motion known, every pixel returns as before."""
    c2w = true_splats.cameras.c2w.clone()
    way = true_splats.times[0, :, None] * c2w[0, 0, :3, 2]  # [T, 3] along the first camera's axis
    c2w[0, :, :3, 3] += way
    motion = torch.zeros_like(true_splats.motion)
    motion[0] = (way[:, None] - way[None])[:, :, None, None]  # [T, V, 1, 1, 3]
    cameras = Cameras(c2w, true_splats.cameras.fxfycxcy)
    moved = replace(true_splats, cameras=cameras, motion=motion)
    torch.testing.assert_close(reprojection(moved).error, reprojection(true_splats).error, atol=1e-2, rtol=0)
    assert (reprojection(replace(moved, motion=0 * motion)).error > 0.2).all()


def test_views_that_share_nothing(true_splats):
    turned = true_splats.cameras.c2w.clone()
    turned[0, 1::2, :3, :3] = turned[0, 1::2, :3, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    found = reprojection(replace(true_splats, cameras=Cameras(turned, true_splats.cameras.fxfycxcy)))
    assert (found.overlap < 0.2).all()


def test_depths_agree_up_to_a_factor(generator):
    depth = torch.rand(2, 8, 8, generator=generator) + 1
    assert depth_agreement(depth, 1.5 * depth) == (pytest.approx(1.5), pytest.approx(1.0))
    _, spread = depth_agreement(depth, depth * torch.exp(0.3 * torch.randn(2, 8, 8, generator=generator)))
    assert 1.1 < spread < 1.4
    assert math.isnan(depth_agreement(depth, torch.full_like(depth, torch.nan))[0])


def test_parallax_is_the_cameras_way_over_the_depth():
    c2w = torch.eye(4).repeat(3, 1, 1)
    c2w[:, 0, 3] = torch.tensor([0.0, 0.3, 0.1])
    assert parallax(Cameras(c2w, torch.ones(3, 4)), torch.full((3, 4, 4), 2.0)) == pytest.approx(0.15)
