"""All-pixel tracks as a Scene4D: every point a small Gaussian of its pixel's colour that goes where the point goes."""

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.d4rt.dense import DenseTracks
from movies.d4rt.queries import Queries, cut_patches
from movies.gaussians import Gaussians
from movies.geometry import transform_points
from movies.scene import Scene4D

STILL = 0.05  # of its distance: a point that stays within this of its mean place does not move
FOOTPRINT, OPACITY = 0.6, 0.95  # a Gaussian's scale as a share of its pixel's width


def dense_scene(tracks: DenseTracks, cameras: Cameras, times: Tensor, frames: Tensor, size: tuple[int, int]) -> Scene4D:
    """Points of [T] frames [T, 3, H, W] in the world of their cameras [T]; `size` is the grid's that was tracked."""
    world = transform_points(cameras.c2w, tracks.answers.points)  # [T, M, 3]
    own = torch.arange(len(tracks.source), device=world.device)
    distance = tracks.answers.points[tracks.source, own, 2].clamp(min=1e-3)  # [M]
    scales = (FOOTPRINT * distance / (cameras.fxfycxcy[tracks.source, 0] * size[1]))[:, None].expand(-1, 3)
    queries = Queries.of(tracks.uv, tracks.source, tracks.source, tracks.source)
    colors = cut_patches(frames[None], queries, 1)[0, :, :, 0, 0]  # [M, 3]
    quats = world.new_tensor([1.0, 0, 0, 0]).expand(len(own), 4)
    middle = world.mean(dim=0)
    still = (world - middle).norm(dim=-1).amax(dim=0) < STILL * distance  # [M]
    look = (quats, scales, torch.full_like(distance, OPACITY), colors)
    moving = [x[~still].expand(len(world), *x[~still].shape) for x in look]
    return Scene4D(
        Gaussians(middle[still], *(x[still] for x in look)),
        Gaussians(world[:, ~still], *moving),
        times,
        cameras,
        times,
        tuple(frames.shape[-2:]),
    )
