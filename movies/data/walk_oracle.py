"""In the networks' place on a Walk: true depth and cameras, with the errors that are asked for.

What is measured with it is how chunks are joined, whatever network reads them. It stands for the clip's frames too, so
that it knows which frame an image is.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from movies.cameras import Cameras
from movies.data.synthetic_walk import Walk
from movies.geometry import quaternion_to_matrix, rigid
from movies.splats import NUM_ATTRIBUTES, DynamicSplats

REMEMBERED = 64  # frames
SPLAT = 0.35  # standard deviation of a splat in pixels' widths
OPEN, SHUT = 2.5, -10.0  # raw opacities


@dataclass(frozen=True)
class Errors:
    """Standard deviations, but for the share of outliers; each chunk draws its own."""

    scale: float = 0.15  # of the log of a chunk's unit
    turn: float = 0.002  # radians, from frame to frame
    way: float = 0.02  # of the steps from frame to frame, relative
    depth: float = 0.02  # relative, each pixel
    outliers: float = 0.0  # share of the pixels whose depth is anything from a fifth to five times


@dataclass(frozen=True)
class Seen:
    """What the camera network would say."""

    depth: Tensor  # [1, V, H, W]
    cameras: Cameras  # [1, V]


@dataclass(frozen=True)
class _Frame:
    position: int
    depth: Tensor  # [H, W]
    moving: Tensor  # [H, W] bool


class WalkOracle:
    """Frames of a walk, and networks that know them (`movies.long_video.frames.Frames`, `run.Networks`)."""

    def __init__(self, walk: Walk, errors: Errors, given_cameras: bool = False) -> None:
        self.walk, self.errors, self.name = walk, errors, walk.name
        self.cameras = walk.cameras if given_cameras else Cameras(torch.zeros(0, 4, 4), torch.zeros(0, 4))
        self._frames: OrderedDict[bytes, _Frame] = OrderedDict()

    def __len__(self) -> int:
        return len(self.walk)

    def thumbnails(self) -> Tensor:
        return self.walk.thumbnails()

    def stream(self, positions: list[int]) -> Iterator[Tensor]:
        left = iter(positions)
        for part in self.walk.rendered(positions):
            for image, depth, moving in zip(part.images, part.depth, part.moving, strict=True):
                self._frames[_key(image)] = _Frame(next(left), depth, moving)
                while len(self._frames) > REMEMBERED:
                    self._frames.popitem(last=False)
                yield image

    def known(self, images: Tensor) -> list[_Frame]:  # [V, 3, H, W]
        return [self._frames[_key(image)] for image in images]

    def look(self, images: Tensor) -> Seen:  # [1, V, 3, H, W]
        """Cameras and depth with errors; the first camera is the identity, the unit the chunk's own."""
        frames, errors = self.known(images[0]), self.errors
        generator = torch.Generator().manual_seed(1000 * self.walk.seed + frames[0].position)
        unit = float((errors.scale * torch.randn((), generator=generator)).exp().clamp(0.6, 1.25))
        times = self.walk.times([f.position for f in frames])
        true = self.walk.cameras_at(times)
        true = true.relative_to(true[:1])
        count = len(frames)
        turns = torch.cat([torch.ones(count, 1), errors.turn / 2 * torch.randn(count, 3, generator=generator)], dim=1)
        steps = torch.linalg.inv(true.c2w[:-1]) @ true.c2w[1:]  # [V - 1, 4, 4]
        steps[:, :3, :3] = steps[:, :3, :3] @ quaternion_to_matrix(turns[1:])
        steps[:, :3, 3] *= unit * (1 + errors.way * torch.randn(count - 1, 1, generator=generator))
        c2w = [torch.eye(4)]
        for step in steps:
            c2w.append(c2w[-1] @ step)
        depth = torch.stack([f.depth for f in frames])
        wrong = (errors.depth * torch.randn(depth.shape, generator=generator)).exp()
        wild = torch.rand(depth.shape, generator=generator) < errors.outliers
        wrong = torch.where(wild, 5 ** (2 * torch.rand(depth.shape, generator=generator) - 1), wrong)
        cameras = Cameras(rigid(torch.stack(c2w)[:, :3, :3], torch.stack(c2w)[:, :3, 3]), true.fxfycxcy)
        return Seen((unit * wrong * depth)[None], cameras.reshape(1, count))

    def splatter(self, config) -> "Splatter":
        """The other network, which takes its depth from the first; `config` is any ModelConfig."""
        return Splatter(self, config)


class Splatter(nn.Module):
    """Splats at the oracle's depth in the frames' colours. What moves is shown at its own frame's time only."""

    def __init__(self, oracle: WalkOracle, config) -> None:
        super().__init__()
        self.oracle, self.config, self.place = oracle, config, nn.Parameter(torch.zeros(()))

    def encode(self, images: Tensor, cameras: Cameras, times: Tensor) -> tuple:
        return images, cameras, times

    def decode(self, tokens: tuple, times: Tensor) -> DynamicSplats:
        images, cameras, view_times = tokens
        seen, frames = self.oracle.look(images), self.oracle.known(images[0])
        # With given cameras the world is another: theirs, times the unit that was found.
        reach, own = (c.centers[0].norm(dim=-1).amax() for c in (cameras, seen.cameras))
        depth = seen.depth * (reach / own if own > 0 else 1.0)
        moving = torch.stack([f.moving for f in frames])[None, None]  # [1, 1, V, H, W]
        dense = (1, times.shape[1], *depth.shape[1:])
        scales = SPLAT * depth / (cameras.fxfycxcy[0, 0, 0] * depth.shape[-1])
        raw = torch.zeros(*depth.shape, NUM_ATTRIBUTES)
        raw[..., :3] = images.movedim(2, -1).clamp(0.01, 0.99).logit() / 2
        raw[..., 3:6] = (scales / 0.001 + (-torch.expm1(-scales / 0.001)).log())[..., None]  # softplus undone
        raw[..., 6], raw[..., 10] = 1.0, OPEN
        at_times = raw[:, None].expand(*dense, NUM_ATTRIBUTES).clone()
        own_time = (times[0, :, None] - view_times[0]).abs() < 1e-6  # [T, V]
        at_times[..., 10] = torch.where(own_time[None, :, :, None, None], OPEN, SHUT)
        return DynamicSplats(
            depth=depth,
            depth_confidence=1 + torch.rand(depth.shape, generator=torch.Generator().manual_seed(frames[0].position)),
            motion=torch.zeros(*dense, 3),
            motion_confidence=torch.ones(dense),
            moving=moving.expand(dense),
            raw_splats=raw,
            raw_motion_splats=at_times,
            cameras=cameras,
            view_times=view_times,
            times=times,
        )


def _key(image: Tensor) -> bytes:  # [3, H, W]
    return image.numpy().tobytes()
