"""The whole job: what each chunk gives by itself, joints, one scene in segments, and its films.

Who reads the chunks is a `Readers`: MoVieS after a camera network (`Networks`, here), or D4RT (movies/long_queries.py).

Each chunk's result is a file in OUT/.chunks as soon as it is there; a run that was killed finds them and goes on. A
chunk is read from its frames alone, so neither order nor neighbours, nor what was done before, change it.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from movies.alignment import Similarity
from movies.camera_files import save_cameras
from movies.clip import Clip
from movies.clip_quality import geometry_warnings
from movies.errors import InputError
from movies.files import replacing_file, replacing_folder
from movies.long_paths import long_path
from movies.long_scene import LongScene
from movies.long_video.carry import ChunkTracks, follow
from movies.long_video.chain import Joint, compose, described, failing, join, loop_joint, refine
from movies.long_video.chunks import Estimate, Geometry
from movies.long_video.frames import Frames, chunk_clips
from movies.long_video.merge import write_segments
from movies.long_video.plan import Chunk, Plan
from movies.metrics import psnr
from movies.model.network import MoVieS
from movies.network_world import fit_resolution
from movies.novel_views import render_path
from movies.outputs import CLIP_FPS, NOVEL_FPS, enlarged, peak_memory
from movies.reconstruct import reconstruct
from movies.video import write_video

JOB, SCENE, TRACKS = ".chunks", "scene", "tracks"
# The other network takes as long as the camera network, and this share of it more for every frame of a chunk.
SHARE_OF_TIME = 0.2


class Readers(Protocol):
    """Networks that read chunks one by one."""

    resolution: int
    described: dict[str, dict]  # what summary.json says of the weights

    def read(self, job: "Job", frames: Frames, seconds: dict[str, float], say: Callable[[str], None]) -> None:
        """Leave the `geometry`, `tracks` and `scene` of every chunk that is pending, the scene last."""

    def show(self, job: "Job", plan: Plan, frames: Frames, placed: list[Similarity], scene: LongScene) -> dict:
        """Write films and other files beside the folder of the scene; what summary.json says of them."""


@dataclass(frozen=True)
class Networks:
    """Both networks, loaded when they are needed; one is gone before the other comes."""

    cameras: Callable[[], Callable[[Tensor], Estimate]]  # [1, V, 3, H, W] -> depth and cameras
    splats: Callable[[], MoVieS]
    resolution: int
    patch_size: int
    device: torch.device
    described: dict[str, dict]  # what summary.json says of the weights
    refine: bool = True  # estimated cameras by the pictures

    def fit(self, clip: Clip) -> Clip:
        return fit_resolution(clip, self.resolution, self.patch_size)

    def read(self, job: "Job", frames: Frames, seconds: dict[str, float], say: Callable[[str], None]) -> None:
        """First the camera network reads all chunks, then, when it is gone, the other."""
        with timed(seconds, "cameras"):
            _estimate_all(job, frames, self, say)
        with timed(seconds, "splats"):
            _reconstruct_all(job, frames, self)

    def show(self, job: "Job", plan: Plan, frames: Frames, placed: list[Similarity], scene: LongScene) -> dict:
        quality = _films(job, frames, self, scene, scene.folder.parent)  # [F] dB
        each = [round(x, 3) for x in quality.tolist()]
        return {"input_psnr": round(float(quality.mean()), 3), "input_psnr_per_view": each}


@dataclass(frozen=True)
class Job:
    """The folder of a job under way."""

    folder: Path
    chunks: tuple[Chunk, ...]  # those of the plan, then its loops
    num_segments: int

    def path(self, kind: str, number: int) -> Path:
        return self.folder / f"{kind}_{number:04d}.safetensors"

    def pending(self, *kinds: str) -> list[int]:
        """Chunks of which a file is still to be made."""
        return [k for k in range(len(self.chunks)) if not all(self.path(kind, k).exists() for kind in kinds)]

    def continues(self, number: int) -> bool:
        """Whether a chunk goes on from the one before; loops and the first of a shot do not."""
        return 0 < number < self.num_segments and self.chunks[number - 1].shot == self.chunks[number].shot

    def positions(self) -> list[int]:
        """All frames that are read."""
        return sorted({i for chunk in self.chunks for i in chunk.frames})

    @staticmethod
    def open(folder: Path, plan: Plan, frames: Frames, networks: Readers) -> "Job":
        """A new job, or the one that was begun with the very same clip, plan and weights."""
        chunks = (*plan.chunks, *plan.loops)
        digest = hashlib.sha256(frames.cameras.c2w.numpy().tobytes() + frames.cameras.fxfycxcy.numpy().tobytes())
        asked = {"clip": frames.name, "digest": plan.digest, "cameras": digest.hexdigest()}
        asked |= {"chunks": [[c.shot, list(c.frames)] for c in chunks], "resolution": networks.resolution}
        text = json.dumps(asked | {"weights": networks.described})
        try:
            if not (folder / "job.json").exists() or (folder / "job.json").read_text() != text:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                with replacing_file(folder / "job.json") as temporary:
                    temporary.write_text(text)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise InputError(f"{folder.parent}: cannot be written ({error.strerror}); choose another folder") from error
        return Job(folder, chunks, len(plan.chunks))


@torch.no_grad()
def reconstruct_chunks(
    frames: Frames, plan: Plan, networks: Readers, out: str | Path, say: Callable[[str], None] = lambda _: None
) -> dict:
    """Reconstruct a clip chunk by chunk into the folder `out`, and return the summary. Files: docs/long_video.md.

    `say` is told, before the long work, how long it may take. Raises InputError for what a user got wrong and OSError
    where the disk refuses; what is done stays, and the same call goes on from there.
    """
    out, seconds = Path(out), {}
    job = Job.open(out / JOB, plan, frames, networks)
    if done := len(job.chunks) - len(job.pending("scene")):
        say(f"going on: {done} of {len(job.chunks)} chunks are there")
    networks.read(job, frames, seconds, say)
    with timed(seconds, "chain"):
        joints, loops = _joints(job, plan, len(frames.cameras) > 0)
        placed, spread = compose(job.num_segments, joints), {}
        if loops:
            refined = refine(placed, joints, loops)
            placed, spread = refined.placed, {"before": round(refined.before, 5), "after": round(refined.after, 5)}
    with replacing_folder(out) as folder:
        with timed(seconds, "merge"):
            scene = _merge(job, plan, placed, folder)
        save_cameras(scene.cameras, folder / "cameras.json", scene.image_size)
        with timed(seconds, "films"):
            shown = networks.show(job, plan, frames, placed, scene)
        summary = _summary(job, plan, frames, networks, scene) | shown | {"seconds": seconds}
        summary |= {"joints": [described(j, _frames(job)) for j in joints]}
        summary |= {"loops": [described(j, _frames(job)) for j in loops], "loop_error": spread}
        summary["warnings"] += [*plan.said(), *failing(joints, _frames(job), len(frames.cameras) > 0)]
        summary["peak_memory"] = peak_memory()
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    shutil.rmtree(job.folder)
    return summary


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 3)


def bar(numbers: list[int], what: str) -> Iterator[int]:
    from tqdm import tqdm

    return iter(tqdm(numbers, desc=what, delay=2, disable=None, leave=False))


def _estimate_all(job: Job, frames: Frames, networks: Networks, say: Callable[[str], None]) -> None:
    pending = job.pending("estimate")
    if not pending:
        return
    network = networks.cameras()
    clips = chunk_clips(frames, [job.chunks[k] for k in pending])
    for number in bar(pending, "cameras"):
        images = networks.fit(next(clips)).images[None].to(networks.device)
        if number == pending[0]:
            say(_expected(network, images, job))
        found = network(images)
        Estimate(found.depth, found.cameras).save(job.path("estimate", number))


def _expected(network: Callable[[Tensor], Estimate], images: Tensor, job: Job) -> str:
    """How long it may take, from two frames; the first call is not measured, as it warms up."""
    for _ in range(2):
        started = time.perf_counter()
        network(images[:, :2])
        taken = time.perf_counter() - started
    views = images.shape[1]
    first, second = (len(job.pending(kind)) for kind in ("estimate", "scene"))
    total = taken / 2 * views * (first + second * (1 + SHARE_OF_TIME * views))
    return f"about {spoken(total)} for the networks, then the films"


def spoken(seconds: float) -> str:
    """A time as one says it."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def _reconstruct_all(job: Job, frames: Frames, networks: Networks) -> None:
    """Scene, geometry and tracks of each chunk; the scene comes last, so that where it is, all is."""
    pending = job.pending("geometry", "tracks", "scene")
    if not pending:
        return
    model = networks.splats()
    clips = chunk_clips(frames, [job.chunks[k] for k in pending])
    for number in bar(pending, "splats"):
        estimate = Estimate.load(job.path("estimate", number), networks.device)
        clip = networks.fit(next(clips))
        result = reconstruct(clip, model, lambda _, found=estimate: found, networks.resolution, networks.refine)
        own = torch.tensor(job.chunks[number].frames)
        depth, confidence = result.splats.depth[0].cpu() * result.scale, result.splats.depth_confidence[0].cpu()
        geometry = Geometry(own, depth, confidence, result.scene.cameras)
        geometry.save(job.path("geometry", number))
        before, joint = None, None
        if job.continues(number):
            before = ChunkTracks.load(job.path("tracks", number - 1))
            earlier = Geometry.load(job.path("geometry", number - 1))
            joint = join(number - 1, number, earlier, geometry, len(frames.cameras) > 0).similarity
        follow(result, own, before, joint).save(job.path("tracks", number))
        result.scene.save(job.path("scene", number))


def _joints(job: Job, plan: Plan, given: bool) -> tuple[list[Joint], list[Joint]]:
    """The joints of neighbours, and those that close loops and hold."""

    def geometry(number: int) -> Geometry:
        return Geometry.load(job.path("geometry", number))

    joints = [join(k - 1, k, geometry(k - 1), geometry(k), given) for k in range(job.num_segments) if job.continues(k)]
    loops = []
    for number, loop in enumerate(plan.loops, start=job.num_segments):
        outer = (loop.frames[0], loop.frames[-1])
        ends = [next(k for k, chunk in enumerate(plan.chunks) if frame in chunk.frames) for frame in outer]
        loops.append(loop_joint(*ends, *(geometry(k) for k in (*ends, number))))
    return joints, [joint for joint in loops if joint is not None and not given]


def _merge(job: Job, plan: Plan, placed: list[Similarity], folder: Path) -> LongScene:
    (folder / SCENE).mkdir()
    (folder / TRACKS).mkdir()
    numbers = range(job.num_segments)
    scenes, geometries = ([job.path(kind, k) for k in numbers] for kind in ("scene", "geometry"))
    scene = write_segments(plan, scenes, geometries, placed, folder / SCENE)
    for k in numbers:
        tracks = ChunkTracks.load(job.path("tracks", k)).placed(placed[k])
        tracks.export(folder / TRACKS / f"tracks_{k:04d}.npz")
    return scene


def _films(job: Job, frames: Frames, networks: Networks, scene: LongScene, folder: Path) -> Tensor:  # -> [F] dB
    """The films; how well each input view is rendered again."""
    size, positions = scene.image_size, job.positions()
    on_device, found = scene.to(networks.device), []

    def input_views() -> Iterator[Tensor]:
        again = render_path(on_device, on_device.cameras, on_device.view_times, size, what="input views")
        for clip, picture in zip(single_clips(frames, positions), again, strict=True):
            image = networks.fit(clip).images[0]
            found.append(psnr(picture[None], image[None])[0])
            yield enlarged(image[None])[0]

    write_video(folder / "input.mp4", input_views(), CLIP_FPS)
    cameras, moments = long_path("spiral", on_device, len(positions))
    pictures = render_path(on_device, cameras, moments, size, what="novel views")
    write_video(folder / "novel_view.mp4", (enlarged(p[None])[0] for p in pictures), NOVEL_FPS)
    return torch.stack(found)


def single_clips(frames: Frames, positions: list[int]) -> Iterator[Clip]:
    """The frames one by one."""
    return (Clip.of_frames(image[None]) for image in frames.stream(positions))


def _frames(job: Job) -> list[Tensor]:
    return [torch.tensor(chunk.frames) for chunk in job.chunks]


def _summary(job: Job, plan: Plan, frames: Frames, networks: Readers, scene: LongScene) -> dict:
    height, width = scene.image_size
    files = sorted(scene.folder.iterdir())
    warnings = []
    for shot in range(plan.num_shots):
        found = geometry_warnings(_parallax(job, shot), torch.ones(1), float("nan"))
        warnings += [f"shot {shot}: {text}" if plan.num_shots > 1 else text for text in found]
    return {
        "clip": frames.name,
        "frames": len(scene.cameras),
        "height": height,
        "width": width,
        "chunks": job.num_segments,
        "shots": plan.num_shots,
        "scene_bytes": sum(path.stat().st_size for path in files),
        "weights": networks.described,
        "warnings": warnings,
    }


def _parallax(job: Job, shot: int) -> float:
    """The most that any chunk's camera moves, over its median depth."""
    found = []
    for number, chunk in enumerate(job.chunks):
        if chunk.shot == shot:
            geometry = Geometry.load(job.path("geometry", number))
            centers = geometry.cameras.centers
            found.append(float(torch.cdist(centers, centers).max() / geometry.depth.median()))
    return max(found)
