"""Point tracks: the pixels that are asked for, where their points are over time, and the file that keeps them.

Positions are normalised by a view's size, as everywhere; `Window` brings them to pixels of the clip as its user sees it
and back. The file's keys: docs/readouts.md.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.files import replacing_file
from movies.geometry import pixel_grid, transform_points
from movies.shapes import check_shape


@dataclass(frozen=True)
class Window:
    """Where the views lie in the frames of the clip that they were cropped and resized from.

    `height` and `width` are the frames' in pixels, the rest is in fractions of them.
    """

    height: int
    width: int
    top: float = 0.0
    left: float = 0.0
    rows: float = 1.0
    columns: float = 1.0

    @staticmethod
    def between(size: tuple[int, int], whole: Cameras, part: Cameras) -> "Window":
        """From what crops made of the intrinsics of frames of this (height, width)."""
        before, after = whole.fxfycxcy[0].double(), part.fxfycxcy[0].double()
        extent = before[:2] / after[:2]
        corner = before[2:] - after[2:] * extent
        columns, rows, left, top = torch.cat([extent, corner]).tolist()
        return Window(*size, top, left, rows, columns)

    def pixels(self, positions: Tensor) -> Tensor:  # [..., 2] (x, y) in a view -> pixels of the frames
        return (positions * self._extent(positions) + self._corner(positions)) * self._size(positions)

    def positions(self, pixels: Tensor) -> Tensor:  # [..., 2] (x, y) pixels of the frames -> in a view
        return (pixels / self._size(pixels) - self._corner(pixels)) / self._extent(pixels)

    def intrinsics(self, fxfycxcy: Tensor) -> Tensor:  # [..., 4] of a view -> fx, fy, cx, cy in pixels of the frames
        focal = fxfycxcy[..., :2] * self._extent(fxfycxcy) * self._size(fxfycxcy)
        return torch.cat([focal, self.pixels(fxfycxcy[..., 2:])], dim=-1)

    def _size(self, like: Tensor) -> Tensor:
        return like.new_tensor([self.width, self.height])

    def _extent(self, like: Tensor) -> Tensor:
        return like.new_tensor([self.columns, self.rows])

    def _corner(self, like: Tensor) -> Tensor:
        return like.new_tensor([self.left, self.top])


@dataclass(frozen=True)
class Queries:
    """P pixels to follow."""

    views: Tensor  # [P] int64: the view each lies in
    positions: Tensor  # [P, 2] (x, y) normalised

    def __post_init__(self) -> None:
        check_shape("views", self.views, (None,))
        check_shape("positions", self.positions, (len(self.views), 2))

    def __len__(self) -> int:
        return len(self.views)

    def to(self, device: torch.device | str) -> "Queries":
        return Queries(self.views.to(device), self.positions.to(device))

    @staticmethod
    def cat(parts: list["Queries"]) -> "Queries":
        return Queries(torch.cat([p.views for p in parts]), torch.cat([p.positions for p in parts]))

    @staticmethod
    def grid(height: int, width: int, stride: int, views: Tensor) -> "Queries":  # [K] int64
        """The centres of every `stride`-th row's and column's pixels, of each of `views`."""
        centers = pixel_grid(height, width)[stride // 2 :: stride, stride // 2 :: stride].flatten(0, 1)
        return Queries(views.repeat_interleave(len(centers)), centers.repeat(len(views), 1))

    @staticmethod
    def parse(points: tuple[str, ...], window: Window, num_views: int) -> "Queries":
        """Points that a user wrote as x,y,frame, in pixels of the clip. Raises InputError naming the point."""
        asked = torch.tensor([_numbers(point) for point in points], dtype=torch.float64).reshape(-1, 3)
        positions = window.positions(asked[:, :2])
        for point, (x, y, frame), place in zip(points, asked.tolist(), positions, strict=True):
            if frame != int(frame) or not 0 <= frame < num_views:
                raise InputError(f"point {point}: there is no frame {frame:g}; frames read are 0 to {num_views - 1}")
            if not (0 <= x < window.width and 0 <= y < window.height):
                raise InputError(f"point {point}: outside the frame of {window.width}x{window.height} pixels")
            if not ((place >= 0) & (place < 1)).all():
                (left, top), (right, bottom) = window.pixels(torch.tensor([[0.0, 0.0], [1.0, 1.0]])).tolist()
                raise InputError(
                    f"point {point}: in the margin that is cut off for the network; give x from {left:.1f} to "
                    f"{right:.1f} and y from {top:.1f} to {bottom:.1f}"
                )
        return Queries(asked[:, 2].long(), positions.float())


def _numbers(point: str) -> list[float]:
    number = r"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*"
    found = re.fullmatch(f"{number},{number},{number}", point)
    if not found:
        raise InputError(f"point {point!r}: give x,y,frame, such as 120.5,64,0")
    return [float(x) for x in found.groups()]


@dataclass(frozen=True)
class PointTracks:
    """P points followed over T times, as the input view nearest to each time sees them."""

    points: Tensor  # [T, P, 3] world, NaN where nothing was there to follow
    positions: Tensor  # [T, P, 2] (x, y), normalised; meaningless behind the camera
    visible: Tensor  # [T, P] bool: inside that view and not hidden behind the rendered scene
    confidence: Tensor  # [T, P] 0 to 1
    times: Tensor  # [T]
    cameras: Cameras  # [T] of these views
    queries: Queries  # [P]

    def camera_points(self) -> Tensor:  # [T, P, 3]
        """The points in the camera frame of each time."""
        return transform_points(self.cameras.viewmats(), self.points)

    def select(self, index: Tensor) -> "PointTracks":  # bool [P] or int [K]
        """Some of the points."""
        maps = (x[:, index] for x in (self.points, self.positions, self.visible, self.confidence))
        queries = Queries(self.queries.views[index], self.queries.positions[index])
        return PointTracks(*maps, self.times, self.cameras, queries)

    def arrays(self, window: Window) -> dict[str, np.ndarray]:
        """What the file holds. TAPVid-3D's names carry its conventions: camera frames, pixels of the clip's frames."""
        pixels = window.pixels(self.queries.positions)
        tensors = {
            "points": self.points,
            "positions": self.positions,
            "visible": self.visible,
            "confidence": self.confidence,
            "times": self.times,
            "query_views": self.queries.views,
            "query_positions": self.queries.positions,
            "c2w": self.cameras.c2w,
            "fxfycxcy": self.cameras.fxfycxcy,
            "image_size": torch.tensor([window.height, window.width]),
            "tracks_XYZ": self.camera_points(),
            "tracks_xy": window.pixels(self.positions),
            "visibility": self.visible,
            "queries_xyt": torch.cat([pixels, self.queries.views[:, None]], dim=-1),
            "fx_fy_cx_cy": window.intrinsics(self.cameras.fxfycxcy).median(dim=0).values,
            "extrinsics_w2c": self.cameras.viewmats(),
        }
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}

    def save(self, path: str | Path, window: Window) -> None:
        """Write `arrays` as .npz, beside its place and renamed."""
        with replacing_file(path) as temporary:
            np.savez_compressed(temporary, **self.arrays(window))
