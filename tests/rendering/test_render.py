"""render: dims, backgrounds, empty scenes, errors; and gsplat against the CPU rasteriser where there is a GPU."""

import subprocess
import sys

import pytest
import torch
from scenes import NAMES, camera, cloud, leaves, moved_cameras

from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.rendering import render


def test_one_scene_from_many_cameras():
    g, cameras = cloud(60, 0), moved_cameras(3)
    seen = render(g, cameras, 20, 24)
    assert seen.images.shape == (3, 3, 20, 24)
    assert seen.alphas.shape == seen.depths.shape == (3, 1, 20, 24)
    for k in range(3):
        assert torch.equal(seen.images[k], render(g, cameras[k], 20, 24).images)


def test_each_scene_from_its_own_camera():
    g, cameras = cloud(60, 0, 3), moved_cameras(3)
    seen = render(g, cameras, 20, 24)
    assert seen.images.shape == (3, 3, 20, 24)
    for k in range(3):
        assert torch.equal(seen.depths[k], render(g[k], cameras[k], 20, 24).depths)


def test_each_scene_from_many_cameras_with_gradients():
    g, cameras = leaves(cloud(40, 0, 2, 2)), moved_cameras(12).reshape(2, 2, 3)
    seen = render(g, cameras, 20, 24)
    assert seen.images.shape == (2, 2, 3, 3, 20, 24)
    seen.images.square().sum().backward()
    one = leaves(g[1, 0])
    render(one, cameras[1, 0], 20, 24).images.square().sum().backward()
    for name in NAMES:
        torch.testing.assert_close(getattr(g, name).grad[1, 0], getattr(one, name).grad, rtol=1e-4, atol=1e-4)


def test_a_picture_is_opaque_over_its_background():
    g, back = cloud(60, 0), torch.rand(2, 3)
    black, over = render(g, moved_cameras(2), 20, 24), render(g, moved_cameras(2), 20, 24, back)
    torch.testing.assert_close(over.images, black.images + (1 - black.alphas) * back[..., None, None])
    one = render(g, moved_cameras(2), 20, 24, back[0])
    torch.testing.assert_close(one.images[0], over.images[0])


def test_the_background_receives_a_gradient():
    back = torch.zeros(3, requires_grad=True)
    seen = render(cloud(60, 0), camera(), 20, 24, back)
    seen.images.sum().backward()
    torch.testing.assert_close(back.grad, (1 - seen.alphas).sum().expand(3))


def test_an_empty_scene_is_the_background():
    g = leaves(Gaussians.empty(2))
    seen = render(g, moved_cameras(2), 8, 9, torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(seen.images, torch.tensor([0.1, 0.2, 0.3])[:, None, None].expand(2, 3, 8, 9))
    assert (seen.alphas == 0).all()
    assert (seen.depths == 0).all()
    (seen.images.sum() + seen.depths.sum()).backward()
    assert g.means.grad.shape == (2, 0, 3)


def test_no_cameras_give_no_pictures():
    assert render(cloud(5, 0), camera(0), 8, 9).images.shape == (0, 3, 8, 9)


def test_half_precision_is_rasterised_in_float32():
    g = cloud(30, 0)
    seen = render(g.map(lambda x: x.bfloat16()), camera(), 16, 16)
    assert seen.images.dtype == torch.float32
    assert torch.equal(seen.images, render(g.map(lambda x: x.bfloat16().float()), camera(), 16, 16).images)


def test_gradients_reach_a_scene_seen_in_part_only():
    # One tensor alone asks for a gradient; the loss reads the alphas alone.
    g = cloud(30, 0)
    opacities = g.opacities.clone().requires_grad_()
    render(Gaussians(g.means, g.quats, g.scales, opacities, g.colors), camera(), 16, 16).alphas.sum().backward()
    assert opacities.grad.abs().sum() > 0


@pytest.mark.parametrize("lead", [(3,), (2, 2, 2), ()])
def test_cameras_of_other_dims_are_refused(lead):
    with pytest.raises(InputError, match=r"must have leading dims \[2\] or \[2, C\]"):
        render(cloud(5, 0, 2), camera(*lead), 8, 8)


@pytest.mark.parametrize(("height", "width"), [(0, 8), (8, 0), (-1, 8)])
def test_pictures_without_pixels_are_refused(height, width):
    with pytest.raises(InputError, match="at least one pixel"):
        render(cloud(5, 0), camera(), height, width)


def test_pictures_wider_than_the_tables_are_refused():
    with pytest.raises(InputError, match="at most 32767 pixels"):
        render(cloud(5, 0), camera(), 1, 40000, backend="cpu")


def test_an_unknown_backend_is_refused():
    with pytest.raises(InputError, match="unknown backend 'cuda', choose one of auto, gsplat, cpu"):
        render(cloud(5, 0), camera(), 8, 8, backend="cuda")


def test_gsplat_is_refused_on_cpu_tensors_with_the_mend():
    with pytest.raises(InputError, match=r'needs tensors on CUDA, got cpu: move them with .to\("cuda"\) or use "cpu"'):
        render(cloud(5, 0), camera(), 8, 8, backend="gsplat")


def test_cpu_is_refused_on_other_devices():
    g, cameras = cloud(5, 0).to("meta"), camera().to("meta")
    with pytest.raises(InputError, match='backend "cpu" needs tensors on the CPU, got meta'):
        render(g, cameras, 8, 8, backend="cpu")


def test_two_devices_are_refused():
    with pytest.raises(InputError, match="the Gaussians are on meta but the cameras on cpu"):
        render(cloud(5, 0).to("meta"), camera(), 8, 8)


def test_backgrounds_of_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"`background` must have shape \[3\] or \[2, 3\], got \[4\]"):
        render(cloud(5, 0), camera(2), 8, 8, torch.zeros(4))


def test_importing_render_brings_neither_numba_nor_gsplat():
    code = "import sys, movies.rendering; sys.exit(any(name in sys.modules for name in ('numba', 'gsplat')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: gsplat needs one")
@pytest.mark.parametrize(("sigma", "lead"), [(0.05, ()), (0.6, ()), (0.05, (2,))])
def test_gsplat_and_the_cpu_rasteriser_agree(sigma, lead):
    # gsplat's exp is CUDA's fast one (2 ulp), so a few pixels may fall on the other side of a threshold: 1/255 there.
    cameras = moved_cameras(4).reshape(*lead, 4 // max(1, len(lead) * 2))
    on_cpu, on_gpu = leaves(cloud(300, 0, *lead, sigma=sigma)), leaves(cloud(300, 0, *lead, sigma=sigma).to("cuda"))
    slow = render(on_cpu, cameras, 45, 60, torch.ones(3))
    fast = render(on_gpu, cameras.to("cuda"), 45, 60, torch.ones(3, device="cuda"))
    for name in ("images", "alphas", "depths"):
        error = (getattr(fast, name).cpu() - getattr(slow, name)).abs()
        assert error.flatten().kthvalue(int(0.999 * error.numel())).values < 1e-3, name
    for seen in (slow, fast):
        (seen.images.square().mean() + seen.alphas.mean()).backward()
    for name in NAMES:
        want, got = getattr(on_cpu, name).grad, getattr(on_gpu, name).grad.cpu()
        assert (got - want).norm() < 1e-2 * want.norm(), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: gsplat needs one")
def test_gsplat_leaves_out_what_is_not_finite_and_renders_nothing_as_background():
    bad = cloud(5, 0).to("cuda")
    bad.means[:] = float("nan")
    for g in (bad, Gaussians.empty(device=torch.device("cuda"))):
        g = leaves(g)
        seen = render(g, Cameras(camera().c2w.cuda(), camera().fxfycxcy.cuda()), 8, 8, torch.ones(3, device="cuda"))
        assert (seen.images == 1).all()
        seen.images.sum().backward()
        assert torch.isfinite(g.means.grad).all()
