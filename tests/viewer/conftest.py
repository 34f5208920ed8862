"""A scene as the viewer is given it: a chequered wall that stands and a ball that crosses it, with tracks."""

import numpy as np
import pytest
import torch

from movies.cameras import Cameras
from movies.gaussians import Gaussians
from movies.geometry import look_at
from movies.scene import Scene4D

TIMES = (0.0, 0.5, 1.0)


def _splats(means: torch.Tensor, scale: float, colors: torch.Tensor) -> Gaussians:  # [N, 3], [N, 3]
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(means), 1)
    return Gaussians(means, quats, torch.full_like(means, scale), torch.full((len(means),), 0.9), colors)


def _wall() -> Gaussians:
    y, x = torch.meshgrid(torch.linspace(-2, 2, 60), torch.linspace(-2, 2, 60), indexing="ij")
    chequer = ((1.5 * x).floor() + (1.5 * y).floor()).remainder(2).reshape(-1, 1)
    colors = 0.2 + 0.6 * torch.cat([chequer, 1 - chequer, (x.reshape(-1, 1) + 2) / 4], dim=1)
    return _splats(torch.stack([x, y, torch.full_like(x, 3.0)], dim=-1).reshape(-1, 3), 0.04, colors)


def _ball() -> Gaussians:  # -> [T, M]
    generator = torch.Generator().manual_seed(0)
    means = 0.15 * torch.randn(300, 3, generator=generator) + torch.tensor([-0.6, 0.2, 2.0])
    ball = _splats(means, 0.04, torch.tensor([0.9, 0.8, 0.1]).repeat(300, 1))
    shift = torch.tensor(TIMES)[:, None, None] * torch.tensor([1.2, 0.0, 0.0])
    return Gaussians(ball.means + shift, *(x.expand(3, *x.shape) for x in list(vars(ball).values())[1:]))


@pytest.fixture(scope="session")
def scene() -> Scene4D:
    """Input cameras off the axes with square pixels and a central lens, as viser's are."""
    eyes = torch.tensor([[-0.3, 0.1, -0.1], [0.0, 0.0, 0.0], [0.3, -0.2, 0.1]])
    c2w = look_at(eyes, torch.tensor([0.0, 0.0, 2.5]).expand(3, 3), torch.tensor([0.1, 1.0, 0.0]).expand(3, 3))
    lens = torch.tensor([0.9, 0.9, 0.5, 0.5]).repeat(3, 1)
    return Scene4D(_wall(), _ball(), torch.tensor(TIMES), Cameras(c2w, lens), torch.tensor(TIMES), (64, 64))


@pytest.fixture
def stored(scene, tmp_path):
    """The scene's file, with a tracks.npz of 40 points beside it, a quarter of which move."""
    scene.save(tmp_path / "scene.safetensors")
    start = torch.cat([scene.moving.means[0, :10], scene.static.means[:30]])
    moved = start + torch.tensor(TIMES)[:, None, None] * torch.tensor([1.2, 0.0, 0.0])
    moved[:, 10:] = start[10:]
    np.savez(tmp_path / "tracks.npz", points=moved.numpy(), times=np.float32(TIMES))
    return tmp_path / "scene.safetensors"
