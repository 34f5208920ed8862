"""Scenes of the rendering tests, and the comparison with the twin."""

import torch
from torch import Tensor
from twin import render_twin

from movies.cameras import Cameras
from movies.gaussians import Gaussians
from movies.rendering import render

NAMES = ("means", "quats", "scales", "opacities", "colors")


def camera(*lead: int) -> Cameras:
    """Cameras at the origin, looking along z, a little off centre and not square."""
    c2w, fxfycxcy = torch.eye(4), torch.tensor([1.1, 0.9, 0.45, 0.55])
    return Cameras(c2w.expand(*lead, 4, 4).clone(), fxfycxcy.expand(*lead, 4).clone())


def moved_cameras(count: int) -> Cameras:  # [C]
    """Cameras side by side, each turned a little about the y axis."""
    cameras = camera(count)
    for k in range(count):
        angle = torch.tensor(0.15 * k)
        turn = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
        cameras.c2w[k, :3, :3], cameras.c2w[k, 0, 3] = turn, -0.2 * k
    return cameras


def cloud(num: int, seed: int, *lead: int, sigma: float = 0.05, spread: float = 0.8) -> Gaussians:
    """Random Gaussians in front of the camera; some are beside the view and some behind it."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(*lead, num, 3, generator=generator) * torch.tensor([1.2, 1.2, 1.0])
    return Gaussians(
        means=means + torch.tensor([0.0, 0.0, 2.5]),
        quats=torch.randn(*lead, num, 4, generator=generator),
        scales=sigma * torch.exp(spread * torch.randn(*lead, num, 3, generator=generator)),
        opacities=torch.rand(*lead, num, generator=generator),
        colors=torch.rand(*lead, num, 3, generator=generator),
    )


def single(**changes) -> Gaussians:
    """One round red Gaussian [1] at z = 2."""
    values = {
        "means": torch.tensor([[0.0, 0.0, 2.0]]),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        "scales": torch.full((1, 3), 0.1),
        "opacities": torch.tensor([0.6]),
        "colors": torch.tensor([[1.0, 0.0, 0.0]]),
    }
    return Gaussians(**values | changes)


def leaves(gaussians: Gaussians) -> Gaussians:
    return gaussians.map(lambda x: x.detach().clone().requires_grad_())


def agree_with_twin(gaussians: Gaussians, view: Cameras, height: int, width: int) -> None:
    """Assert that pictures and all gradients of the CPU rasteriser are the twin's.

    1e-4 is a fortieth of what an 8-bit picture can show and some 100 times what float32 costs here. The depth is
    compared relatively to its largest value, and where at least 1 % is covered: below, it divides by an alpha that
    has only the last few bits of 1 - T.
    """
    background = torch.tensor([0.2, 0.5, 0.7])
    fast_leaves, slow_leaves = leaves(gaussians), leaves(gaussians.map(lambda x: x.double()))
    fast = render(fast_leaves, view, height, width, background, backend="cpu")
    slow = render_twin(slow_leaves, view, height, width, background)
    assert slow.sure.float().mean() > 0.97, "too many pixels near a threshold: choose another seed"
    covered = slow.sure & (slow.alpha[0] > 0.01)
    _assert_close("images", fast.images, slow.image, slow.sure, 1e-4)
    _assert_close("alphas", fast.alphas, slow.alpha, slow.sure, 1e-4)
    _assert_close("depths", fast.depths, slow.depth, covered, 1e-4)
    weights = torch.rand(5, height, width, generator=torch.Generator().manual_seed(0)) - 0.3
    weights[:4] *= slow.sure
    weights[4] *= covered
    for rendering in ((fast.images, fast.alphas, fast.depths), (slow.image, slow.alpha, slow.depth)):
        (torch.cat(rendering) * weights).sum().backward()
    for name in NAMES:
        got, want = getattr(fast_leaves, name).grad, getattr(slow_leaves, name).grad
        error, largest = (got - want).abs().max(), want.abs().max()
        # Gradients that vanish by symmetry (the quaternion of a ball) are rounding on both sides.
        assert error <= 1e-3 * largest.clamp(min=1e-3), f"{name}: off by {error:.3g} where the largest is {largest:.3g}"


def _assert_close(name: str, got: Tensor, want: Tensor, mask: Tensor, tolerance: float) -> None:
    error = ((got - want).abs() * mask).max()
    assert error <= tolerance * want.abs().max().clamp(min=1), f"{name} off by {error:.3g}"
