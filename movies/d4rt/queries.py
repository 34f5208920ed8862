"""Queries and their answers, and the tokens that they are asked of.

A query q = (u, v, source, target, camera) asks: the point seen at (u, v) of frame `source`, where is it at the time of
frame `target`, in the camera of frame `camera`? (u, v) are normalised image positions (x, y) in [0, 1]; times are
frame numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.errors import InputError
from movies.shapes import check_shape

PARTS = (3, 2, 1, 3, 3, 1)  # position, image position, visibility, displacement, normal, confidence
OUTPUTS = sum(PARTS)


@dataclass(frozen=True)
class Queries:
    """N queries of each of B videos."""

    uv: Tensor  # [B, N, 2] in [0, 1]
    source: Tensor  # [B, N] int64 frame whose (u, v) is meant
    target: Tensor  # [B, N] int64 frame at whose time the point is asked for
    camera: Tensor  # [B, N] int64 frame in whose camera the answer is given

    def __post_init__(self) -> None:
        check_shape("uv", self.uv, (None, None, 2))
        for name in ("source", "target", "camera"):
            check_shape(name, getattr(self, name), tuple(self.uv.shape[:2]))

    def __len__(self) -> int:
        """The number of queries N of each video."""
        return self.uv.shape[1]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Queries":
        return Queries(*(function(getattr(self, name)) for name in ("uv", "source", "target", "camera")))

    def __getitem__(self, index) -> "Queries":
        """The queries at `index` along N."""
        return self.map(lambda tensor: tensor[:, index])

    def to(self, device: torch.device | str) -> "Queries":
        return self.map(lambda tensor: tensor.to(device))

    @staticmethod
    def of(uv: Tensor, source: int | Tensor, target: int | Tensor, camera: int | Tensor) -> "Queries":
        """Queries [1, N] of one video: positions [N, 2] with frame numbers that broadcast to [N]."""
        times = (
            torch.as_tensor(t, dtype=torch.long, device=uv.device).expand(len(uv)) for t in (source, target, camera)
        )
        return Queries(uv[None], *(t[None] for t in times))

    def check(self, num_frames: int) -> None:
        """Raise InputError for positions outside [0, 1] and for frames that the video does not have."""
        if not ((self.uv >= 0) & (self.uv <= 1)).all():
            raise InputError("query positions (u, v) must lie in [0, 1]: divide pixel positions by width and height")
        for name in ("source", "target", "camera"):
            frames = getattr(self, name)
            if frames.dtype.is_floating_point:
                raise InputError(f"query `{name}` must be whole frame numbers, got {frames.dtype}")
            if frames.numel() and (frames.min() < 0 or frames.max() >= num_frames):
                low, high = int(frames.min()), int(frames.max())
                raise InputError(f"query `{name}` must be a frame in 0..{num_frames - 1}, got {low}..{high}")


@dataclass(frozen=True)
class QueryAnswers:
    """What the network says of every query; lengths in its own unit."""

    points: Tensor  # [B, N, 3] position in the camera asked for
    positions: Tensor  # [B, N, 2] (x, y) where that camera's image shows it
    visibility: Tensor  # [B, N] logit of being seen in the frame of the target time
    displacement: Tensor  # [B, N, 3] motion since the source frame, in the axes of the camera asked for
    normals: Tensor  # [B, N, 3] unit, in the axes of the camera asked for
    confidence: Tensor  # [B, N] > 0

    @property
    def visible(self) -> Tensor:  # [B, N] bool
        return self.visibility > 0

    @staticmethod
    def from_raw(raw: Tensor, uv: Tensor) -> "QueryAnswers":  # [B, N, 13], [B, N, 2]
        """Points and positions are told from where the query stands: (u, v) itself, and depth 1 on a wide lens' ray."""
        points, positions, visibility, displacement, normals, confidence = raw.split(PARTS, dim=-1)
        # exp: the loss is then linear in the raw value but for the error it weighs; the bound keeps it finite
        certain = confidence[..., 0].clamp(-8, 8).exp()
        points = points + torch.cat([uv - 0.5, torch.ones_like(uv[..., :1])], dim=-1)
        normals = F.normalize(normals, dim=-1)
        return QueryAnswers(points, uv + positions, visibility[..., 0], displacement, normals, certain)

    @staticmethod
    def cat(parts: list["QueryAnswers"]) -> "QueryAnswers":
        return QueryAnswers(
            *(torch.cat(column, dim=1) for column in zip(*(vars(p).values() for p in parts), strict=True))
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> "QueryAnswers":
        return QueryAnswers(*(function(tensor) for tensor in vars(self).values()))


@dataclass(frozen=True)
class SceneTokens:
    """The global scene representation of B videos, and the frames that queries cut their colour patches from."""

    features: Tensor  # [B, L, D]
    frames: Tensor  # [B, T, 3, H, W] in [0, 1], of any size

    @property
    def num_frames(self) -> int:
        return self.frames.shape[1]

    def with_frames(self, frames: Tensor) -> "SceneTokens":  # [B, T, 3, H, W]
        """The same scene with patches cut from other frames, the original ones for example."""
        check_shape("frames", frames, (*self.frames.shape[:3], None, None))
        return SceneTokens(self.features, frames)


def cut_patches(frames: Tensor, queries: Queries, size: int) -> Tensor:  # [B, T, 3, H, W] -> [B, N, 3, size, size]
    """Colours around (u, v) of the source frame at a spacing of one pixel, interpolated, the border repeated.

    All pixels of a patch share one fraction of a pixel, so whole windows are gathered and their shifts blended.
    """
    *_, height, width = frames.shape
    corner = queries.uv * queries.uv.new_tensor([width, height]) - size / 2  # (u, v) is the patch's middle
    whole = corner.floor()
    steps = torch.arange(size + 1, device=frames.device)
    columns = (whole[..., :1].long() + steps).clamp(0, width - 1)  # [B, N, size + 1]
    rows = (whole[..., 1:].long() + steps).clamp(0, height - 1)
    batch = torch.arange(len(frames), device=frames.device)[:, None, None, None]
    source = queries.source[..., None, None]
    window = frames.movedim(2, -1)[batch, source, rows[..., None], columns[..., None, :]]  # [B, N, s + 1, s + 1, 3]
    x, y = (corner - whole)[..., None, None, None].unbind(2)  # [B, N, 1, 1, 1]
    window = window[..., :-1, :] * (1 - x) + window[..., 1:, :] * x
    window = window[..., :-1, :, :] * (1 - y) + window[..., 1:, :, :] * y
    return window.movedim(-1, 2)
