"""The job of `movies reconstruct --model d4rt`: a video to depth, cameras, tracks and a point cloud, by queries."""

import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.camera_files import save_cameras
from movies.clip import Clip
from movies.clip_quality import frame_warnings
from movies.d4rt.config import D4RTConfig
from movies.d4rt.dense import DenseTracks, track_all
from movies.d4rt.network import D4RT
from movies.d4rt.reading import D4RTReading
from movies.d4rt.readouts import Reader, read_cameras, read_depth, read_points
from movies.d4rt.scenes import dense_scene
from movies.errors import InputError
from movies.export import export
from movies.export.points import write_points
from movies.files import replacing_file, replacing_folder
from movies.outputs import CLIP_FPS, SCENE, TRACKS_ACROSS, describe_weights, enlarged, peak_memory
from movies.reconstruct import choose_device
from movies.tracks import PointTracks, Queries, Window
from movies.video import contact_sheet, false_color, read_thumbnails, write_image, write_video


def reconstruct_by_queries(
    path: str | Path,
    out: str | Path,
    weights: str = "tiny",
    frames: int | None = None,
    device: str = "auto",
    resolution: int | None = None,
) -> dict:
    """Video to a folder of outputs; returns the summary. `frames` None: as many as the weights know.

    depth.mp4 depth.npz cameras.json tracks.npz points.ply scene.safetensors scene.html input.mp4 overview.png
    summary.json. The world is the first camera, the unit the network's. With a `resolution` that longer side is asked
    for, with colour patches of the original frames. Everything a user can get wrong raises InputError before the long
    work begins.
    """
    with replacing_folder(out) as folder:
        place = choose_device(device)
        model = D4RT.from_pretrained(weights).to(place)
        clip = load_clip(path, model, frames)
        reader, size = open_reader(model, clip, resolution)
        took = {}
        started = time.perf_counter()
        depth, confidence = read_depth(reader, *size)
        took["depth"] = time.perf_counter() - started
        cameras = read_cameras(reader)
        cloud, _ = read_points(reader, *size)
        dense = track_all(reader, *size)
        scene = dense_scene(dense, cameras, clip.times.to(place), clip.images.to(place), size).to("cpu")
        tracks = grid_tracks(reader, clip, size)

        colors = clip.resized(*size).images.movedim(1, -1)
        num_points = write_points([(cloud.flatten(0, 2), colors.flatten(0, 2))], folder / "points.ply")
        tracks.save(folder / "tracks.npz", Window(*clip.views.size))
        save_cameras(cameras.to("cpu"), folder / "cameras.json", clip.views.size)
        with replacing_file(folder / "depth.npz") as temporary:
            np.savez_compressed(temporary, depth=depth.cpu().numpy(), confidence=confidence.cpu().numpy())
        scene.save(folder / SCENE)
        export(scene, "html", folder / "scene.html", scene.times)
        write_pictures(folder, clip.images, depth.cpu())
        summary = summarise(clip, dense, num_points, took) | {"weights": {"d4rt": describe_weights(model, weights)}}
        summary["warnings"] = frame_warnings(clip.images, read_thumbnails(path))
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        return summary


def load_clip(path: str | Path, model: D4RT, frames: int | None) -> Clip:
    """As many frames as asked for, or as the network knows. Raises InputError for more."""
    known = model.config.num_frames
    if frames is not None and frames > known:
        raise InputError(f"these D4RT weights read at most {known} frames together; give --frames {known} or fewer")
    return Clip.load(path, known if frames is None else frames)


def open_reader(model: D4RT, clip: Clip, resolution: int | None = None) -> tuple[Reader, tuple[int, int]]:
    """A clip's reader, and the (height, width) that it is asked at: the encoder's, or of this longer side."""
    size = asked_size(clip.views.size, model.config, resolution)
    return Reader.of(model, clip.images.to(next(model.parameters()).device), resolution is not None), size


def asked_size(frame: tuple[int, int], config: D4RTConfig, resolution: int | None) -> tuple[int, int]:
    """A frame's (height, width) at this longer side, the encoder's where none is given."""
    if resolution is not None and resolution < 1:
        raise InputError(f"--resolution must be at least 1, got {resolution}")
    return fitted(frame, resolution or config.image_size)


def fitted(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """(height, width) of the same shape with this longer side."""
    return tuple(max(1, round(side * longer / max(size))) for side in size)


def grid_tracks(reader: Reader, clip: Clip, size: tuple[int, int]) -> PointTracks:
    """A grid of the first frame, followed through all."""
    across = fitted(size, TRACKS_ACROSS)
    device = reader.tokens.features.device
    points = Queries.grid(*across, 1, torch.zeros(1, dtype=torch.long)).to(device)
    return D4RTReading(reader, size, clip.times.to(device)).tracks(points)


def write_pictures(folder: Path, images: Tensor, depth: Tensor) -> None:  # [T, 3, H, W], [T, h, w]
    colored = false_color(depth, torch.ones_like(depth, dtype=torch.bool), logarithmic=True)
    write_video(folder / "input.mp4", enlarged(images), CLIP_FPS)
    write_video(folder / "depth.mp4", enlarged(colored), CLIP_FPS)
    write_image(folder / "overview.png", contact_sheet({"input": enlarged(images), "depth": enlarged(colored)}))


def dense_summary(num_tracks: float, num_queries: float, num_naive: float, seconds: float) -> dict:
    """What following all pixels took, and what following each by itself would have."""
    return {
        "num_dense_tracks": int(num_tracks),
        "num_queries": int(num_queries),
        "naive_queries": int(num_naive),
        "queries_saved": round(num_naive / max(num_queries, 1), 3),
        "dense_seconds": round(seconds, 3),
    }


def summarise(clip: Clip, dense: DenseTracks, num_points: int, took: dict[str, float]) -> dict:
    height, width = clip.views.size
    return {
        "clip": clip.name,
        "model": "d4rt",
        "frames": len(clip.views),
        "height": height,
        "width": width,
        "num_points": num_points,
        **dense_summary(*dense.counts().tolist()),
        "seconds": {name: round(value, 3) for name, value in took.items()},
        "peak_memory": peak_memory(),
    }
