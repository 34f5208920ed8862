"""The CPU rasteriser: gsplat's pictures and gradients from compiled tiles, in float32, the same bits at every run.

project (per Gaussian) -> list the splats of each tile -> sort each list by depth -> composite (per tile). The backward
pass walks the same lists from back to front. Every pair of a splat and a tile has a slot of its own for the gradient,
and the slots of a splat are then added in order: no atomics.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.rendering import cpu_binning as binning
from movies.rendering import cpu_projection as projection
from movies.rendering import cpu_raster as raster
from movies.rendering.cpu_jit import exclusive

# Pictures are worked on together until they hold this many splats: small ones share one start of the threads, and
# scratch memory (52 bytes a splat) does not grow with the number of pictures.
SPLATS_AT_ONCE = 1 << 20
MAX_SIDE = np.iinfo(np.int16).max  # rects are int16
SPLATS_PER_CHUNK, MAX_CHUNKS = 4096, 64


def rasterize(
    gaussians: Gaussians,  # [S, N]
    cameras: Cameras,  # [S, C]
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colours [S, C, 3, H, W], alphas and accumulated depths [S, C, 1, H, W], without a background.

    Raises InputError for pictures of more than 32767 pixels a side.
    """
    if max(height, width) > MAX_SIDE:
        raise InputError(f"the CPU rasteriser draws at most {MAX_SIDE} pixels a side, got {height} x {width}")
    packed = _pack_cameras(cameras, height, width)
    g = gaussians
    outputs = _Rasterize.apply(g.means, g.quats, g.scales, g.opacities, g.colors, packed, height, width)
    colors, depths, transmittances = (x.unflatten(0, cameras.shape) for x in outputs)
    return colors, (1 - transmittances)[:, :, None], depths[:, :, None]


def _pack_cameras(cameras: Cameras, height: int, width: int) -> Tensor:  # [S, C, 20]
    """Each camera as the kernels read it: rotation, translation, fx fy cx cy, limits of x/z (low, high) and y/z."""
    viewmats, Ks = cameras.viewmats().detach().float(), cameras.Ks(height, width).detach().float()
    size = torch.tensor([width, height], dtype=torch.float32)
    focal, center = Ks[..., [0, 1], [0, 1]], Ks[..., :2, 2]  # [S, C, 2]
    margin = 0.15 * size / focal  # 0.3 of half the field of view's tangent
    limits = torch.stack([center / focal + margin, (size - center) / focal + margin], dim=-1)  # [S, C, 2, 2]
    rotation, translation = viewmats[..., :3, :3].flatten(-2), viewmats[..., :3, 3]
    return torch.cat([rotation, translation, focal, center, limits.flatten(-2)], dim=-1)


@dataclass(frozen=True)
class _Lists:
    """What the backward pass needs of a run of pictures first..last besides the inputs."""

    first: int
    last: int
    tile_starts: np.ndarray  # [I*tiles + 1]
    ids: np.ndarray  # [pairs] splats by tile, front to back


class _Job:
    """The flattened inputs and sizes that both passes share."""

    def __init__(self, inputs: tuple[Tensor, ...], cameras: Tensor, height: int, width: int) -> None:
        num_scenes, views, _ = cameras.shape
        self.num = inputs[0].shape[1]
        self.gaussians = tuple(_numpy(x).reshape(num_scenes * self.num, *x.shape[2:]) for x in inputs)
        self.cameras = _numpy(cameras).reshape(num_scenes * views, cameras.shape[-1])
        self.scene_of = np.repeat(np.arange(num_scenes), views)  # [I]
        self.height, self.width = height, width
        self.tiles_x = -(-width // binning.TILE)
        self.tiles = self.tiles_x * -(-height // binning.TILE)
        self.chunks = min(MAX_CHUNKS, max(1, self.num // SPLATS_PER_CHUNK))
        self.workers = 4 * numba.get_num_threads()

    def runs(self) -> list[tuple[int, int]]:
        """The pictures in runs that are worked on together."""
        images, step = len(self.scene_of), max(1, SPLATS_AT_ONCE // max(1, self.num))
        return [(first, min(first + step, images)) for first in range(0, images, step)]

    def project(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows [I*N, ROW] and rects [I*N, 4] of pictures first..last."""
        count = (last - first) * self.num
        rows, rects = np.empty((count, projection.ROW), np.float32), np.empty((count, 4), np.int16)
        projection.project(
            self.gaussians, self.num, self.cameras[first:last], self.scene_of[first:last],
            self.width, self.height, self.chunks, rows, rects,
        )  # fmt: skip
        return rows, rects

    def lists(self, first: int, last: int, rows: np.ndarray, rects: np.ndarray) -> _Lists:
        """The splats of every tile of pictures first..last, front to back."""
        images = last - first
        hits = np.empty((images, self.tiles, self.chunks), np.int64)
        tile_starts = np.empty(images * self.tiles + 1, np.int64)
        binning.count_tiles(rects, self.num, self.tiles_x, hits)
        ids = np.empty(binning.place_lists(hits, tile_starts), np.int32)
        binning.fill_lists(rects, self.num, self.tiles_x, hits, ids)
        binning.sort_lists(rows.view(np.uint32), projection.DEPTH, tile_starts, ids, self.workers)
        return _Lists(first, last, tile_starts, ids)

    def slots(self, images: int, rects: np.ndarray) -> np.ndarray:  # [I*N + 1]
        """The first slot of every splat."""
        totals = np.empty((images, self.chunks), np.int64)
        binning.count_slots(rects, self.num, self.chunks, totals)
        starts = (np.cumsum(totals) - totals.ravel()).reshape(totals.shape)
        slots = np.empty(images * self.num + 1, np.int64)
        binning.fill_slots(rects, self.num, starts, slots)
        return slots


class _Rasterize(torch.autograd.Function):
    """Gaussians [S, N] seen by packed cameras [S, C, 20] -> colors [S*C, 3, H, W], depths and transmittances."""

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, cameras, height, width):
        inputs = (means, quats, scales, opacities, colors)
        job, images = _Job(inputs, cameras, height, width), cameras.shape[0] * cameras.shape[1]
        out = torch.empty(images, 3, height, width)
        depths, transmittances, lasts = (torch.empty(images, height, width) for _ in range(3))
        ctx.lists = []
        keep = any(ctx.needs_input_grad)
        with exclusive():
            for first, last in job.runs():
                rows, rects = job.project(first, last)
                lists = job.lists(first, last, rows, rects)
                pictures = [x[first:last].numpy() for x in (out, depths, transmittances, lasts)]
                raster.rasterize(
                    rows, rects, lists.tile_starts, lists.ids, job.tiles_x, job.tiles, job.workers, *pictures
                )
                ctx.lists += [lists] if keep else []
        ctx.save_for_backward(*inputs, cameras, transmittances, lasts)
        return out, depths, transmittances

    @staticmethod
    @once_differentiable
    def backward(ctx, v_colors, v_depths, v_transmittances):
        *inputs, cameras, transmittances, lasts = ctx.saved_tensors
        job = _Job(inputs, cameras, *transmittances.shape[1:])
        grads = tuple(torch.zeros_like(x, memory_format=torch.contiguous_format) for x in inputs)
        flat_grads = tuple(x.numpy().reshape(y.shape) for x, y in zip(grads, job.gaussians, strict=True))
        given = [_numpy(x) for x in (transmittances, lasts, v_colors, v_depths, v_transmittances)]
        with exclusive():
            for lists in ctx.lists:
                _backward_run(job, lists, given, flat_grads)
        return *grads, None, None, None


def _backward_run(job: _Job, lists: _Lists, given: list[np.ndarray], grads: tuple[np.ndarray, ...]) -> None:
    """Add the gradients of one run of pictures to those of the Gaussians.

    The splats are projected again, which takes a twentieth of the pass, rather than kept (52 bytes each).
    """
    first, last = lists.first, lists.last
    rows, rects = job.project(first, last)
    slots = job.slots(last - first, rects)
    slot_grads = np.zeros((len(lists.ids), projection.GRAD), np.float32)
    raster.rasterize_vjp(
        rows, rects, lists.tile_starts, lists.ids, job.tiles_x, job.tiles, job.workers,
        *(x[first:last] for x in given), slots, slot_grads,
    )  # fmt: skip
    projection.project_vjp(
        job.gaussians, job.num, job.cameras[first:last], job.scene_of[first:last], job.chunks, rows, slots, slot_grads,
        grads,
    )  # fmt: skip


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
