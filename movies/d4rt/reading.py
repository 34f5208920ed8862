"""One interface over both systems: a video's depth, cameras and point tracks, read from MoVieS or from D4RT."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from movies.cameras import Cameras
from movies.d4rt.readouts import Reader, read_cameras, read_depth, read_tracks
from movies.geometry import transform_points
from movies.motion import follow_splats, seen_by
from movies.splats import DynamicSplats
from movies.tracks import PointTracks, Queries


class Reading(Protocol):
    """What a video was understood as; lengths in one unit, the world is the first camera's."""

    def depth(self) -> Tensor:
        """z-depth [T, H, W] of every frame."""

    def cameras(self) -> Cameras:
        """Cameras [T] of every frame."""

    def tracks(self, points: Queries) -> PointTracks:
        """Pixels followed to every frame's time."""


@dataclass(frozen=True)
class MoVieSReading:
    """Of a prediction at the times of its views, batch item 0."""

    splats: DynamicSplats

    def depth(self) -> Tensor:  # [T, H, W]
        return self.splats.depth[0]

    def cameras(self) -> Cameras:  # [T]
        return self.splats.cameras[0]

    def tracks(self, points: Queries) -> PointTracks:
        where, confidence = follow_splats(self.splats, points)
        positions, visible = seen_by(where, self.cameras(), self.depth())
        return PointTracks(where, positions, visible, confidence, self.splats.times[0], self.cameras(), points)


@dataclass(frozen=True)
class D4RTReading:
    """Of a video's tokens; depth at `size` (height, width)."""

    reader: Reader
    size: tuple[int, int]
    times: Tensor  # [T]

    def depth(self) -> Tensor:  # [T, H, W]
        return read_depth(self.reader, *self.size)[0]

    def cameras(self) -> Cameras:  # [T]
        return read_cameras(self.reader)

    def tracks(self, points: Queries) -> PointTracks:
        """Points in each time's camera, which `cameras` bring into the world; confidence c as c / (1 + c)."""
        answers, cameras = read_tracks(self.reader, points.positions, points.views), self.cameras()
        world = transform_points(cameras.c2w, answers.points)
        inside = ((answers.positions >= 0) & (answers.positions < 1)).all(dim=-1)
        certain = answers.confidence / (1 + answers.confidence)
        return PointTracks(world, answers.positions, answers.visible & inside, certain, self.times, cameras, points)
