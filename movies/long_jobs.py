"""The job of `movies reconstruct` for clips of any length: planned, told, and done chunk by chunk."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from movies.jobs import camera_network, find_networks, reconstruct_file
from movies.long_video.frames import chunk_clips, open_frames
from movies.long_video.plan import CHUNK, OVERLAP, Chunk, Sizes, fit_memory, make_plan, parse_memory
from movies.long_video.run import Networks, reconstruct_chunks
from movies.model.network import MoVieS
from movies.model.vggt import VGGTPrediction
from movies.model.weights import Pretrained
from movies.network_world import fit_resolution
from movies.reconstruct import choose_device, choose_dtype


def reconstruct_long_file(
    path: str | Path,
    out: str | Path,
    weights: str = "tiny",
    camera_weights: str = "tiny",
    cameras: str | Path | None = None,
    frames: int | None = None,
    resolution: int | None = None,
    device: str = "auto",
    dtype: str = "fp32",
    chunk: int = CHUNK,
    overlap: int = OVERLAP,
    memory: str | None = None,
    loops: bool = False,
    refine: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict:
    """`reconstruct_file` for clips of any length, all frames for None; one chunk is left to that very function.

    `chunk` frames at most are read together, fewer where a budget of `memory` ("8G") asks for it, and neighbouring
    chunks share `overlap`; `loops` closes loops. `say` is told the plan and the time it may take before the long work.
    """
    place, precision = choose_device(device), choose_dtype(dtype)
    found, found_cameras = find_networks(weights, camera_weights)
    side = resolution or found.config.image_size
    source = open_frames(path, frames, cameras)
    first = next(chunk_clips(source, [Chunk(0, (0, 1))]))
    view = fit_resolution(first, side, found.config.patch_size).views.size
    sizes = Sizes(view, first.views.size, max(_held_bytes(each, precision) for each in (found, found_cameras)))
    length = chunk if memory is None else fit_memory(parse_memory(memory), chunk, overlap, sizes)
    plan = make_plan(source.thumbnails(), length, overlap, loops)
    if len(plan.chunks) == 1 and not plan.left_out:
        count = len(source)
        return reconstruct_file(
            path, out, weights, camera_weights, cameras, count, resolution, device, dtype, refine=refine
        )
    say(plan.described(sizes.bytes_needed(length)))

    def estimate() -> Callable[[Tensor], VGGTPrediction]:
        return found_cameras.load(camera_network, precision).to(place)

    def splats() -> MoVieS:
        return found.load(MoVieS, precision).to(place)

    names = {"movies": (found, weights), "vggt": (found_cameras, camera_weights)}
    described = {kind: _identity(*named, precision) for kind, named in names.items()}
    described["vggt"]["refined"] = refine  # a run that goes on must ask for the same
    networks = Networks(estimate, splats, side, found.config.patch_size, place, described, refine)
    return reconstruct_chunks(source, plan, networks, out, say)


def _identity(found: Pretrained, name: str, dtype: torch.dtype) -> dict:
    """What tells weights from others without reading them: a run that goes on must find the same."""
    file = found.file.path.stat()
    known = {"name": name, "model": found.network, "dtype": str(dtype)}
    return known | {"bytes": file.st_size, "modified": file.st_mtime_ns}


def _held_bytes(found: Pretrained, dtype: torch.dtype) -> int:
    """What a network's weights take in memory."""
    return dtype.itemsize * sum(math.prod(shape) for shape in found.shapes().values())
