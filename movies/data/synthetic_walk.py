"""A walk of any length through a synthetic world: frames rendered when they are asked for, with the truth beside."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.cameras import Cameras
from movies.data.synthetic_layout import draw_walk
from movies.data.synthetic_render import Rendered, render_worlds
from movies.data.synthetic_worlds import Motion, World
from movies.geometry import look_at
from movies.video import THUMBNAIL_SIZE

STEP = 0.03  # way from frame to frame, where points lie at mean distance 1 or so
SPACING, BEFORE, BEHIND = 0.5, 6.0, 1.0  # of the solids along the way; those far off are not rendered
SWAY = 40  # frames of one swing of the solids that move, and of the head
FIELD = math.radians(60)
TURNS = 1.25  # of a loop, so that its last quarter sees the first again
AT_ONCE = 8  # frames rendered together


@dataclass(frozen=True)
class Walk:
    """A camera that walks down a hall past things that stand or sway, or round a `loop` and on over its beginning."""

    seed: int
    num_frames: int
    image_size: tuple[int, int] = (56, 56)
    loop: bool = False

    def __len__(self) -> int:
        return self.num_frames

    @property
    def name(self) -> str:
        return f"walk-{self.seed}-{self.num_frames}" + ("-loop" if self.loop else "")

    @property
    def length(self) -> float:
        return STEP * (self.num_frames - 1)

    @property
    def radius(self) -> float:
        return self.length / (2 * math.pi * TURNS)

    @cached_property
    def world(self) -> World:
        rng = Random(self.seed)
        count = max(2, round((self.length + 2) / SPACING))
        ways = [SPACING * (k + 0.5) for k in range(count)]
        sides = [(-1) ** k * rng.uniform(0.28, 0.48) for k in range(count)]
        if self.loop:
            places = [self._on_loop(way / self.radius, side) for way, side in zip(ways, sides, strict=True)]
            room = [self.radius + 1.2, 0.4, self.radius + 1.2]
        else:
            half = 0.5 * self.length + 1.5
            places = [[side, way - half + 1.0] for way, side in zip(ways, sides, strict=True)]
            room = [0.62, 0.4, half]
        return draw_walk(self.seed, room, places, self.num_frames / SWAY)

    def _on_loop(self, angle: float, side: float) -> list[float]:
        return [(self.radius + side) * math.cos(angle), (self.radius + side) * math.sin(angle)]

    def times(self, positions: list[int]) -> Tensor:  # [F]
        return torch.tensor(positions, dtype=torch.float64).div(max(self.num_frames - 1, 1)).float()

    @property
    def cameras(self) -> Cameras:  # [N]
        return self.cameras_at(self.times(list(range(self.num_frames))))

    def cameras_at(self, times: Tensor, aside: float = 0.0) -> Cameras:  # [F] -> Cameras [F], moved to the right
        time = times.double()
        swing = 2 * math.pi * time * self.num_frames / SWAY
        head, drift = 0.2 * torch.sin(swing / 2), 0.08 * torch.sin(swing / 3) + aside
        bob = 0.02 * torch.sin(swing) - 0.05
        if self.loop:
            angle = time * self.length / self.radius
            out = torch.stack([angle.cos(), torch.zeros_like(angle), angle.sin()], dim=-1)
            ahead = torch.stack([-angle.sin(), torch.zeros_like(angle), angle.cos()], dim=-1)
            eye = (self.radius - drift)[:, None] * out
            right = -out
        else:
            zero = torch.zeros_like(time)
            eye = torch.stack([drift, zero, self.length * (time - 0.5)], dim=-1)
            ahead, right = eye.new_tensor([0.0, 0.0, 1.0]), eye.new_tensor([1.0, 0.0, 0.0])
        down = eye.new_tensor([0.0, 1.0, 0.0])
        eye = eye + bob[:, None] * down
        height, width = self.image_size
        focal = 0.5 / math.tan(FIELD / 2)
        lens = torch.tensor([focal, focal * width / height, 0.5, 0.5]).expand(len(time), 4).clone()
        target = eye + ahead * head.cos()[:, None] + right * head.sin()[:, None] + 0.1 * down
        return Cameras(look_at(eye, target, down).float(), lens)

    @torch.no_grad()
    def render(self, cameras: Cameras, times: Tensor) -> Rendered:  # [F], [F] close to each other
        near = self._near(cameras.centers)
        return render_worlds(near, torch.zeros(len(times), dtype=torch.long), cameras, times, *self.image_size)

    def _near(self, centers: Tensor) -> World:  # [F, 3]
        """The world without the solids that are far from these cameras."""
        if self.loop:
            return self.world
        z = self.world.motion.anchor[0, :, 2]
        kept = ((z > centers[:, 2].min() - BEHIND) & (z < centers[:, 2].max() + BEFORE)).nonzero()[:, 0]
        count = int((kept < self.world.num_quadrics).sum())
        motion = Motion(*(getattr(self.world.motion, f.name)[:, kept] for f in fields(Motion)))
        rows = torch.cat([kept, torch.arange(self.world.num_solids, self.world.materials.shape[1])])
        parts = {name: getattr(self.world, name)[:, kept] for name in ("exists", "roundness", "z_range")}
        return replace(self.world, num_quadrics=count, motion=motion, materials=self.world.materials[:, rows], **parts)

    def rendered(self, positions: list[int]) -> Iterator[Rendered]:
        """The frames at these positions, AT_ONCE together."""
        for first in range(0, len(positions), AT_ONCE):
            times = self.times(positions[first : first + AT_ONCE])
            yield self.render(self.cameras_at(times), times)

    def stream(self, positions: list[int]) -> Iterator[Tensor]:  # -> [3, H, W] each
        for part in self.rendered(positions):
            yield from part.images

    def thumbnails(self) -> Tensor:  # [N, 36, 64]
        parts = self.rendered(list(range(self.num_frames)))
        grey = (part.images.mean(dim=1, keepdim=True) for part in parts)
        return torch.cat([F.interpolate(x, THUMBNAIL_SIZE, mode="area")[:, 0] for x in grey])
