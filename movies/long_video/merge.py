"""Chunks placed in the world of their shot and written as the segments of one scene."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from movies.alignment import Similarity
from movies.cameras import Cameras
from movies.gaussians import Gaussians
from movies.geometry import matrix_to_quaternion, quaternion_lerp, quaternion_to_matrix, rigid
from movies.long_scene import LongScene, Segment
from movies.long_video.chunks import Geometry, shared
from movies.long_video.plan import Plan
from movies.scene import Scene4D

VOXEL = 4.0  # edge of the cubes in which a Gaussian of about the same size stands for another, in their size
_PRIMES = (73856093, 19349663, 83492791, 2654435761)


def write_segments(
    plan: Plan, scenes: list[Path], geometries: list[Path], placed: list[Similarity], folder: Path
) -> LongScene:
    """Place each chunk's scene, leave out static Gaussians that the segment before has, and write the index.

    Two segments are in memory at a time, whatever the length of the clip.
    """
    segments, before = [], Gaussians.empty()
    for number, chunk in enumerate(plan.chunks):
        times = torch.tensor(chunk.frames) / max(plan.num_frames - 1, 1)
        scene = _in_place(Scene4D.load(scenes[number]), times, placed[number])
        if number and plan.chunks[number - 1].shot == chunk.shot:
            scene = replace(scene, static=scene.static.select(~represented(scene.static, before)))
        before = scene.static
        name = f"segment_{number:04d}.safetensors"
        scene.save(folder / name)
        segments.append(Segment(name, chunk.shot, float(times[0]), float(times[-1])))
    cameras, frames, shots = all_cameras(plan, geometries, placed)
    times = frames / max(plan.num_frames - 1, 1)
    long = LongScene(folder, tuple(segments), cameras, times, shots, scene.image_size)
    long.save_index()
    return long


def _in_place(scene: Scene4D, times: Tensor, similarity: Similarity) -> Scene4D:
    """A chunk's scene in the world of its shot, its times those of the whole clip."""
    moved = scene.placed(similarity.scale, similarity.transform)
    low, high = times[0], times[-1]
    return replace(moved, times=torch.lerp(low, high, scene.times), view_times=times)


def represented(gaussians: Gaussians, others: Gaussians) -> Tensor:  # [N], [M] -> bool [N]
    """Which Gaussians have one of `others` of about their size within a cube of about that size.

    A coarse Gaussian does not stand for a fine one: what a camera comes near to keeps its detail.
    """
    return torch.isin(_cubes(gaussians), _cubes(others))


def _cubes(gaussians: Gaussians) -> Tensor:  # [N] -> int64 [N], the same number for the same cube
    size = gaussians.scales.amax(dim=-1).clamp(min=1e-9).log2().round()  # [N]
    cell = (gaussians.means / (VOXEL * size.exp2())[:, None]).floor().long()
    x, y, z = cell.unbind(dim=-1)
    a, b, c, d = _PRIMES
    return (x * a) ^ (y * b) ^ (z * c) ^ (size.long() * d)


def all_cameras(
    plan: Plan, geometries: list[Path], placed: list[Similarity]
) -> tuple[Cameras, Tensor, Tensor]:  # [F], [F] frames, [F] shots
    """The cameras of all frames; in an overlap the path goes over evenly from one chunk's to the other's."""
    cameras = Cameras(torch.zeros(0, 4, 4), torch.zeros(0, 4))
    frames, shots = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    for chunk, path, similarity in zip(plan.chunks, geometries, placed, strict=True):
        own = Geometry.load(path)
        here = own.cameras.rescaled(similarity.scale).transformed(similarity.transform)
        i, j = shared(frames, own.frames)
        weight = (torch.arange(len(i)) + 1) / (len(i) + 1)
        mixed = _mixed(cameras[i], here[j], weight)
        fresh = (own.frames[:, None] != frames).all(dim=1)
        kept = torch.ones(len(frames), dtype=torch.bool)
        kept[i] = False
        parts = (cameras[kept], mixed, here[fresh])
        order = torch.cat([frames[kept], frames[i], own.frames[fresh]]).argsort()
        cameras = Cameras(torch.cat([c.c2w for c in parts])[order], torch.cat([c.fxfycxcy for c in parts])[order])
        frames = torch.cat([frames, own.frames[fresh]]).sort().values
        shots = torch.cat([shots, torch.full((int(fresh.sum()),), chunk.shot)])
    return cameras, frames, shots


def _mixed(a: Cameras, b: Cameras, weight: Tensor) -> Cameras:  # [O], [O], [O]
    quats = (matrix_to_quaternion(c.c2w[:, :3, :3]) for c in (a, b))
    rotation = quaternion_to_matrix(quaternion_lerp(*quats, weight[:, None]))
    centers = torch.lerp(a.centers, b.centers, weight[:, None])
    return Cameras(rigid(rotation, centers), torch.lerp(a.fxfycxcy, b.fxfycxcy, weight[:, None]))
