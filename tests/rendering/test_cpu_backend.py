"""The CPU rasteriser against the float64 twin, and against numbers worked out by hand."""

import math
import multiprocessing
import threading

import pytest
import torch
from scenes import NAMES, agree_with_twin, camera, cloud, leaves, moved_cameras, single

from movies.cameras import Cameras
from movies.gaussians import Gaussians
from movies.rendering import render


def test_one_gaussian_worked_out_by_hand():
    # f = 32 px, z = 2, scale 0.1: 1.6 px on the picture, variance 2.56 + 0.3 = 2.86 px^2. The centre (16, 16) lies
    # between pixels: the four around it are (0.5, 0.5) away.
    view = Cameras(torch.eye(4), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    seen = render(single(), view, 32, 32, torch.tensor([0.0, 0.0, 1.0]))
    alpha = 0.6 * math.exp(-0.5 * (0.25 + 0.25) / 2.86)
    torch.testing.assert_close(seen.alphas[0, 15:17, 15:17], torch.full((2, 2), alpha))
    torch.testing.assert_close(seen.images[:, 16, 16], torch.tensor([alpha, 0.0, 1 - alpha]))
    torch.testing.assert_close(seen.depths[0, 16, 16], torch.tensor(2.0))
    further = 0.6 * math.exp(-0.5 * (3.5**2 + 0.25) / 2.86)
    torch.testing.assert_close(seen.alphas[0, 16, 19], torch.tensor(further))
    assert seen.alphas[0, 16, 22] == 0, "6.5 px away alpha is 0.0003, under 1/255"


def test_elongated_gaussian_follows_its_rotation():
    # A quarter turn about z puts the long x axis along y.
    half = math.sqrt(0.5)
    scales = torch.tensor([[0.4, 0.05, 0.05]])
    view = Cameras(torch.eye(4), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    flat = render(single(scales=scales), view, 32, 32)
    upright = render(single(scales=scales, quats=torch.tensor([[half, 0.0, 0.0, half]])), view, 32, 32)
    torch.testing.assert_close(upright.alphas, flat.alphas.mT)
    assert flat.alphas[0, 16, 24] > 0.1 > flat.alphas[0, 24, 16]


@pytest.mark.parametrize("seed", range(3))
def test_random_scene_agrees_with_the_twin(seed):
    agree_with_twin(cloud(150, seed), camera(), 40, 37)


# Needles of 1:30; at 1:1000 the second moments over dx, dy cancel in float32 (as in gsplat): 0.5 % of a gradient.
@pytest.mark.parametrize(("sigma", "spread"), [(0.001, 0.3), (0.6, 0.5), (0.05, 1.0)])
def test_tiny_large_and_needle_like_gaussians_agree_with_the_twin(sigma, spread):
    agree_with_twin(cloud(60, 5, sigma=sigma, spread=spread), camera(), 33, 50)


def test_opaque_layers_agree_with_the_twin():
    # 200 opaque Gaussians before each other: pixels finish early, and alphas are clamped to 0.999.
    g = cloud(200, 7, sigma=0.3, spread=0.2)
    opaque = Gaussians(g.means * torch.tensor([0.3, 0.3, 1.0]), g.quats, g.scales, 0.9 + 0.1 * g.opacities, g.colors)
    agree_with_twin(opaque, camera(), 32, 32)


def test_gaussians_near_the_camera_and_far_beside_the_view_agree_with_the_twin():
    # Beside the view the Jacobian's x/z and y/z are held at a limit, which changes the gradient too.
    g = cloud(120, 11, sigma=0.4)
    close = g.means * torch.tensor([1.5, 1.5, 0.35])
    agree_with_twin(Gaussians(close, g.quats, g.scales, g.opacities, g.colors), camera(), 30, 34)


def test_turned_camera_agrees_with_the_twin():
    agree_with_twin(cloud(100, 3), moved_cameras(3)[2], 32, 48)


def test_near_and_far_are_inclusive_and_behind_is_never_seen():
    depths = torch.tensor([0.0009, 0.0011, 99.9, 100.1, -2.0])
    for z, shown in zip(depths, (False, True, True, False, False), strict=True):
        means = torch.tensor([[0.0, 0.0, 1.0]]) * z
        seen = render(single(means=means, scales=torch.full((1, 3), 0.1) * z.abs()), camera(), 16, 16)
        assert bool(seen.alphas.max() > 0) == shown, f"z = {z}"


def test_equal_depths_are_drawn_in_the_order_given():
    pair = Gaussians.cat([single(opacities=torch.tensor([0.9])), single(colors=torch.tensor([[0.0, 1.0, 0.0]]))])
    view = Cameras(torch.eye(4), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    red, green, _ = render(pair, view, 32, 32).images[:, 16, 16]
    assert red > 8 * green


def test_two_runs_give_the_same_bits():
    runs = []
    for _ in range(2):
        g = leaves(cloud(3000, 1, sigma=0.03))
        seen = render(g, moved_cameras(3), 70, 45)
        (seen.images.square().sum() + seen.depths.sum()).backward()
        runs.append([seen.images, seen.alphas, seen.depths, *(getattr(g, name).grad for name in NAMES)])
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


def test_long_lists_are_sorted_as_short_ones():
    # 150 Gaussians before one pixel take the radix sort; the nearest is opaque and must come first.
    num, order = 150, torch.randperm(150, generator=torch.Generator().manual_seed(2))
    z = 1 + torch.arange(num)[order] / 100
    g = single().select(torch.zeros(num, dtype=torch.long))
    means = torch.stack([torch.zeros(num), torch.zeros(num), z], dim=-1)
    g = Gaussians(means, g.quats, g.scales * z[:, None], torch.full((num,), 0.05), torch.rand(num, 3))
    agree_with_twin(g, Cameras(torch.eye(4), torch.tensor([1.0, 1.0, 0.5, 0.5])), 20, 20)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gaussians_that_are_not_finite_are_left_out(name, value):
    good = cloud(20, 4)
    bad = cloud(2, 9)
    getattr(bad, name)[:] = value
    mixed = leaves(Gaussians.cat([bad, good]))
    seen = render(mixed, camera(), 24, 24)
    torch.testing.assert_close(seen.images, render(good, camera(), 24, 24).images)
    seen.images.sum().backward()
    for key in NAMES:
        grad = getattr(mixed, key).grad
        assert torch.isfinite(grad).all()
        assert (grad[:2] == 0).all()


def test_a_quaternion_of_zeros_is_left_out():
    assert render(single(quats=torch.zeros(1, 4)), camera(), 16, 16).alphas.max() == 0


def test_many_pictures_at_once_are_those_of_one_at_a_time(monkeypatch):
    from movies.rendering import cpu_backend

    g, cameras = cloud(50, 2), moved_cameras(5)
    together = leaves(g)
    render(together, cameras, 20, 20).images.square().sum().backward()
    monkeypatch.setattr(cpu_backend, "SPLATS_AT_ONCE", 100)  # runs of two pictures
    apart = leaves(g)
    render(apart, cameras, 20, 20).images.square().sum().backward()
    for name in NAMES:
        torch.testing.assert_close(getattr(apart, name).grad, getattr(together, name).grad)


def test_threads_may_render_at_once():
    g, want, got = cloud(100, 1), render(cloud(100, 1), camera(), 32, 32).images, []
    threads = [threading.Thread(target=lambda: got.append(render(g, camera(), 32, 32).images)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert all(torch.equal(image, want) for image in got)


def _render_in_child(queue):
    torch.set_num_threads(1)  # as DataLoader does in its workers: a forked OpenMP team never wakes
    queue.put(float(render(cloud(100, 1), camera(), 32, 32).images.sum()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_may_render_too():
    # DataLoader workers are forked from a process that may have rendered before.
    want = float(render(cloud(100, 1), camera(), 32, 32).images.sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_render_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == want
    child.join(timeout=60)
    assert child.exitcode == 0
