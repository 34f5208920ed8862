"""`movies reconstruct --model d4rt` for clips of any length: each chunk answered by itself, joined as those of MoVieS.

A chunk's depth, cameras, points, tracks and scene are answers of its own frames; the chunks become one by similarities
between the points of the frames that they share (D4RT, appendix B). docs/long_video.md tells the steps in common.
"""

import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.alignment import Similarity
from movies.clip import Clip
from movies.d4rt.dense import track_all
from movies.d4rt.network import D4RT
from movies.d4rt.reading import D4RTReading
from movies.d4rt.readouts import Reader, read_depth, read_points
from movies.d4rt.scenes import dense_scene
from movies.errors import InputError
from movies.export.points import write_points
from movies.files import replacing_file
from movies.long_scene import LongScene
from movies.long_video.carry import ChunkTracks, free_pixels
from movies.long_video.chunks import Geometry, load_tensors, save_tensors, shared
from movies.long_video.frames import Frames, chunk_clips, open_frames
from movies.long_video.plan import OVERLAP, Plan, make_plan
from movies.long_video.run import Job, Readers, bar, reconstruct_chunks, single_clips, spoken, timed
from movies.model.weights import Pretrained
from movies.outputs import CLIP_FPS, enlarged
from movies.query_jobs import asked_size, dense_summary, reconstruct_by_queries
from movies.reconstruct import choose_device
from movies.tracks import Queries
from movies.video import false_color, write_video

KINDS = ("asked", "geometry", "tracks", "scene")  # files of a chunk; the last one says that all are there
COLORED = 100_000  # depths of all frames that the colours of a film range over


def reconstruct_long_by_queries(
    path: str | Path,
    out: str | Path,
    weights: str = "tiny",
    frames: int | None = None,
    device: str = "auto",
    chunk: int | None = None,
    overlap: int | None = None,
    loops: bool = False,
    resolution: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict:
    """`reconstruct_by_queries` for clips of any length, all frames for None; one chunk is left to that very function.

    `chunk` frames are read together, by default as many as the weights know, and neighbours share `overlap` (5, or
    half a shorter chunk). Files: docs/d4rt.md. Raises InputError for what a user got wrong before the long work begins.
    """
    found = D4RT.find(weights)
    known = found.config.num_frames
    length = known if chunk is None else chunk
    if length > known:
        raise InputError(f"these D4RT weights read at most {known} frames together; give --chunk {known} or fewer")
    if frames is not None and frames <= length:
        return reconstruct_by_queries(path, out, weights, frames, device, resolution)
    source = open_frames(path, frames)
    plan = query_plan(source, length, overlap, loops)
    if len(plan.chunks) == 1 and not plan.left_out:
        return reconstruct_by_queries(path, out, weights, len(source), device, resolution)
    say(plan.described())
    networks = open_networks(found, weights, source, device, resolution)
    return reconstruct_chunks(source, plan, networks, out, say)


def query_plan(source: Frames, length: int, overlap: int | None = None, loops: bool = False) -> Plan:
    return make_plan(source.thumbnails(), length, min(OVERLAP, length // 2) if overlap is None else overlap, loops)


def image_shape(source: Frames) -> tuple[int, int]:
    """(height, width) of a clip's frames."""
    return tuple(next(source.stream([0])).shape[-2:])


def open_networks(
    found: Pretrained, name: str, source: Frames, device: str, resolution: int | None = None
) -> "QueryNetworks":
    """Weights for the chunks of a clip, read when they are needed."""
    place, file = choose_device(device), found.file.path.stat()
    size = asked_size(image_shape(source), found.config, resolution)
    described = {"name": name, "model": "D4RT", "bytes": file.st_size, "modified": file.st_mtime_ns}
    described["original_patches"] = bool(resolution)
    return QueryNetworks(lambda: found.load(D4RT).to(place), size, place, {"d4rt": described}, bool(resolution))


@dataclass(frozen=True)
class QueryNetworks(Readers):
    """A D4RT in the place of both networks."""

    model: Callable[[], D4RT]
    size: tuple[int, int]  # (height, width) at which pixels are asked for
    device: torch.device
    described: dict[str, dict]
    original_patches: bool = False

    @property
    def resolution(self) -> int:
        return max(self.size)

    def read(self, job: Job, frames: Frames, seconds: dict[str, float], say: Callable[[str], None]) -> None:
        pending = job.pending(*KINDS)
        if not pending:
            return
        with timed(seconds, "queries"):
            model, started = self.model(), time.perf_counter()
            clips = chunk_clips(frames, [job.chunks[k] for k in pending])
            for number in bar(pending, "chunks"):
                self._read_chunk(job, number, next(clips), model)
                if number == pending[0]:
                    say(f"about {spoken((time.perf_counter() - started) * len(pending))} for the queries")

    def reading(self, clip: Clip, model: D4RT) -> D4RTReading:
        """A chunk encoded."""
        reader = Reader.of(model, clip.images.to(self.device), self.original_patches)
        return D4RTReading(reader, self.size, clip.times.to(self.device))

    def geometry(self, reading: D4RTReading, own: Tensor) -> Geometry:  # [V] frames
        """Depth, points and cameras as a joint asks for them."""
        depth, confidence = read_depth(reading.reader, *self.size)
        world, certain = read_points(reading.reader, *self.size)
        maps = (depth, (confidence * certain).sqrt(), reading.cameras(), world)
        return Geometry(own, *(x.to("cpu") for x in maps))

    def _read_chunk(self, job: Job, number: int, clip: Clip, model: D4RT) -> None:
        own, reading = torch.tensor(job.chunks[number].frames), self.reading(clip, model)
        geometry = self.geometry(reading, own)
        geometry.save(job.path("geometry", number))
        before = ChunkTracks.load(job.path("tracks", number - 1)) if job.continues(number) else None
        follow(reading, own, before).save(job.path("tracks", number))
        dense = track_all(reading.reader, *self.size)
        save_tensors(job.path("asked", number), counts=dense.counts())
        cameras, images = geometry.cameras.to(self.device), clip.images.to(self.device)
        dense_scene(dense, cameras, reading.times, images, self.size).to("cpu").save(job.path("scene", number))

    def show(self, job: Job, plan: Plan, frames: Frames, placed: list[Similarity], scene: LongScene) -> dict:
        """input.mp4, depth.mp4, depth.npz and points.ply of all frames, of which one chunk's are in memory."""
        folder, geometries = scene.folder.parent, [job.path("geometry", k) for k in range(job.num_segments)]

        def maps() -> Iterator[tuple[int, Tensor]]:
            return placed_maps(plan, geometries, placed)

        def clips() -> Iterator[Clip]:
            return single_clips(frames, job.positions())

        step = max(1, len(scene.cameras) * self.size[0] * self.size[1] // COLORED)
        among = torch.cat([own[0].flatten()[::step] for _, own in maps()]).clamp(min=1e-6)
        shown = (false_color(own[0], own[0].isfinite(), logarithmic=True, among=among) for _, own in maps())
        write_video(folder / "depth.mp4", (enlarged(picture[None])[0] for picture in shown), CLIP_FPS)
        write_video(folder / "input.mp4", (enlarged(clip.images)[0] for clip in clips()), CLIP_FPS)
        write_maps(folder / "depth.npz", maps, job.positions(), self.size)
        parts = (
            (own[2:].flatten(1).T, clip.resized(*self.size).images[0].flatten(1).T)
            for (_, own), clip in zip(maps(), clips(), strict=True)
        )
        num_points = write_points(parts, folder / "points.ply")
        asked = sum(load_tensors(job.path("asked", k))["counts"] for k in range(job.num_segments))
        return {"model": "d4rt", "num_points": num_points, **dense_summary(*asked.tolist())}


def follow(reading: D4RTReading, frames: Tensor, before: ChunkTracks | None = None) -> ChunkTracks:
    """Tracks of a chunk with these frames [V]: those of the chunk `before`, and new ones where there are none.

    A track goes on from the last shared frame in which it is seen, as a question about that pixel; one that none of
    them sees ends.
    """
    height, width = reading.size
    ids, queries = torch.zeros(0, dtype=torch.long), Queries(torch.zeros(0, dtype=torch.long), torch.zeros(0, 2))
    if before is not None:
        ids, queries = found_again(before, frames)
    known, view = reading.tracks(queries.to(reading.times.device)), 0 if before is None else len(frames) - 1
    pixels = free_pixels(known.positions[view][known.visible[view]].cpu(), height, width)
    centers = torch.stack([(pixels % width + 0.5) / width, (pixels // width + 0.5) / height], dim=-1)
    started = reading.tracks(Queries(torch.full_like(pixels, view), centers).to(reading.times.device))
    next_id = (0 if before is None else int(before.next_id)) + len(pixels)
    ids = torch.cat([ids, torch.arange(next_id - len(pixels), next_id)])
    names = ("points", "positions", "visible")
    points, positions, visible = (torch.cat([getattr(t, n) for t in (known, started)], dim=1).cpu() for n in names)
    alive = visible.any(dim=0)
    return ChunkTracks(
        frames, ids[alive], points[:, alive], positions[:, alive], visible[:, alive], torch.tensor(next_id)
    )


def found_again(before: ChunkTracks, frames: Tensor) -> tuple[Tensor, Queries]:  # -> [P] ids
    """Where the tracks of the chunk before were seen last in the frames that both hold."""
    there, here = shared(before.frames, frames)
    seen = before.visible[there]  # [O, P]
    alive = seen.any(dim=0).nonzero()[:, 0]
    last = (seen * (torch.arange(len(there)) + 1)[:, None]).argmax(dim=0)[alive]
    return before.ids[alive], Queries(here[last], before.positions[there[last], alive].clamp(0, 1))


def placed_maps(plan: Plan, geometries: list[Path], placed: list[Similarity]) -> Iterator[tuple[int, Tensor]]:
    """Each frame's depth, confidence and points [5, H, W] in the world of its shot, in order of time.

    In an overlap they go over evenly from one chunk's to the other's. One chunk's are in memory.
    """
    held: dict[int, Tensor] = {}
    starts = [chunk.frames[0] for chunk in plan.chunks[1:]] + [plan.num_frames]
    for chunk, path, similarity, following in zip(plan.chunks, geometries, placed, starts, strict=True):
        own = Geometry.load(path)
        points = similarity(own.world.flatten(1, 2)).unflatten(1, own.depth.shape[1:])  # [V, H, W, 3]
        maps = torch.cat([(own.depth * similarity.scale)[:, None], own.confidence[:, None], points.movedim(-1, 1)], 1)
        both = [frame for frame in chunk.frames if frame in held]
        for frame, fresh in zip(chunk.frames, maps, strict=True):
            share = (both.index(frame) + 1) / (len(both) + 1) if frame in held else 1.0
            held[frame] = torch.lerp(held.get(frame, fresh), fresh, share)
        for frame in sorted(frame for frame in held if frame < following):
            yield frame, held.pop(frame)


def write_maps(
    path: Path, maps: Callable[[], Iterator[tuple[int, Tensor]]], frames: list[int], size: tuple[int, int]
) -> None:
    """.npz of `depth` and `confidence` [F, H, W] and of the numbers of their `frames` [F]."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(frames), *size)}
    with replacing_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for channel, name in enumerate(("depth", "confidence")):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for _, own in maps():
                    file.write(own[channel].numpy().tobytes())
        with archive.open("frames.npy", "w") as file:
            np.lib.format.write_array(file, np.array(frames))
