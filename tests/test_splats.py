"""Gaussians and DynamicSplats: order, masking, activation, and the way into a scene."""

import pytest
import torch

from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.splats import DynamicSplats, activate


def random_splats(generator, batch=2, times=3, views=2, height=3, width=4) -> DynamicSplats:
    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    motion = 0.01 * normal(batch, times, views, height, width, 3)
    return DynamicSplats(
        depth=normal(batch, views, height, width).exp(),
        depth_confidence=torch.full((batch, views, height, width), 2.0),
        motion=motion,
        motion_confidence=torch.full((batch, times, views, height, width), 2.0),
        moving=motion.norm(dim=-1) >= 0.018,
        raw_splats=normal(batch, views, height, width, 11),
        raw_motion_splats=normal(batch, times, views, height, width, 11),
        cameras=Cameras(torch.eye(4).expand(batch, views, 4, 4), torch.ones(batch, views, 4)),
        view_times=torch.linspace(0, 1, views).expand(batch, views),
        times=torch.linspace(0, 1, times).expand(batch, times),
    )


def test_activation_by_hand():
    raw = torch.zeros(11)
    raw[6], raw[7] = 0.0, 2.0  # quaternion (0, 2, 0, 0)
    raw[10] = 1.0
    quats, scales, opacities, colors = activate(raw)
    assert quats.tolist() == [0, 1, 0, 0]
    torch.testing.assert_close(scales, torch.full((3,), 0.001 * torch.log(torch.tensor(2.0)).item()))
    assert opacities == 0.5 and colors.tolist() == [0.5] * 3
    assert activate(torch.full((11,), 1e4))[1].max() == pytest.approx(0.3)


def test_gaussians_are_in_view_row_column_order(generator):
    splats = random_splats(generator)
    means = splats.gaussians().means.unflatten(2, (2, 3, 4))
    torch.testing.assert_close(means[1, 2], splats.points()[1] + splats.motion[1, 2])


def test_moving_pixels_take_their_own_attributes_and_nan_does_not_leak(generator):
    splats = random_splats(generator)
    assert splats.moving.any() and not splats.moving.all()
    splats.raw_motion_splats[~splats.moving] = float("nan")
    gaussians = splats.gaussians()
    assert gaussians.colors.isfinite().all()
    static = activate(splats.raw_splats)[3][:, None].expand(-1, 3, -1, -1, -1, -1).flatten(2, 4)
    moving = splats.moving.flatten(2)
    torch.testing.assert_close(gaussians.colors[~moving], static[~moving])
    assert not torch.equal(gaussians.colors[moving], static[moving])


def test_scene_stores_static_gaussians_once(generator):
    splats = random_splats(generator)
    scene = splats.to_scene(index=1, opacity_threshold=0.0)
    moving = splats.moving[1].flatten(1).any(dim=0)
    assert len(scene.static) == (~moving).sum() and scene.moving.means.shape == (3, int(moving.sum()), 3)
    torch.testing.assert_close(scene.moving.means, splats.gaussians()[1].select(moving).means)
    assert len(scene.static) + len(scene.moving) == 24
    assert len(splats.to_scene(1, opacity_threshold=1.0).static) == 0


def test_gaussians_select_cat_and_shapes(generator):
    gaussians = random_splats(generator).gaussians()
    assert gaussians.shape == (2, 3) and len(gaussians) == 24
    assert len(Gaussians.cat([gaussians, gaussians.select(torch.arange(5))])) == 29
    assert len(Gaussians.empty(2, 3)) == 0 and Gaussians.empty(2, 3).shape == (2, 3)
    assert gaussians[0, 1].means.shape == (24, 3)
    with pytest.raises(InputError, match="`quats`"):
        Gaussians(torch.zeros(4, 3), torch.zeros(3, 4), torch.zeros(4, 3), torch.zeros(4), torch.zeros(4, 3))


def test_splats_refuse_wrong_shapes(generator):
    splats = random_splats(generator)
    with pytest.raises(InputError, match="`motion_confidence`"):
        DynamicSplats(**{**vars(splats), "motion_confidence": splats.motion_confidence[..., 1:]})
