"""A small scene with everything in it: a textured wall, clouds of ellipsoids, some of them moving and turning."""

import math

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.gaussians import Gaussians
from movies.geometry import look_at
from movies.scene import Scene4D

SIZE = 112
TIMES = (0.0, 0.4, 1.0)  # not even, so that interpolation is seen


def build_scene(num_static: int = 16_000, num_moving: int = 4_000, num_views: int = 3) -> Scene4D:
    generator = torch.Generator().manual_seed(6)
    wall = _wall(num_static // 2)
    cloud = _cloud(num_static - num_static // 2, generator)
    return Scene4D(
        Gaussians.cat([wall, cloud]),
        _swarm(num_moving, torch.tensor(TIMES), generator),
        torch.tensor(TIMES),
        _cameras(num_views),
        torch.linspace(0, 1, num_views),
        (SIZE, SIZE),
    )


def _wall(num: int) -> Gaussians:
    """A chequered wall of flat splats, as a reconstruction has them."""
    side = math.isqrt(num)
    y, x = torch.meshgrid(torch.linspace(-2, 2, side), torch.linspace(-2, 2, side), indexing="ij")
    means = torch.stack([x, y, 3 + 0.2 * torch.sin(3 * x)], dim=-1).reshape(-1, 3)
    chequer = ((4 * x).floor() + (4 * y).floor()).remainder(2).reshape(-1, 1)
    colors = 0.15 + 0.7 * torch.cat([chequer, 1 - chequer, (means[:, :1] + 2) / 4], dim=1)
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(means), 4)
    scales = torch.tensor([2.4 / side, 2.4 / side, 0.004]).expand(len(means), 3)
    return Gaussians(means, quats.clone(), scales.clone(), torch.full((len(means),), 0.95), colors)


def _cloud(num: int, generator: torch.Generator) -> Gaussians:
    means = torch.randn(num, 3, generator=generator) * torch.tensor([0.8, 0.6, 0.5]) + torch.tensor([-0.2, 0.1, 2.2])
    return Gaussians(
        means,
        torch.randn(num, 4, generator=generator),
        0.004 + 0.02 * torch.rand(num, 3, generator=generator) ** 3,
        torch.rand(num, generator=generator),
        torch.rand(num, 3, generator=generator),
    )


def _swarm(num: int, times: Tensor, generator: torch.Generator) -> Gaussians:  # -> [T, M]
    """A bright cluster that crosses the picture, turning and fading."""
    start = _cloud(num, generator)
    means = 0.3 * (start.means - start.means.mean(dim=0)) + torch.tensor([-0.6, -0.3, 1.5])
    shift = times[:, None, None] * torch.tensor([1.2, 0.5, 0.1])
    turn = torch.cat([torch.ones(len(times), 1), times[:, None].expand(-1, 3)], dim=1)
    return Gaussians(
        means + shift,
        start.quats + 0.3 * turn[:, None],
        start.scales.expand(len(times), -1, -1) * (1 + 0.3 * times[:, None, None]),
        start.opacities.expand(len(times), -1) * (1 - 0.4 * times[:, None]),
        (0.4 + 0.6 * start.colors).expand(len(times), -1, -1),
    )


def _cameras(num: int) -> Cameras:
    """Off the axes and with an off-centre lens, so that no sign or transpose can hide."""
    x = torch.linspace(0.15, -0.3, num)
    eyes = torch.stack([x, 0.1 - 0.5 * x, torch.full((num,), -0.1)], dim=-1)
    target, down = torch.tensor([0.0, 0.1, 2.0]).expand(num, 3), torch.tensor([0.08, 1.0, 0.0]).expand(num, 3)
    return Cameras(look_at(eyes, target, down), torch.tensor([0.95, 0.9, 0.52, 0.47]).expand(num, 4).clone())
