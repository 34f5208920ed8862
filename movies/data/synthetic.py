"""Synthetic worlds as sequences: embedded data for training and tests, and the truth that evaluation compares with.

A sequence is a world (synthetic_worlds.py) drawn from a seed (synthetic_layout.py) and seen by a hand-held camera.
Besides what every dataset gives, any camera at any time can be rendered and any pixel followed to any time, exactly.
"""

import zlib
from collections.abc import Sequence as Indices
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Clip, Tracks, Views
from movies.data.synthetic_layout import CameraPath, draw_world
from movies.data.synthetic_render import Rendered, affine_tables, apply_rows, render_worlds, visible
from movies.data.synthetic_worlds import World
from movies.errors import InputError
from movies.geometry import unproject

DIFFICULTY = {"easy": 0.0, "wide": 1.0}


def synthetic_sequences(
    root: str = "",
    *,
    num_sequences: int = 1000,
    first_seed: int = 0,
    image_size: tuple[int, int] = (56, 56),
    num_frames: int = 24,
    num_tracks: int = 512,
    static: bool | float = False,
    difficulty: str | float = "easy",
    off_path: float = 0.0,
) -> list["SyntheticSequence"]:
    """Sequences of the seeds from `first_seed` on; nothing is drawn until one is read. `root` is not used.

    `image_size` is (H, W); `static` the fraction of sequences in which nothing moves; `difficulty` "easy", "wide" or a
    number in [0, 1] between them. Training sees targets from up to `off_path` beside the camera's path, as a share of
    the mean distance of the context's points. Raises InputError for values outside these.
    """
    if difficulty not in DIFFICULTY and not (isinstance(difficulty, int | float) and 0 <= difficulty <= 1):
        raise InputError(f"difficulty must be {', '.join(DIFFICULTY)} or a number in [0, 1], got {difficulty!r}")
    if not 0 <= static <= 1:
        raise InputError(f"static must be a fraction in [0, 1], got {static}")
    if num_frames < 2 or min(image_size) < 1 or num_tracks < 0:
        raise InputError(
            f"a sequence needs 2 frames or more of some size and no negative tracks, "
            f"got num_frames={num_frames}, image_size={tuple(image_size)}, num_tracks={num_tracks}"
        )
    if not 0 <= off_path <= 0.2:
        raise InputError(f"off_path must be a share in [0, 0.2] of the mean distance, got {off_path}")
    level = DIFFICULTY.get(difficulty, difficulty)
    return [
        SyntheticSequence(seed, tuple(image_size), num_frames, num_tracks, _fraction(seed) < static, level, off_path)
        for seed in range(first_seed, first_seed + num_sequences)
    ]


def _fraction(seed: int) -> float:
    """A number in [0, 1) for each seed, not related to what its world draws."""
    return zlib.crc32(f"static {seed}".encode()) / 2**32


# Worlds are dropped again because training lists a hundred thousand sequences and reads each about once.
_draw_recent = lru_cache(maxsize=64)(draw_world)


@dataclass(frozen=True, slots=True)
class SyntheticSequence:
    """One synthetic world: a Sequence, and more. Frame i is at time i / (num_frames - 1)."""

    seed: int
    image_size: tuple[int, int] = (56, 56)  # (H, W)
    num_frames: int = 24
    num_tracks: int = 512
    is_static: bool = False
    difficulty: float = 0.0
    off_path: float = 0.0  # how far targets may be seen from beside the path

    @property
    def name(self) -> str:
        return f"synthetic-{self.seed}-{self.difficulty:g}" + ("-static" if self.is_static else "")

    @property
    def _drawn(self) -> tuple[World, CameraPath]:
        return _draw_recent(self.seed, self.difficulty, self.is_static)

    @property
    def world(self) -> World:
        """The world itself, as a stack of one."""
        return self._drawn[0]

    def frame_times(self, indices: Indices[int]) -> Tensor:  # [V]
        """Times of frames. Raises InputError for a frame that is not there."""
        index = torch.as_tensor(indices, dtype=torch.long)
        if index.numel() == 0 or index.min() < 0 or index.max() >= self.num_frames:
            raise InputError(f"{self.name} has frames 0..{self.num_frames - 1}, got {index.tolist()}")
        return index.float() / (self.num_frames - 1)

    def cameras(self, times: Tensor) -> Cameras:  # [F] -> Cameras [F]
        """The hand-held camera at any times in [0, 1]."""
        return self._drawn[1].at(times, *self.image_size)

    def read(self, indices: Indices[int]) -> tuple[Views, Tracks]:
        """Frames, and `num_tracks` points that start at pixel centres of just these frames, half of them moving."""
        views, tracks = read_sequences([self], [indices])
        return views.map(lambda tensor: tensor[0]), tracks.map(lambda tensor: tensor[0])

    @torch.no_grad()
    def with_targets_off_path(self, clip: Clip, frames: Indices[int], rng: np.random.Generator) -> Clip:
        """The clip with its targets, these `frames`, seen from cameras moved by up to `off_path` in any direction."""
        times, num_context, points = self.frame_times(frames), clip.num_context, clip.tracks.points
        steps = rng.normal(size=(len(frames), 3))
        steps *= self.off_path * rng.uniform(size=(len(frames), 1)) / np.linalg.norm(steps, axis=1, keepdims=True)
        cameras = self.cameras(times).shifted(torch.from_numpy(steps).float() / clip.canonical().unit_scale()[1])
        seen = self.render_view(cameras, times, *self.image_size)
        views = clip.context.followed_by(Views(seen.images, cameras, times, seen.depth, seen.depth_mask))
        shown = torch.cat([clip.tracks.visible[:num_context], self._sees(cameras, times, points[num_context:])])
        return replace(clip, views=views, tracks=Tracks(points, shown))

    def _sees(self, cameras: Cameras, times: Tensor, points: Tensor) -> Tensor:  # [F], [F], [F, P, 3] -> [F, P]
        """Which points cameras see at their times; False where a point is not known."""
        seen = visible(self.world, torch.zeros_like(times).long(), cameras, times, points.nan_to_num())
        return seen & points.isfinite().all(dim=-1)

    @torch.no_grad()
    def render_view(self, cameras: Cameras, times: Tensor, height: int, width: int) -> Rendered:  # [F], [F]
        """Any cameras [F] at any times [F]: images, depth, normals and moving masks."""
        return render_worlds(self.world.to(times.device), torch.zeros_like(times).long(), cameras, times, height, width)

    @torch.no_grad()
    def read_tracks(self, indices: Indices[int], pixels: Tensor, times: Tensor) -> Tracks:  # [P, 3], [T]
        """Points that start at `pixels` (view in `indices`, row, column) followed to any `times` [T].

        -> Tracks of T views and P points, visible as the hand-held camera sees them at those times. The sky is NaN.
        """
        view, row, column = pixels.unbind(-1)
        points = self.dense_motion(indices, times)[:, view, row, column]  # [T, P, 3]
        return Tracks(points, self._sees(self.cameras(times), times, points))

    @torch.no_grad()
    def dense_motion(self, indices: Indices[int], times: Tensor) -> Tensor:  # [T] -> [T, V, H, W, 3]
        """World position at each of `times` of what every pixel of the frames shows; NaN in the sky."""
        return self._moved(self._frames(indices), self.frame_times(indices), times)

    def _frames(self, indices: Indices[int]) -> Rendered:
        times = self.frame_times(indices)
        return self.render_view(self.cameras(times), times, *self.image_size)

    def _moved(self, rendered: Rendered, source: Tensor, times: Tensor) -> Tensor:  # -> [T, V, H, W, 3]
        shape = rendered.depth.shape
        points = _surface(rendered, self.cameras(source)).flatten(1, 2)  # [V, HW, 3]
        solids = rendered.solids.flatten(1)
        forward, _ = affine_tables(self.world.select(torch.zeros_like(times).long()), times)
        _, backward = affine_tables(self.world.select(torch.zeros_like(source).long()), source)
        local = apply_rows(backward, solids, points).flatten(0, 1)  # [V HW, 3]
        rows = solids.flatten().expand(len(times), -1)
        return apply_rows(forward, rows, local.expand(len(times), -1, 3)).float().unflatten(1, shape)


def _surface(rendered: Rendered, cameras: Cameras) -> Tensor:  # [F, H, W, 3], NaN in the sky
    depth = torch.where(rendered.depth_mask, rendered.depth, torch.nan)
    return unproject(depth, cameras.fxfycxcy, cameras.c2w)


@torch.no_grad()
def read_sequences(
    sequences: list[SyntheticSequence], indices: list[Indices[int]], device: torch.device | str = "cpu"
) -> tuple[Views, Tracks]:
    """`read` for B sequences of one image size and number of tracks at once, on any device: Views and Tracks [B, ...].

    One pass for all of them is what a GPU wants; on CPU it saves some overhead for small images.
    """
    count, num_views = len(sequences), len(indices[0])
    times = torch.stack([s.frame_times(index) for s, index in zip(sequences, indices, strict=True)])  # [B, V]
    paths = [s.cameras(t) for s, t in zip(sequences, times, strict=True)]
    cameras = Cameras(torch.stack([c.c2w for c in paths]), torch.stack([c.fxfycxcy for c in paths])).to(device)
    world, times = World.stack([s.world for s in sequences]).to(device), times.to(device)
    scenes = torch.arange(count, device=times.device).repeat_interleave(num_views)
    flat = cameras.reshape(count * num_views)
    rendered = render_worlds(world, scenes, flat, times.flatten(), *sequences[0].image_size)
    maps = (x.unflatten(0, (count, num_views)) for x in (rendered.images, rendered.depth, rendered.depth_mask))
    images, depth, mask = maps
    views = Views(images, cameras, times, depth, mask)
    return views, _sampled_tracks(sequences, indices, world, scenes, rendered, views)


def _sampled_tracks(sequences, indices, world: World, scenes: Tensor, rendered: Rendered, views: Views) -> Tracks:
    """Points [B, V, P, 3] from pixel centres of the views: half from moving pixels where there are any."""
    count, num_views = views.times.shape
    num_points = sequences[0].num_tracks
    chosen = _choose(sequences, indices, rendered, num_points)  # [B, P] positions in V H W
    solids = rendered.solids.unflatten(0, (count, num_views)).flatten(1).gather(1, chosen)  # [B, P]
    points = views.points().flatten(1, 3).gather(1, chosen[..., None].expand(-1, -1, 3))
    forward, backward = affine_tables(world.select(scenes), views.times.flatten())  # [B V, K + 1, 3, 4]
    source = chosen // (views.depth.shape[-2] * views.depth.shape[-1])  # [B, P] view
    rows = source * forward.shape[1] + solids
    local = apply_rows(backward.unflatten(0, (count, num_views)).flatten(1, 2), rows, points)
    moved = apply_rows(forward, solids.repeat_interleave(num_views, 0), local.repeat_interleave(num_views, 0)).float()
    flat = views.cameras.reshape(count * num_views)
    seen = visible(world, scenes, flat, views.times.flatten(), moved)
    return Tracks(moved.unflatten(0, (count, num_views)), seen.unflatten(0, (count, num_views)))


def _choose(sequences, indices, rendered: Rendered, num_points: int) -> Tensor:  # [B, P] positions in V H W
    """Positions drawn with replacement, the first half among moving pixels, the rest among all but the sky."""
    count = len(sequences)
    known = rendered.depth_mask.reshape(count, -1)
    moving = rendered.moving.reshape(count, -1)
    moving = torch.where(moving.any(dim=1, keepdim=True), moving, known)
    draws = torch.stack([_draws(s, index, num_points) for s, index in zip(sequences, indices, strict=True)])
    first, rest = draws.to(known.device).split([num_points // 2, num_points - num_points // 2], dim=1)
    return torch.cat([_nth_true(moving, first), _nth_true(known, rest)], dim=1)


def _draws(sequence: SyntheticSequence, indices: Indices[int], count: int) -> Tensor:  # [count] in [0, 1)
    seed = zlib.crc32(f"tracks {sequence.seed} {list(map(int, indices))}".encode())
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def _nth_true(mask: Tensor, fraction: Tensor) -> Tensor:  # [B, N], [B, P] in [0, 1) -> [B, P]
    """Where the counted-up mask passes each fraction of its total; position 0 for an empty mask."""
    ranks = mask.cumsum(dim=1)
    total = ranks[:, -1:]
    wanted = torch.minimum((fraction * total).long() + 1, total)
    return torch.searchsorted(ranks, wanted.contiguous()).clamp(max=mask.shape[1] - 1)
