"""Tracks drawn on pictures: a dot where a point is seen, and behind it the way that it came."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from movies.tracks import PointTracks

TAIL = 6  # times that the way goes back


def draw_tracks(images: Iterable[Tensor], tracks: PointTracks) -> Iterator[Tensor]:  # [3, H, W] -> [3, H, W] each
    """The tracks on the pictures of their times; the colour tells where in its frame a point started."""
    positions, visible = tracks.positions.cpu(), tracks.visible.cpu()
    colors = _colors(tracks.queries.positions.cpu())
    for t, image in enumerate(images):
        canvas, (height, width) = image.clone(), image.shape[-2:]
        size = torch.tensor([width, height])
        radius = max(1, round(max(height, width) / 200))
        for s in range(max(0, t - TAIL), t):
            kept = visible[s] & visible[s + 1] & visible[t]
            _stamp(canvas, _between(positions[s, kept] * size, positions[s + 1, kept] * size), 0.7 * colors[kept], 0)
        _stamp(canvas, (positions[t, visible[t]] * size)[None], colors[visible[t]], radius)
        yield canvas


def _colors(positions: Tensor) -> Tensor:  # [P, 2] normalised -> [P, 3]
    """Hues from left to right, lighter at the top: neighbours are told apart, and a surface from others."""
    phase = 2 * math.pi * (positions[:, :1] + torch.tensor([0.0, 1 / 3, 2 / 3]))
    hue = 0.5 + 0.5 * phase.cos()
    return torch.lerp(torch.ones_like(hue), hue, 0.5 + 0.5 * positions[:, 1:].clamp(0, 1))


def _between(start: Tensor, end: Tensor) -> Tensor:  # [P, 2], [P, 2] -> [K, P, 2], less than a pixel apart
    longest = float((end - start).abs().max()) if len(start) else 0.0
    return torch.lerp(start, end, torch.linspace(0, 1, math.ceil(longest) + 2)[:, None, None])


def _stamp(canvas: Tensor, centers: Tensor, colors: Tensor, radius: int) -> None:  # [3, H, W], [K, P, 2], [P, 3]
    """Discs in place; what lies outside of the picture is left out."""
    height, width = canvas.shape[-2:]
    steps = torch.arange(-radius, radius + 1)
    offsets = torch.cartesian_prod(steps, steps)
    offsets = offsets[offsets.square().sum(dim=-1) <= radius**2]
    x, y = (centers.floor().long()[..., None, :] + offsets).unbind(-1)  # [K, P, D]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    canvas[:, y[inside], x[inside]] = colors[:, None].expand(*x.shape, 3)[inside].T
