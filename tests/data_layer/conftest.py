"""A sequence small enough to reason about: a textured plane seen by a camera that moves sideways."""

from dataclasses import dataclass

import pytest
import torch

from movies.cameras import Cameras
from movies.clip import Tracks, Views
from movies.geometry import pixel_rays, transform_points


@dataclass(frozen=True)
class PlaneSequence:
    """A plane at z = 2 in the world; frame i stands at x = 0.1 i and turns by i `turn` degrees."""

    name: str = "plane"
    num_frames: int = 12
    is_static: bool = True
    size: int = 14
    turn: float = 0.0
    valid: bool = True

    def read(self, indices):
        index = torch.tensor(list(indices))
        number, size = len(index), self.size
        c2w = torch.eye(4).repeat(number, 1, 1)
        c2w[:, 0, 3] = 0.1 * index
        angle = torch.deg2rad(index * self.turn)
        c2w[:, 0, 0] = c2w[:, 2, 2] = angle.cos()
        c2w[:, 0, 2], c2w[:, 2, 0] = angle.sin(), -angle.sin()
        cameras = Cameras(c2w, torch.tensor([1.0, 1.0, 0.5, 0.5]).expand(number, 4))
        rays = pixel_rays(cameras.fxfycxcy, size, size)
        world_rays = rays @ c2w[:, None, :3, :3].transpose(-1, -2)
        depth = 2.0 / world_rays[..., 2].clamp(min=0.05)
        points = transform_points(c2w, (rays * depth[..., None]).flatten(1, 2)).unflatten(1, (size, size))
        images = 0.5 + 0.4 * torch.sin(3 * points).movedim(-1, 1)
        mask = torch.full_like(depth, self.valid, dtype=torch.bool)
        views = Views(images, cameras, index / (self.num_frames - 1), depth, mask)
        grid = torch.stack([torch.linspace(-0.5, 1.5, 6), torch.zeros(6), torch.full((6,), 2.0)], dim=-1)
        return views, Tracks(grid.expand(number, 6, 3).clone(), torch.ones(number, 6, dtype=torch.bool))


@pytest.fixture
def plane():
    return PlaneSequence
