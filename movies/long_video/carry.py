"""Tracks of any length: followed by the prediction within a chunk, and found again in the next by where they were.

At a joint each track is known in 3D at the first and the last frame that both chunks hold. In the next chunk it is the
pixel, of any of its views, whose point is nearest to both places: so a point that is hidden in the shared frames is
found where another view sees it, and a thing that moves is told from what it passes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.alignment import Similarity
from movies.files import replacing_file
from movies.geometry import transform_points
from movies.long_video.chunks import load_tensors, save_tensors, shared
from movies.motion import seen_by
from movies.reconstruct import Reconstruction

ACROSS = 14  # tracks along the longer side of a view
FOUND = 0.05  # how far off a track may be found again, over its depth
NUM_CANDIDATES = 200_000  # pixels that are looked at


@dataclass(frozen=True)
class ChunkTracks:
    """P tracks over the frames of one chunk, in its world or the scene's; `ids` tell them over the joints."""

    frames: Tensor  # [V] int64
    ids: Tensor  # [P] int64
    points: Tensor  # [V, P, 3]
    positions: Tensor  # [V, P, 2] normalised
    visible: Tensor  # [V, P] bool
    next_id: Tensor  # [] int64

    def placed(self, similarity: Similarity) -> "ChunkTracks":
        return replace(self, points=similarity(self.points))

    def save(self, path: Path) -> None:
        save_tensors(path, **vars(self))

    @staticmethod
    def load(path: Path) -> "ChunkTracks":
        return ChunkTracks(**load_tensors(path))

    def export(self, path: Path) -> None:
        """As .npz, without what only the next chunk asks for."""
        with replacing_file(path) as temporary:
            np.savez_compressed(temporary, **{k: x.numpy() for k, x in vars(self).items() if k != "next_id"})


def follow(
    result: Reconstruction, frames: Tensor, before: ChunkTracks | None = None, joint: Similarity | None = None
) -> ChunkTracks:
    """Tracks of a chunk with these frames [V]: those of the chunk `before`, and new ones where there are none.

    `joint` takes this chunk's world to the other's. A track that no view sees any more, or that is not found, ends.
    """
    ids, pixels, next_id = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), 0
    if before is not None:
        ids, pixels = _found_again(result, frames, before, joint.inverse())
        next_id = int(before.next_id)
    query = 0 if before is None else len(frames) - 1  # where the picture is new
    started = _new_pixels(result, pixels, query)
    ids = torch.cat([ids, next_id + torch.arange(len(started))])
    points = _points(result, torch.cat([pixels, started]))
    positions, visible = seen_by(points, result.scene.cameras, result.splats.depth[0].cpu() * result.scale)
    alive = visible.any(dim=0)
    kept = (x[:, alive] for x in (points, positions, visible))
    return ChunkTracks(frames, ids[alive], *kept, torch.tensor(next_id + len(started)))


def join_tracks(parts: list[ChunkTracks], num_frames: int) -> tuple[Tensor, Tensor]:
    """Points [F, P, 3] and visible [F, P] of all tracks over the clip, NaN where a track is not known.

    Where two chunks know a track it goes over from one to the other evenly, in the scene's world.
    """
    count = max((int(part.ids.max()) + 1 for part in parts if len(part.ids)), default=0)
    points, visible = torch.full((num_frames, count, 3), torch.nan), torch.zeros(num_frames, count, dtype=torch.bool)
    last = -1
    for part in parts:
        both = part.frames <= last  # [V]
        weight = torch.where(both, both.cumsum(0) / (both.sum() + 1), 1.0)[:, None, None]  # [V, 1, 1]
        place = (part.frames[:, None], part.ids)
        known = points[place]
        mixed = torch.where(known.isfinite(), torch.lerp(known.nan_to_num(), part.points, weight), part.points)
        points[place], visible[place] = mixed, visible[place] | part.visible
        last = int(part.frames[-1])
    return points, visible


def _points(
    result: Reconstruction, pixels: Tensor
) -> Tensor:  # [P] positions in V H W -> [V, P, 3] at the views' times
    splats = result.splats
    start = splats.points()[0].flatten(0, 2)[pixels]
    offsets = splats.motion[0].flatten(1, 3)[:, pixels]  # [T, P, 3], T = V
    return transform_points(result.transform, (start + offsets).cpu() * result.scale)


def _found_again(
    result: Reconstruction, frames: Tensor, before: ChunkTracks, to_here: Similarity
) -> tuple[Tensor, Tensor]:  # -> [P] ids, [P] positions in V H W
    """The tracks of the chunk before, each as the pixel whose point is where it was."""
    from scipy.spatial import cKDTree

    there, here = shared(before.frames, frames)
    ends = torch.tensor([0, len(there) - 1])
    goals = to_here(before.points[there[ends]])  # [2, P, 3]
    step = max(1, result.splats.depth[0].numel() // NUM_CANDIDATES)
    candidates = torch.arange(0, result.splats.depth[0].numel(), step)
    places = _points(result, candidates)[here[ends]]  # [2, C, 3]
    tree = cKDTree(places.movedim(0, 1).flatten(1).numpy())
    distance, nearest = tree.query(goals.movedim(0, 1).flatten(1).numpy())
    depth = (goals[1] - result.scene.cameras.centers[here[-1]]).norm(dim=-1)  # [P]
    found = torch.from_numpy(distance).float() <= FOUND * 2**0.5 * depth
    return before.ids[found], candidates[torch.from_numpy(nearest)[found]]


def _new_pixels(result: Reconstruction, pixels: Tensor, view: int) -> Tensor:  # -> [K] positions in V H W
    """Pixels of a grid over one view, where no track is seen yet."""
    _, height, width = result.splats.depth.shape[1:]
    surface = result.splats.depth[0].cpu() * result.scale
    points = _points(result, pixels)[view : view + 1]
    positions, visible = seen_by(points, result.scene.cameras[view : view + 1], surface[view : view + 1])
    return view * height * width + free_pixels(positions[0][visible[0]], height, width)


def free_pixels(positions: Tensor, height: int, width: int) -> Tensor:  # [P, 2] seen -> [K] positions in H W
    """Pixels of a grid over a view in whose cells no track is seen."""
    stride = max(1, max(height, width) // ACROSS)
    rows, columns = torch.arange(stride // 2, height, stride), torch.arange(stride // 2, width, stride)
    free = torch.ones(-(-height // stride), -(-width // stride), dtype=torch.bool)
    x, y = (positions * positions.new_tensor([width, height])).long().div(stride, rounding_mode="floor").T
    free[y, x] = False
    return (rows[:, None] * width + columns)[free[: len(rows), : len(columns)]]
