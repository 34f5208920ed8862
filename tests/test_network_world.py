"""The network's world of an unposed clip; that of given cameras is in test_reconstruct.py."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from movies.camera_refinement import NOT_REFINED
from movies.cameras import Cameras
from movies.clip import Clip, Tracks, Views
from movies.geometry import unproject
from movies.network_world import network_world


def unposed() -> Clip:
    cameras = Cameras(torch.eye(4).repeat(2, 1, 1), torch.tensor([1.0, 1.0, 0.5, 0.5]).repeat(2, 1))
    blank = torch.zeros(2, 8, 8)
    views = Views(torch.rand(2, 3, 8, 8), cameras, torch.tensor([0.0, 1.0]), blank, blank.bool())
    return Clip(views, Tracks.empty(2), 2, has_cameras=False)


def prediction(unit: float) -> SimpleNamespace:
    """What VGGT might say: a plane of points at mean distance near `unit`, from two cameras `unit / 10` apart."""
    c2w = torch.eye(4).repeat(1, 2, 1, 1)
    c2w[0, 1, 0, 3] = 0.1 * unit
    cameras = Cameras(c2w, torch.tensor([1.0, 1.0, 0.5, 0.5]).repeat(1, 2, 1))
    return SimpleNamespace(cameras=cameras, depth=torch.full((1, 2, 8, 8), 0.95 * unit))


@pytest.mark.parametrize("unit", [0.1, 20.0])
def test_a_unit_far_from_the_trained_one_is_normalised(unit):
    world = network_world(unposed(), prediction(unit), torch.device("cpu"), refine=False)
    points = unproject(world.depth, world.cameras.fxfycxcy, world.cameras.c2w)
    assert points.norm(dim=-1).mean() == pytest.approx(1, rel=1e-3)
    assert float(world.cameras.centers[1, 0] / world.depth.mean()) == pytest.approx(0.1 / 0.95, rel=1e-4)
    assert world.scale == 1 and torch.equal(world.transform, torch.eye(4))


def test_a_unit_near_the_trained_one_is_kept():
    world = network_world(unposed(), prediction(1.3), torch.device("cpu"), refine=False)
    assert float(world.cameras.centers[1, 0]) == pytest.approx(0.13)


def test_estimated_cameras_alone_are_refined():
    clip, found = unposed(), prediction(1.0)
    flat = replace(clip, views=replace(clip.views, images=torch.full_like(clip.views.images, 0.5)))
    world = network_world(flat, found, torch.device("cpu"))
    assert "nothing to align" in world.refinement.said
    posed = replace(clip, views=replace(clip.views, cameras=found.cameras[0]), has_cameras=True)
    assert network_world(posed, None, torch.device("cpu")).refinement is NOT_REFINED
