"""Where training starts: from scratch, from VGGT, from another patch size."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from movies.cameras import Cameras
from movies.model.config import ModelConfig
from movies.model.initialise import resize_patch
from movies.model.network import MoVieS
from movies.model.vggt import VGGT

TINY = ModelConfig.preset("tiny")
V = 3


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def inputs(side: int, num_views: int = V) -> tuple[Tensor, Cameras, Tensor, Tensor]:
    """Smooth frames of a sliding camera."""
    images = F.interpolate(torch.rand(num_views, 3, 5, 5), size=(112, 112), mode="bicubic").clamp(0, 1)
    images = F.interpolate(images, size=(side, side), mode="area")[None]
    c2w = torch.eye(4).repeat(1, num_views, 1, 1)
    c2w[..., 0, 3] = torch.linspace(0, 0.3, num_views)
    times = torch.linspace(0, 1, num_views)[None]
    return images, Cameras(c2w, torch.tensor([0.87, 0.87, 0.5, 0.5]).expand(1, num_views, 4)), times, times


def test_tiny_fits_its_budget():
    for model in (MoVieS(TINY), VGGT(TINY)):
        assert sum(p.numel() for p in model.parameters()) <= 7.5e6


@pytest.mark.parametrize("patch_size", [7, 14])
@torch.no_grad()
def test_published_activations_start_at_sensible_splats(patch_size):
    config = TINY.with_patch_size(patch_size)
    images, *rest = inputs(config.image_size)
    splats = MoVieS(config)(images, *rest)
    gaussians = splats.gaussians()[:, 0]
    colors = gaussians.colors.unflatten(1, (V, config.image_size, config.image_size))
    footprint = 2 * math.tan(math.radians(30)) / config.image_size
    assert (colors - images.movedim(2, -1)).abs().mean() < 0.04
    assert abs(gaussians.opacities.mean() - 0.8) < 0.05
    assert abs(gaussians.scales.mean() / footprint - 0.35) < 0.05
    assert gaussians.quats[..., 0].min() > 0.9
    assert splats.depth.min() > 0.3 and splats.depth.max() < 3
    assert torch.all(splats.motion == 0) and not splats.moving.any()
    torch.testing.assert_close(splats.raw_motion_splats, splats.raw_splats[:, None].expand(-1, V, -1, -1, -1, -1))


def test_every_part_learns_within_three_steps():
    model = MoVieS(TINY.with_patch_size(7))
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
    reached = set()
    for _ in range(3):
        splats = model(*inputs(56))
        raw = splats.raw_motion_splats.square().mean() + splats.raw_splats.mean()
        loss = splats.depth.mean() + splats.depth_confidence.mean() + (splats.motion - 0.1).square().mean()
        optimiser.zero_grad()
        (loss + splats.motion_confidence.mean() + raw).backward()
        reached |= {k for k, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        optimiser.step()
    missed = {k for k, _ in model.named_parameters()} - reached
    assert not missed


@torch.no_grad()
def test_vggt_starts_at_the_first_camera_with_points_one_unit_ahead():
    prediction = VGGT(TINY)(inputs(112)[0])
    assert prediction.cameras.c2w.sub(torch.eye(4)).abs().max() < 0.1
    assert (prediction.cameras.fov().mean() - math.radians(60)).abs() < 0.05
    assert (prediction.points.mean((0, 1, 2, 3)) - torch.tensor([0.0, 0.0, 1.0])).abs().max() < 0.1


def test_from_vggt_brings_its_parts_and_no_motion():
    vggt = VGGT(TINY)
    with torch.no_grad():
        for parameter in vggt.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model = MoVieS.from_vggt(vggt)
    assert torch.equal(model.encoder.blocks[0].attn.qkv.weight, vggt.aggregator.patch_embed.blocks[0].attn.qkv.weight)
    assert torch.equal(model.backbone.global_blocks[3].mlp.fc1.weight, vggt.aggregator.global_blocks[3].mlp.fc1.weight)
    assert torch.equal(model.depth_head.scratch.output_conv2[2].bias, vggt.depth_head.scratch.output_conv2[2].bias)
    assert torch.equal(model.motion_head.projects[1].weight, vggt.point_head.projects[1].weight)
    splats = model(*inputs(112))
    assert torch.all(splats.motion == 0)
    assert torch.all(model.condition(inputs(112)[1], inputs(112)[2], 112, 112)[0] == 0)


def test_rays_come_alive_from_vggts_start():
    """Only one of two factors is zero: its gradient is not, and after one step the other's is not either."""
    model = MoVieS.from_vggt(VGGT(TINY))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(*inputs(112)).depth.square().mean().backward()
    assert model.plucker_ln.weight.grad.abs().max() > 0
    optimiser.step()
    optimiser.zero_grad()
    model(*inputs(112)).depth.square().mean().backward()
    assert model.plucker_embed.net.weight.grad.abs().max() > 0


@torch.no_grad()
def test_another_patch_size_barely_changes_features_of_smooth_images():
    small = MoVieS(TINY.with_patch_size(7)).eval()
    large = resize_patch(small, 14)
    assert large.config == TINY and not large.training
    images, cameras, times, targets = inputs(112)
    half = F.avg_pool2d(images[0], 2)[None]
    before, after = small.encode(half, cameras, times), large.encode(images, cameras, times)
    for a, b in zip(before.levels, after.levels, strict=True):
        assert (a - b).norm() / a.norm() < 0.05
    depth = F.interpolate(small.decode(before, targets).depth, scale_factor=2.0, mode="bilinear")
    assert (large.decode(after, targets).depth - depth).abs().mean() < 0.02


def test_resized_patches_keep_the_size_of_splats_in_pixels():
    small = MoVieS(TINY.with_patch_size(7)).eval()
    large = resize_patch(small, 14)
    images, cameras, times, targets = inputs(112)
    half = F.avg_pool2d(images[0], 2)[None]
    with torch.no_grad():
        before = small(half, cameras, times, targets).gaussians().scales.mean()
        after = large(images, cameras, times, targets).gaussians().scales.mean()
    # half of the world's size for twice the pixels; softplus bends a little at raw scales of 4
    torch.testing.assert_close(after / before, torch.tensor(0.5), atol=0.03, rtol=0)


def test_vggt_from_movies_is_the_way_back():
    vggt = VGGT(TINY)
    there_and_back = VGGT.from_movies(MoVieS.from_vggt(vggt)).state_dict()
    for name, value in vggt.state_dict().items():
        if name.startswith(("aggregator.", "depth_head.")):
            assert torch.equal(there_and_back[name], value), name
