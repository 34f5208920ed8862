"""The folder that `movies reconstruct` leaves: scene, cameras, videos, tracks, masks and summary."""

import hashlib
import json
import math
import platform
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import movies
from movies.camera_files import save_cameras
from movies.cameras import Cameras
from movies.clip_quality import geometry_warnings
from movies.consistency import depth_agreement, parallax, reprojection
from movies.drawing import draw_tracks
from movies.files import replacing_folder
from movies.geometry import transform_points
from movies.metrics import psnr
from movies.motion import (
    flow_to_next_view,
    follow_splats,
    motion_magnitude,
    moving_masks,
    observed,
    rendered_depth,
    scene_flow,
)
from movies.novel_views import VIEWING_SIZE, render_path
from movies.reconstruct import Reconstruction
from movies.scene import Scene4D
from movies.tracks import PointTracks, Queries
from movies.trajectories import camera_path
from movies.video import contact_sheet, false_color, motion_picture, write_image, write_video

NOVEL_FRAMES, NOVEL_FPS, CLIP_FPS = 48, 16.0, 6.0
SCENE = "scene.safetensors"
TRACKS_ACROSS = 28  # grid tracks along the longer side of a view


def write_outputs(
    result: Reconstruction, folder: str | Path, weights: dict[str, dict] | None = None, arrays: bool = False
) -> dict:
    """Write everything `movies reconstruct` leaves into `folder` and return the summary.

    scene.safetensors cameras.json novel_view.mp4 input.mp4 depth.mp4 motion.mp4 tracks.npz tracks.mp4 masks/
    summary.json overview.png, and with `arrays` arrays.npz (docs/readouts.md). The files are made beside the folder and
    moved there once all are done. `weights` describes the weights used (see `describe_weights`).
    """
    with replacing_folder(folder) as temporary:
        return write_reconstruction(result, temporary, weights or {}, [], arrays)


def write_reconstruction(
    result: Reconstruction, folder: Path, weights: dict[str, dict], warnings: list[str], arrays: bool = False
) -> dict:
    scene, images, seconds = result.scene, result.clip.images, dict(result.seconds)
    size = result.clip.views.size
    num_bytes = scene.save(folder / SCENE)
    save_cameras(scene.cameras, folder / "cameras.json", size)

    started = time.perf_counter()
    device = result.splats.depth.device
    on_device = scene.to(device)
    again = torch.stack(list(render_path(on_device, on_device.cameras, on_device.view_times, size, what="input views")))
    path = camera_path("spiral", on_device, NOVEL_FRAMES)
    moments = torch.linspace(0, 1, NOVEL_FRAMES, device=device)
    novel = torch.stack(list(render_path(on_device, path, moments, size, what="novel views")))
    seconds["render"] = round(time.perf_counter() - started, 3)

    started = time.perf_counter()
    _write_pictures(result, folder, again, novel)
    readouts = _write_readouts(result, on_device, folder)
    if arrays:
        write_arrays(result, on_device, path, moments, folder / "arrays.npz")
    seconds["write"] = round(time.perf_counter() - started, 3)

    summary = _summary(result, num_bytes, psnr(again, images), seconds, weights) | readouts
    summary |= _agreement(result, warnings) | {"peak_memory": peak_memory()}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _write_pictures(result: Reconstruction, folder: Path, again: Tensor, novel: Tensor) -> None:  # [V | K, 3, H, W]
    depth = result.splats.depth[0].cpu()
    pictures = {
        "input": result.clip.images,
        "input views rendered": again,
        "novel views": novel,
        "depth": false_color(depth, torch.ones_like(depth, dtype=torch.bool), logarithmic=True),
        "motion": motion_picture(scene_flow(result.splats).cpu()),
    }
    names = {"input.mp4": "input", "novel_view.mp4": "novel views", "depth.mp4": "depth", "motion.mp4": "motion"}
    for name, key in names.items():
        write_video(folder / name, enlarged(pictures[key]), NOVEL_FPS if key == "novel views" else CLIP_FPS)
    write_image(folder / "overview.png", contact_sheet({k: enlarged(v, 224) for k, v in pictures.items()}))


def track(result: Reconstruction, scene: Scene4D, queries: Queries) -> PointTracks:
    """Pixels of the input views followed as predicted, in the user's world; `scene` is the result's, on its device."""
    device = result.splats.depth.device
    queries = queries.to(device)
    points, confidence = follow_splats(result.splats, queries)
    points = transform_points(result.transform.to(device), points * result.scale)
    return observed(scene, points, confidence, queries, result.clip.views.size)


def _write_readouts(result: Reconstruction, scene: Scene4D, folder: Path) -> dict:
    """tracks.npz, tracks.mp4 and masks/, and what the summary says of them."""
    images, size = result.clip.images, result.clip.views.size
    stride = max(1, max(size) // TRACKS_ACROSS)
    tracks = track(result, scene, Queries.grid(*size, stride, torch.arange(len(images))))
    tracks.save(folder / "tracks.npz", result.window)
    write_video(folder / "tracks.mp4", draw_tracks(enlarged(images), _each_once(tracks, scene)), CLIP_FPS)
    masks = moving_masks(result.splats)
    for v, mask in enumerate(masks):
        write_image(folder / "masks" / f"{v:04d}.png", mask.expand(3, *size))
    return {"num_tracks": len(tracks.queries), "moving_share": round(float(masks.float().mean()), 4)}


def _each_once(tracks: PointTracks, scene: Scene4D) -> PointTracks:
    """Without the tracks of what was seen before the view that they start in: other tracks follow that already."""
    earlier = tracks.times[:, None] < scene.view_times[tracks.queries.views]  # [T, P]
    return tracks.select(~(earlier & tracks.visible).any(dim=0))


def write_arrays(result: Reconstruction, scene: Scene4D, path: Cameras, moments: Tensor, file: Path) -> None:
    """The read-outs of every pixel as .npz (docs/readouts.md), lengths in the user's unit."""
    splats, size = result.splats, result.clip.views.size
    turn = result.transform[:3, :3].to(splats.depth.device)
    tensors = {
        "depth": splats.depth[0] * result.scale,
        "depth_confidence": splats.depth_confidence[0],
        "rendered_depth": rendered_depth(scene, scene.cameras, scene.view_times, size),
        "scene_flow": result.scale * scene_flow(splats)[:-1] @ turn.T,
        "optical_flow": flow_to_next_view(splats),
        "motion_magnitude": motion_magnitude(splats),
        "moving": moving_masks(splats),
        "novel_depth": rendered_depth(scene, path, moments, size),
        "novel_c2w": path.c2w,
        "novel_fxfycxcy": path.fxfycxcy,
        "novel_times": moments,
    }
    np.savez_compressed(file, **{name: tensor.cpu().numpy() for name, tensor in tensors.items()})


def _summary(result: Reconstruction, num_bytes: int, quality: Tensor, seconds: dict[str, float], weights: dict) -> dict:
    scene, (height, width) = result.scene, result.clip.views.size
    return {
        "clip": result.clip.name,
        "frames": len(result.clip.views),
        "height": height,
        "width": width,
        "window": asdict(result.window),
        "num_static": len(scene.static),
        "num_moving": len(scene.moving),
        "num_times": len(scene.times),
        "scene_bytes": num_bytes,
        "input_psnr": round(float(quality.mean()), 3),
        "input_psnr_per_view": [round(x, 3) for x in quality.tolist()],
        "network_unit": result.scale,
        "seconds": seconds,
        "weights": weights,
        "versions": {
            "movies": movies.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": str(result.splats.depth.device),
        },
    }


def _agreement(result: Reconstruction, warnings: list[str]) -> dict:
    """How far views agree with each other and the two networks with each other, and what to tell the user."""
    splats, depth = result.splats, result.splats.depth[0]
    consistency, way = reprojection(splats), parallax(splats.cameras[0], depth)
    ratio, spread = depth_agreement(result.camera_depth, depth) if result.camera_depth.numel() else (math.nan, math.nan)
    columns = zip(*(x.tolist() for x in vars(consistency).values()), strict=True)
    names = ("error_px", "share_within_1px", "overlap")
    refinement = {n: _rounded(x) if n != "said" else x for n, x in vars(result.refinement).items()}
    return {
        "camera_refinement": refinement,
        "reprojection": [{n: _rounded(x) for n, x in zip(names, row, strict=True)} for row in columns],
        "parallax": _rounded(way),
        "depth_over_camera_depth": _rounded(ratio),
        "depth_over_camera_depth_spread": _rounded(spread),
        "warnings": [*warnings, *geometry_warnings(way, consistency.overlap.cpu(), ratio)],
    }


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None  # JSON knows no NaN


def peak_memory() -> dict[str, int]:
    """The most memory this process has held so far, in bytes: resident, and on the GPU where there is one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    return peak | ({"cuda": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {})


def describe_weights(model: nn.Module, name: str) -> dict:
    """What summary.json says of weights: name, class, config, and a digest of every parameter."""
    config = json.loads(model.config.to_json())
    parameters = sum(p.numel() for p in model.parameters())
    return {"name": name, "model": type(model).__name__, "parameters": parameters, "sha256": weights_digest(model)} | {
        "config": config
    }


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of every parameter, its name included."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def enlarged(images: Tensor, longer_side: int = VIEWING_SIZE) -> Tensor:  # [K, 3, H, W] -> [K, 3, H', W']
    """Small pictures enlarged by a whole factor to at least the longer side; large ones as they are."""
    factor = -(-longer_side // max(images.shape[-2:]))
    if factor <= 1:
        return images
    return F.interpolate(images.float(), scale_factor=factor, mode="bicubic", align_corners=False).clamp(0, 1)
