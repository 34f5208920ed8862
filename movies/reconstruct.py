"""reconstruct: a Clip to DynamicSplats to a Scene4D, with cameras estimated where none are given; and its files."""

import hashlib
import json
import math
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import movies
from movies.camera_files import save_cameras
from movies.clip import Clip
from movies.clip_quality import frame_warnings, geometry_warnings
from movies.consistency import depth_agreement, parallax, reprojection
from movies.errors import InputError
from movies.files import replacing_folder
from movies.metrics import psnr
from movies.model.config import ModelConfig
from movies.model.network import MoVieS
from movies.model.vggt import VGGT, VGGTPrediction
from movies.model.weights import Pretrained, find_weights
from movies.motion import grid_tracks, moving_masks, scene_flow
from movies.network_world import fit_resolution, network_world
from movies.novel_views import VIEWING_SIZE, render_path
from movies.scene import Scene4D
from movies.splats import DynamicSplats
from movies.trajectories import camera_path
from movies.video import contact_sheet, false_color, motion_picture, read_thumbnails, write_image, write_video

NOVEL_FRAMES, NOVEL_FPS, CLIP_FPS = 48, 16.0, 6.0
TRACKS_ACROSS = 28  # grid tracks along the longer side of a view
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PHASES = ("cameras", "encode", "decode", "scene")


@dataclass(frozen=True)
class Reconstruction:
    """A scene in the user's world, and how it came about.

    `splats` stay in the network's world; x_user = transform (scale * x_network).
    """

    scene: Scene4D
    splats: DynamicSplats  # [1, T, ...]
    clip: Clip  # the frames as the network saw them; cameras in the user's world
    scale: float
    transform: Tensor  # [4, 4]
    camera_depth: Tensor  # [V, H, W] that the camera network sees, network's world; [0, 0, 0] without one
    seconds: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def reconstruct(
    clip: Clip,
    model: MoVieS,
    vggt: Callable[[Tensor], VGGTPrediction] | None = None,
    resolution: int | None = None,
) -> Reconstruction:
    """Reconstruct the context views of `clip` on the model's device, at the times of these views.

    `vggt` estimates cameras where the clip has none, and their unit where it has. `resolution` is the longer side in
    pixels the network sees (a multiple of its patch; the model's own by default). Raises InputError for a clip without
    cameras and no `vggt`, and for a resolution that does not fit.
    """
    if not clip.has_cameras and vggt is None:
        raise InputError("the clip has no cameras: give a VGGT to estimate them, or cameras with the clip")
    device = next(model.parameters()).device
    clip = fit_resolution(clip, resolution or model.config.image_size, model.config.patch_size)
    images, times = clip.context.images[None].to(device), clip.context.times[None].to(device)
    seconds: dict[str, float] = {}
    with _phases(seconds) as phase:
        phase("cameras")
        world = network_world(clip, vggt(images) if vggt is not None else None, device)
        phase("encode")
        tokens = model.encode(images, world.cameras[None], times)
        phase("decode")
        splats = model.decode(tokens, times)
        del tokens
        phase("scene")
        scene = splats.to_scene().to("cpu").placed(world.scale, world.transform)
    seen = replace(clip, views=replace(clip.views, cameras=scene.cameras), has_cameras=True)
    return Reconstruction(scene, splats, seen, world.scale, world.transform, world.depth, seconds)


def reconstruct_file(
    path: str | Path,
    out: str | Path,
    weights: str = "tiny",
    camera_weights: str = "tiny",
    cameras: str | Path | None = None,
    frames: int = 13,
    resolution: int | None = None,
    device: str = "auto",
    dtype: str = "fp32",
) -> dict:
    """Video (and camera file) to a folder of outputs; returns the summary. What `movies reconstruct` calls.

    In `dtype` "bf16" products and convolutions run in bf16 and weights take half the memory. The camera network is
    freed before the other is loaded. Everything a user can get wrong raises InputError, and an output folder that
    cannot be written OSError, before the long work begins.
    """
    with replacing_folder(out) as folder:
        place, precision = choose_device(device), choose_dtype(dtype)
        found, found_cameras = find_weights("MoVieS", weights), find_weights("VGGT", camera_weights)
        found.check(MoVieS)
        found_cameras.check(_camera_network)
        clip = Clip.load(path, frames, cameras)
        clip = fit_resolution(clip, resolution or found.config.image_size, found.config.patch_size)
        warnings = frame_warnings(clip.images, read_thumbnails(path))

        prediction, described, took = _estimate(found_cameras, clip, place, precision, camera_weights)
        started = time.perf_counter()
        model = found.load(MoVieS, precision).to(place)
        described = {"movies": describe_weights(model, weights), "vggt": described}
        took["load"] = round(took["load"] + time.perf_counter() - started, 3)
        result = reconstruct(clip, model, lambda _: prediction, max(clip.views.size))
        del model
        seconds = result.seconds | {"load": took["load"], "cameras": took["cameras"] + result.seconds["cameras"]}
        return _write_all(replace(result, seconds=seconds), folder, described, warnings)


def _camera_network(config: ModelConfig) -> VGGT:
    """VGGT as far as cameras and depth need it."""
    return VGGT(config, points=False)


@torch.no_grad()
def _estimate(
    found: Pretrained, clip: Clip, place: torch.device, dtype: torch.dtype, name: str
) -> tuple[VGGTPrediction, dict, dict[str, float]]:
    """What VGGT says of the clip, its weights described, and the seconds; the network itself is gone afterwards."""
    started = time.perf_counter()
    vggt = found.load(_camera_network, dtype).to(place)
    described = describe_weights(vggt, name)
    loaded = time.perf_counter()
    prediction = vggt(clip.context.images[None].to(place))
    seconds = {"load": loaded - started, "cameras": round(time.perf_counter() - loaded, 3)}
    return prediction, described, seconds


def choose_dtype(name: str) -> torch.dtype:
    """Raises InputError for anything but "fp32" and "bf16"."""
    if name not in DTYPES:
        raise InputError(f"unknown dtype {name!r}: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one. Raises InputError for a device that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"unknown device {name!r}: choose one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda is not available here; use --device cpu, and see `movies doctor`")
    return torch.device(name)


@contextmanager
def _phases(seconds: dict[str, float]) -> Iterator:
    """Yields phase(name), which times the phase before it and moves the progress bar on."""
    from tqdm import tqdm

    started, running = [time.perf_counter()], []
    with tqdm(total=len(PHASES), desc="reconstruct", delay=2, disable=None, leave=False) as bar:

        def phase(name: str) -> None:
            finish()
            running.append(name)
            bar.set_postfix_str(name)

        def finish() -> None:
            if running:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds[running[-1]] = round(time.perf_counter() - started[0], 3)
                bar.update()
            started[0] = time.perf_counter()

        yield phase
        finish()


def write_outputs(result: Reconstruction, folder: str | Path, weights: dict[str, dict] | None = None) -> dict:
    """Write everything `movies reconstruct` leaves into `folder` and return the summary.

    scene.safetensors cameras.json novel_view.mp4 input.mp4 depth.mp4 motion.mp4 tracks.npz summary.json overview.png.
    The files are made beside the folder and moved there once all are done. `weights` describes the weights used
    (see `describe_weights`).
    """
    with replacing_folder(folder) as temporary:
        return _write_all(result, temporary, weights or {}, [])


def _write_all(result: Reconstruction, folder: Path, weights: dict[str, dict], warnings: list[str]) -> dict:
    scene, images, seconds = result.scene, result.clip.images, dict(result.seconds)
    size = result.clip.views.size
    num_bytes = scene.save(folder / "scene.safetensors")
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
    depth = result.splats.depth[0].cpu()
    pictures = {
        "input": images,
        "input views rendered": again,
        "novel views": novel,
        "depth": false_color(depth, torch.ones_like(depth, dtype=torch.bool), logarithmic=True),
        "motion": motion_picture(scene_flow(result.splats).cpu()),
    }
    names = {"input.mp4": "input", "novel_view.mp4": "novel views", "depth.mp4": "depth", "motion.mp4": "motion"}
    for name, key in names.items():
        write_video(folder / name, enlarged(pictures[key]), NOVEL_FPS if key == "novel views" else CLIP_FPS)
    write_image(folder / "overview.png", contact_sheet({k: enlarged(v, 224) for k, v in pictures.items()}))
    stride = max(1, max(size) // TRACKS_ACROSS)
    tracks = grid_tracks(result.splats, stride)
    moved = replace(tracks, points=tracks.points.cpu()).placed(result.scale, result.transform)
    moved.save(folder / "tracks.npz")
    seconds["write"] = round(time.perf_counter() - started, 3)

    summary = _summary(result, num_bytes, psnr(again, images), seconds, weights, len(tracks.query_views))
    summary |= _agreement(result, warnings) | {"peak_memory": peak_memory()}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _summary(
    result: Reconstruction, num_bytes: int, quality: Tensor, seconds: dict[str, float], weights: dict, num_tracks: int
) -> dict:
    scene, (height, width) = result.scene, result.clip.views.size
    return {
        "clip": result.clip.name,
        "frames": len(result.clip.views),
        "height": height,
        "width": width,
        "num_static": len(scene.static),
        "num_moving": len(scene.moving),
        "num_times": len(scene.times),
        "num_tracks": num_tracks,
        "moving_share": round(float(moving_masks(result.splats).float().mean()), 4),
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
    return {
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
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    config = json.loads(model.config.to_json())
    parameters = sum(p.numel() for p in model.parameters())
    return {"name": name, "model": type(model).__name__, "parameters": parameters, "sha256": digest.hexdigest()} | {
        "config": config
    }


def enlarged(images: Tensor, longer_side: int = VIEWING_SIZE) -> Tensor:  # [K, 3, H, W] -> [K, 3, H', W']
    """Small pictures enlarged by a whole factor to at least the longer side; large ones as they are."""
    factor = -(-longer_side // max(images.shape[-2:]))
    if factor <= 1:
        return images
    return F.interpolate(images.float(), scale_factor=factor, mode="bicubic", align_corners=False).clamp(0, 1)
