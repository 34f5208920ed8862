"""reconstruct: a Clip to DynamicSplats to a Scene4D, with cameras estimated where none are given; and its files.

The network works in a world of its own: the first view's camera is the identity, and points lie at mean distance 1 or
so. Without given cameras that world and VGGT's unit are kept. Given cameras are brought there and the scene is brought
back: the unit is the one in which VGGT's depth and the given cameras explain the frames best (each frame warped into
others). Where it cannot be had (no VGGT, or cameras that stand still), one unit of the given world is taken for one of
the network's.
"""

import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import movies
from movies.camera_files import save_cameras
from movies.cameras import Cameras
from movies.clip import Clip
from movies.errors import InputError
from movies.files import replacing_folder
from movies.geometry import project, unproject
from movies.metrics import psnr
from movies.model.network import MoVieS
from movies.model.vggt import VGGT, VGGTPrediction
from movies.motion import grid_tracks, moving_masks, scene_flow
from movies.novel_views import VIEWING_SIZE, render_path
from movies.scene import Scene4D
from movies.splats import DynamicSplats
from movies.trajectories import camera_path
from movies.video import contact_sheet, false_color, motion_picture, write_image, write_video

NOVEL_FRAMES, NOVEL_FPS, CLIP_FPS = 48, 16.0, 6.0
TRACKS_ACROSS = 28  # grid tracks along the longer side of a view
REACH, NUM_UNITS = (0.02, 4.0), 36  # how far apart cameras may be in the network's unit, and the steps between
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
    seconds: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def reconstruct(clip: Clip, model: MoVieS, vggt: VGGT | None = None, resolution: int | None = None) -> Reconstruction:
    """Reconstruct the context views of `clip` on the model's device, at the times of these views.

    `resolution` is the longer side in pixels the network sees (a multiple of its patch; the model's own by default).
    Raises InputError for a clip without cameras and no `vggt`, and for a resolution that does not fit.
    """
    if not clip.has_cameras and vggt is None:
        raise InputError("the clip has no cameras: give a VGGT to estimate them, or cameras with the clip")
    device = next(model.parameters()).device
    clip = fit_resolution(clip, resolution or model.config.image_size, model.config.patch_size)
    images, times = clip.context.images[None].to(device), clip.context.times[None].to(device)
    seconds: dict[str, float] = {}
    with _phases(seconds) as phase:
        phase("cameras")
        prediction = vggt(images) if vggt is not None else None
        cameras, scale, transform = network_cameras(clip, prediction, device)
        phase("encode")
        tokens = model.encode(images, cameras[None], times)
        phase("decode")
        splats = model.decode(tokens, times)
        phase("scene")
        scene = splats.to_scene().to("cpu").placed(scale, transform)
    seen = replace(clip, views=replace(clip.views, cameras=scene.cameras), has_cameras=True)
    return Reconstruction(scene, splats, seen, scale, transform, seconds)


def fit_resolution(clip: Clip, resolution: int, patch_size: int) -> Clip:
    """The context views resized so that the longer side is `resolution`, the shorter the nearest multiple of the patch.

    The picture's proportions stay: what does not fit is cropped evenly from both edges, and the cameras follow.
    """
    if resolution < patch_size or resolution % patch_size:
        below = max(patch_size, resolution // patch_size * patch_size)
        raise InputError(f"resolution must be a multiple of the patch size {patch_size}, got {resolution}; try {below}")
    clip = replace(clip, views=clip.context, tracks=clip.tracks.select(slice(0, clip.num_context)))
    height, width = clip.views.size
    shrink = resolution / max(height, width)
    goal = [max(patch_size, round(n * shrink / patch_size) * patch_size) for n in (height, width)]
    grow = max(goal[0] / height, goal[1] / width)
    new = [max(g, round(n * grow)) for g, n in zip(goal, (height, width), strict=True)]
    top, left = (new[0] - goal[0]) // 2, (new[1] - goal[1]) // 2
    return clip.resized(*new).cropped(top, left, *goal)


def network_cameras(
    clip: Clip, prediction: VGGTPrediction | None, device: torch.device
) -> tuple[Cameras, float, Tensor]:  # [V], scale and transform [4, 4] from the network's world to the user's
    """The context cameras in the network's world, and the way back."""
    if not clip.has_cameras:
        estimated = prediction.cameras[0]
        estimated = estimated.relative_to(estimated[:1])
        if not (estimated.c2w.isfinite().all() and estimated.fxfycxcy.isfinite().all()):
            raise InputError("the camera estimate is not finite: the camera weights do not fit this clip")
        return estimated, 1.0, torch.eye(4)
    given = clip.context.cameras
    canonical = given.relative_to(given[:1]).to(device)
    unit = 1.0
    if prediction is not None:
        unit = network_unit(clip.context.images.to(device), prediction.depth[0], canonical)
    return canonical.rescaled(unit), 1 / unit, given.c2w[0].cpu()


def network_unit(images: Tensor, depth: Tensor, cameras: Cameras) -> float:  # [V, 3, H, W], [V, H, W], [V]
    """What lengths of the cameras' world are multiplied by to agree with `depth`; 1 for cameras that stand still.

    The factor that best explains the frames by one another, of a row of factors 16 % apart, refined by a parabola.
    Depth is trusted for this rather than VGGT's camera centres: a small error there turns a small baseline into none.
    """
    reach = float(torch.cdist(cameras.centers, cameras.centers).max())
    if reach < 1e-8:
        return 1.0
    low, high = (math.log(x / reach) for x in REACH)
    steps = torch.linspace(low, high, NUM_UNITS).tolist()
    costs = [_mismatch(images, depth, cameras.rescaled(math.exp(step))) for step in steps]
    best = min(range(len(steps)), key=costs.__getitem__)
    if not 0 < best < len(steps) - 1:
        return math.exp(steps[best])
    before, here, after = costs[best - 1 : best + 2]
    curvature = before - 2 * here + after
    shift = 0.5 * (before - after) / curvature if curvature > 0 else 0.0
    return math.exp(steps[best] + shift * (steps[1] - steps[0]))


def _mismatch(images: Tensor, depth: Tensor, cameras: Cameras) -> float:
    """Mean absolute difference of frames and other frames warped into them through the depth."""
    num_views, _, height, width = images.shape
    points = unproject(depth, cameras.fxfycxcy, cameras.c2w).flatten(1, 2)  # [V, HW, 3]
    unseen = (images - images.mean(dim=(2, 3), keepdim=True)).abs().mean()  # as if matched with anything
    costs = []
    for gap in sorted({1, max(1, num_views // 4), num_views // 2}):
        others = (torch.arange(num_views, device=depth.device) + gap) % num_views
        positions, z = project(points, cameras.fxfycxcy[others], cameras.c2w[others])  # [V, HW, 2], [V, HW]
        inside = ((positions >= 0) & (positions <= 1)).all(dim=-1) & (z > 1e-3)
        grid = (2 * positions - 1).unflatten(1, (height, width)).clamp(-2, 2)
        warped = F.grid_sample(images[others], grid, align_corners=False, padding_mode="border")
        difference = (warped - images).abs().mean(dim=1).flatten(1)  # [V, HW]
        costs.append(torch.where(inside, difference, unseen).mean())
    return float(torch.stack(costs).mean())


def reconstruct_file(
    path: str | Path,
    out: str | Path,
    weights: str = "tiny",
    camera_weights: str = "tiny",
    cameras: str | Path | None = None,
    frames: int = 13,
    resolution: int | None = None,
    device: str = "auto",
) -> dict:
    """Video (and camera file) to a folder of outputs; returns the summary. What `movies reconstruct` calls.

    Everything a user can get wrong raises InputError, and an output folder that cannot be written OSError, before
    the long work begins.
    """
    with replacing_folder(out) as folder:
        clip = Clip.load(path, frames, cameras)
        place = choose_device(device)
        model, vggt = MoVieS.from_pretrained(weights), VGGT.from_pretrained(camera_weights)
        described = {"movies": describe_weights(model, weights), "vggt": describe_weights(vggt, camera_weights)}
        result = reconstruct(clip, model.to(place), vggt.to(place), resolution)
        return _write_all(result, folder, described)


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
        return _write_all(result, temporary, weights or {})


def _write_all(result: Reconstruction, folder: Path, weights: dict[str, dict]) -> dict:
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


def describe_weights(model: nn.Module, name: str) -> dict:
    """What summary.json says of weights: name, class, config, and a digest of every parameter."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
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
