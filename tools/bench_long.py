"""Long videos measured: how well chunks join, what memory they take, and whether a film jumps where they do.

    python tools/bench_long.py walk [--model d4rt] [--frames 1000] [--size 56] [--chunk 13] [--outliers 0.2] [--out DIR]
    python tools/bench_long.py memory [--frames 100 1000] [--size 28]
    python tools/bench_long.py joints DIR

`walk` goes down a synthetic hall with an oracle in the networks' place (true depth and cameras with errors, each chunk
in a unit of its own; with `--model d4rt` it answers queries), so that what is measured is the joining. `memory` runs
`movies reconstruct` with the bundled weights and given cameras on walks of several lengths, each in a process of its
own. `joints` compares the steps from frame to frame of DIR/novel_view.mp4 at the joints with those elsewhere.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from movies.camera_files import save_cameras
from movies.cameras import Cameras
from movies.d4rt.oracle import QueryOracle
from movies.data.synthetic_walk import Walk
from movies.data.walk_oracle import Errors, WalkOracle
from movies.geometry import rigid_inverse
from movies.long_paths import long_path
from movies.long_queries import QueryNetworks
from movies.long_scene import LongScene
from movies.long_video.plan import CHUNK, OVERLAP, make_plan
from movies.long_video.run import Networks, Readers, reconstruct_chunks
from movies.metrics import psnr, trajectory_error
from movies.model.config import ModelConfig
from movies.rendering import render
from movies.video import open_clip, write_video

ASIDE = 0.05  # how far novel views lie beside the path, where the scene's mean distance is 1.5 or so
SAMPLES = 100  # novel views along the walk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    walk = commands.add_parser("walk")
    walk.add_argument("--frames", type=int, default=1000)
    walk.add_argument("--size", type=int, default=56)
    walk.add_argument("--model", choices=["movies", "d4rt"], default="movies")
    walk.add_argument("--chunk", type=int, default=CHUNK)
    walk.add_argument("--overlap", type=int, default=OVERLAP)
    walk.add_argument("--outliers", type=float, default=0.0)
    walk.add_argument("--given-cameras", action="store_true")
    walk.add_argument("--loop", action="store_true")
    walk.add_argument("--out")
    memory = commands.add_parser("memory")
    memory.add_argument("--frames", type=int, nargs="+", default=[100, 1000])
    memory.add_argument("--size", type=int, default=28)
    joints = commands.add_parser("joints")
    joints.add_argument("folder")
    given = parser.parse_args()
    {"walk": bench_walk, "memory": bench_memory, "joints": bench_joints}[given.command](given)


# --- walk --------------------------------------------------------------------------------------------------------


def bench_walk(given: argparse.Namespace) -> None:
    walk = Walk(7, given.frames, (given.size, given.size), given.loop)
    oracle = WalkOracle(walk, Errors(outliers=given.outliers), given.given_cameras)
    plan = make_plan(oracle.thumbnails(), given.chunk, given.overlap, given.loop)
    networks = readers(oracle, given.model, given.size)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(given.out or temporary)
        started, busy = time.perf_counter(), time.process_time()
        summary = reconstruct_chunks(oracle, plan, networks, out, print)
        taken, worked = time.perf_counter() - started, time.process_time() - busy
        scene = LongScene.load(out)
        measures = trajectory_measures(walk, scene, summary) | novel_measures(walk, scene)
    measures |= {
        "chunks": summary["chunks"],
        "inliers, least of a joint": min(j["inliers"] for j in summary["joints"]),
        "residual, largest of a joint": max(j["residual"] for j in summary["joints"]),
        "joints that do not hold": sum(bool(j["fault"]) for j in summary["joints"]),
        "loops": len(summary["loops"]),
        "loop error": summary["loop_error"],
        "input views, dB": summary.get("input_psnr"),
        "queries saved": summary.get("queries_saved"),
        "peak, MB": round(summary["peak_memory"]["resident"] / 1e6),
        "seconds a frame": round(taken / given.frames, 3),
        "CPU seconds a frame": round(worked / given.frames, 3),
        "warnings": summary["warnings"],
    }
    print(json.dumps(measures, indent=1))


def readers(oracle: WalkOracle, model: str, size: int) -> Readers:
    """The oracle in the place of the networks of either system."""
    place, described, config = torch.device("cpu"), {"oracle": {}}, ModelConfig.preset("tiny")
    if model == "d4rt":
        return QueryNetworks(lambda: QueryOracle(oracle), (size, size), place, described)
    return Networks(lambda: oracle.look, lambda: oracle.splatter(config), size, 14, place, described)


def trajectory_measures(walk: Walk, scene: LongScene, summary: dict) -> dict:
    true = walk.cameras.c2w
    unaligned, lengths = chained(walk, scene, summary)
    spread = lengths.log()
    tenth = max(1, len(lengths) // 10)
    return {
        "way": round(walk.length, 2),
        "ATE, chunks chained by their first shared camera": round(float(trajectory_error(unaligned, true)), 4),
        "ATE, aligned": round(float(trajectory_error(scene.cameras.c2w, true)), 4),
        "scale of the last tenth over the first": round(float(lengths[-tenth:].mean() / lengths[:tenth].mean()), 4),
        "scale, standard deviation of the log over chunks": round(float(spread.std()), 4),
    }


def chained(walk: Walk, scene: LongScene, summary: dict) -> tuple[Tensor, Tensor]:  # [N, 4, 4], [K]
    """The path without similarities: each chunk in its own unit, hung on the camera that it shares first.

    Also each chunk's way in the aligned scene over the true one.
    """
    c2w = torch.full((len(walk), 4, 4), torch.nan)
    scale, lengths, true = 1.0, [], walk.cameras.centers
    scales = [1.0] + [joint["scale"] for joint in summary["joints"]]
    for k, relative in enumerate(scales):
        scale *= relative
        segment = scene.segment(k)
        frames = (segment.view_times * (len(walk) - 1)).round().long()
        own = segment.cameras.rescaled(1 / scale).c2w
        known = c2w[frames[0]]
        c2w[frames] = own if k == 0 else (known @ rigid_inverse(own[0])) @ own
        centers = segment.cameras.centers
        lengths.append((centers[1:] - centers[:-1]).norm(dim=-1).sum() / true[frames].diff(dim=0).norm(dim=-1).sum())
    return c2w, torch.stack(lengths)


def novel_measures(walk: Walk, scene: LongScene) -> dict:
    """PSNR of views beside the path, each placed by the camera of its frame."""
    positions = torch.linspace(0, len(walk) - 1, min(SAMPLES, len(walk))).round().long().tolist()
    values = []
    way = scene.cameras.centers.diff(dim=0).norm(dim=-1).sum() / walk.cameras.centers.diff(dim=0).norm(dim=-1).sum()
    for position in positions:
        time_ = walk.times([position])
        here, aside = walk.cameras_at(time_), walk.cameras_at(time_, ASIDE)
        step = (rigid_inverse(here.c2w) @ aside.c2w)[0]
        step[:3, 3] *= way
        camera = Cameras(scene.cameras.c2w[position] @ step, here.fxfycxcy[0])
        picture = render(scene.at(float(time_)), camera, *walk.image_size).images
        values.append(psnr(picture[None], walk.render(aside, time_).images)[0])
    found = torch.stack(values)
    first = found[: max(1, len(found) * CHUNK // len(walk))]
    tenths = [round(float(part.mean()), 2) for part in found.chunk(10)]
    return {
        "novel views, dB": round(float(found.mean()), 2),
        "novel views of the first chunk, dB": round(float(first.mean()), 2),
        "novel views, dB, by tenths of the walk": tenths,
    }


# --- memory ------------------------------------------------------------------------------------------------------


def bench_memory(given: argparse.Namespace) -> None:
    peaks = {}
    for frames in given.frames:
        with tempfile.TemporaryDirectory() as temporary:
            clip, cameras, out = (Path(temporary) / name for name in ("walk.mp4", "cameras.json", "out"))
            walk = Walk(7, frames, (given.size, given.size))
            write_video(clip, walk.stream(list(range(frames))), 24)
            save_cameras(walk.cameras, cameras, walk.image_size)
            command = [sys.executable, "-m", "movies", "reconstruct", str(clip), "--out", str(out), "--frames", "all"]
            command += ["--cameras", str(cameras), "--resolution", str(given.size)]
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, check=True)
            taken, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
            summary = json.loads((out / "summary.json").read_text())
        peaks[frames] = summary["peak_memory"]["resident"]
        worked = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / frames
        print(f"{frames} frames: peak {peaks[frames] / 1e6:.0f} MB, {taken / frames:.3f} s a frame", end="")
        print(f" ({worked:.3f} of the CPU), input views {summary['input_psnr']:.2f} dB,", end=" ")
        scales = [joint["scale"] for joint in summary["joints"]]
        faults = sum(bool(joint["fault"]) for joint in summary["joints"])
        print(f"{len(scales)} joints, {faults} do not hold", flush=True)
    print(f"peak of the longest over that of the shortest: {peaks[max(peaks)] / peaks[min(peaks)]:.3f}")


# --- joints ------------------------------------------------------------------------------------------------------


def bench_joints(given: argparse.Namespace) -> None:
    """Mean absolute difference of neighbouring frames of the film, at the joints and elsewhere."""
    folder = Path(given.folder)
    scene, film = LongScene.load(folder), open_clip(folder / "novel_view.mp4")
    _, times = long_path("spiral", scene, film.num_total)
    frames = film.stream(torch.arange(film.num_total))
    before, steps = next(frames), []
    for frame in frames:
        steps.append(float((frame - before).abs().mean()))
        before = frame
    steps = torch.tensor(steps)
    shown = [sum(moving > 0 for _, moving in scene.weights(float(t)).values()) for t in times]
    joint = torch.tensor([a > 1 or b > 1 for a, b in pairwise(shown)])
    print(f"{len(scene.segments)} segments; {int(joint.sum())} steps of {len(steps)} lie in overlaps")
    for name, chosen in (("in overlaps", joint), ("elsewhere", ~joint)):
        part = steps[chosen]
        print(f"{name}: mean {part.mean():.5f}, median {part.median():.5f}, largest {part.max():.5f}")


if __name__ == "__main__":
    main()
