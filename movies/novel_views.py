"""Films of a scene: rendered from a named path or a camera file, frame by frame, with depth and motion beside."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.camera_files import load_cameras
from movies.cameras import Cameras
from movies.errors import InputError
from movies.files import replacing_file
from movies.long_paths import STANDING, long_path
from movies.long_scene import LongScene, load_scene
from movies.metrics import psnr
from movies.motion import rendered_depth, rendered_flow
from movies.rendering import render
from movies.scene import Scene4D
from movies.trajectories import camera_path, interpolate, time_path
from movies.video import check_video_suffix, false_color, motion_picture, open_clip, write_video
from movies.widening import widened

NUM_FRAMES = 48
VIEWING_SIZE = 448  # longer side of a picture that one can look at
BACKGROUNDS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0)}


def render_video(
    scene_path: str | Path,
    out: str | Path,
    path: str = "orbit",
    cameras: str | Path | None = None,
    time: float | None = None,
    frames: int | None = None,
    fps: float = 16.0,
    size: int | None = None,
    backend: str = "auto",
    time_map: str | None = None,
    background: str = "black",
    depth: str | Path | None = None,
    motion: str | Path | None = None,
    clip: str | Path | None = None,
) -> None:
    """Render a stored scene into a video, from a named path or from the cameras of a file (in the scene's world).

    The clip's time runs along the path as `time_map` says (`movies.trajectories.time_path`): the whole clip plays once
    where it is not given, or stands still at `time` where that is. `frames` is how many there are (48 along a path;
    one for each camera of a file, between which more are interpolated), `size` the longer side in pixels, `background`
    "black", "white" or three numbers from 0 to 1. `depth` and `motion` are videos to write beside, as false colours.
    `clip` is shown to the left, each frame at its time. Raises InputError for anything that does not fit; all videos
    are written or none.
    """
    _check_film([Path(place) for place in (out, depth, motion) if place is not None], fps, size, frames)
    behind = parse_background(background)
    time_map = time_map or ("play" if time is None else "freeze")
    time_path(time_map, 1, time)
    device = "cuda" if torch.cuda.is_available() and backend != "cpu" else "cpu"
    scene, own = load_scene(scene_path).to(device), None
    if cameras is not None:
        given = load_cameras(cameras).to(device)
        views = given if frames is None else interpolate(given, frames)
    elif isinstance(scene, LongScene):
        views, own = long_path(path, scene, frames or (NUM_FRAMES if path in STANDING else len(scene.cameras)), time)
    else:
        views = camera_path(path, scene, frames or NUM_FRAMES)
    moments, shape = time_path(time_map, len(views), time).to(device), scene_size(scene, size)
    if own is not None and time_map != "freeze":  # a long scene's path has times of its own
        moments = own[(moments * (len(own) - 1)).round().long()]
    if isinstance(scene, Scene4D) and scene.image_size[1]:
        scene = widened(scene, shape[1] / scene.image_size[1])
    pictures = render_path(scene, views, moments, shape, backend, background=behind.to(device))
    if clip is not None:
        pictures = _side_by_side(clip_at(clip, moments.cpu(), shape), pictures)
    with ExitStack() as files:
        write_video(files.enter_context(replacing_file(out)), pictures, fps)
        if depth is not None:
            write_video(files.enter_context(replacing_file(depth)), depth_pictures(scene, views, moments, shape), fps)
        if motion is not None:
            write_video(files.enter_context(replacing_file(motion)), motion_pictures(scene, views, moments, shape), fps)


def _check_film(places: list[Path], fps: float, size: int | None, frames: int | None) -> None:
    for place in places:
        check_video_suffix(place)
        if place.is_dir():
            raise InputError(f"{place}: a folder; give the video to write")
        if places.count(place) > 1:
            raise InputError(f"{place}: named for two videos; give each a file of its own")
    if fps <= 0:
        raise InputError(f"the frames per second must be above 0, got {fps:g}")
    if size is not None and size < 2:
        raise InputError(f"the size must be at least 2 pixels, got {size}")
    if frames is not None and frames < 1:
        raise InputError(f"the number of frames must be at least 1, got {frames}")


def parse_background(text: str) -> Tensor:  # -> [3]
    """ "black", "white" or red, green and blue from 0 to 1 as `0.2,0.2,0.3`. Raises InputError for anything else."""
    if text in BACKGROUNDS:
        return torch.tensor(BACKGROUNDS[text])
    try:
        color = torch.tensor([float(number) for number in text.split(",")])
    except ValueError:
        color = torch.zeros(0)
    if len(color) != 3 or not ((color >= 0) & (color <= 1)).all():
        raise InputError(f"background {text!r}: give black, white, or red,green,blue from 0 to 1 as 0.2,0.2,0.3")
    return color


@torch.no_grad()
def render_path(
    scene: Scene4D,
    cameras: Cameras,
    times: Tensor,
    size: tuple[int, int],
    backend: str = "auto",
    what: str = "render",
    background: Tensor | None = None,
) -> Iterator[Tensor]:  # [K], [K], [3] -> [3, H, W] each, on the CPU
    """Render one frame after another, with a progress bar once it takes long."""
    for k in _steps(len(times), what):
        yield render(scene.at(times[k]), cameras[k], *size, background=background, backend=backend).images.cpu()


@torch.no_grad()
def depth_pictures(scene: Scene4D, cameras: Cameras, times: Tensor, size: tuple[int, int]) -> Tensor:  # [K, 3, H, W]
    """Rendered z-depth in false colours, one range for all frames; black where nothing is seen."""
    parts = [rendered_depth(scene, cameras[k : k + 1], times[k : k + 1], size) for k in _steps(len(times), "depth")]
    depth = torch.cat(parts).cpu()
    return false_color(depth, depth > 0, logarithmic=True)


def motion_pictures(scene: Scene4D, cameras: Cameras, times: Tensor, size: tuple[int, int]) -> Tensor:  # [K, 3, H, W]
    """What each pixel shows moves so from one stored time to the next, as colours (`motion_picture`)."""
    span, flows = scene.times.max() - scene.times.min(), []
    step = span / max(len(scene.times) - 1, 1)
    for k in _steps(len(times), "motion"):
        sign = 1.0 if times[k] + 0.99 * step <= scene.times.max() else -1.0  # at the end, back and negated
        part = scene.window(float(times[k])) if isinstance(scene, LongScene) else scene
        flow = rendered_flow(part, cameras[k], times[k], (times[k] + sign * step)[None], size)
        flows.append(sign * flow.offsets[0].cpu())
    return motion_picture(torch.stack(flows))


def _steps(count: int, what: str) -> Iterator[int]:
    from tqdm import tqdm

    return iter(tqdm(range(count), desc=what, delay=2, disable=None, leave=False))


def clip_at(path: str | Path, times: Tensor, size: tuple[int, int]) -> Tensor:  # [K] -> [K, 3, H, W] uint8
    """The frames of a clip nearest to these times, framed as a scene of it is: filling the size, cropped evenly."""
    clip = open_clip(path)
    wanted, places = (times * (clip.num_total - 1)).round().long().unique(return_inverse=True)
    return torch.stack([_filling(frame, size) for frame in clip.stream(wanted)])[places]


def _filling(frame: Tensor, size: tuple[int, int]) -> Tensor:  # [3, H, W] -> uint8 [3, *size]
    grow = max(new / old for new, old in zip(size, frame.shape[1:], strict=True))
    whole = [max(new, round(old * grow)) for new, old in zip(size, frame.shape[1:], strict=True)]
    image = F.interpolate(frame[None], whole, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = ((a - b) // 2 for a, b in zip(whole, size, strict=True))
    return (image[:, top : top + size[0], left : left + size[1]].clamp(0, 1) * 255).round().byte()


def _side_by_side(left: Tensor, right: Iterator[Tensor]) -> Iterator[Tensor]:  # [K, 3, H, W] uint8, [3, H, W] each
    for a, b in zip(left, right, strict=True):
        yield torch.cat([a / 255, b], dim=-1)


def scene_size(scene: Scene4D, longer_side: int | None = None) -> tuple[int, int]:
    """(height, width) to render a scene at: that of its input views, or one with this longer side, both even."""
    height, width = scene.image_size
    if not height:  # square pixels: fx * W = fy * H
        fx, fy = scene.cameras.fxfycxcy[0, :2].tolist()
        height, width, longer_side = 1.0, fy / fx, longer_side or VIEWING_SIZE
    enlarge = longer_side / max(height, width) if longer_side else 1.0
    return tuple(max(2, 2 * round(n * enlarge / 2)) for n in (height, width))


def psnr_of_views(scene: Scene4D, images: Tensor, cameras: Cameras, times: Tensor) -> Tensor:  # -> [K] dB
    """PSNR of a scene rendered at `cameras` [K] and `times` [K] against `images` [K, 3, H, W]."""
    frames = render_path(scene, cameras, times, tuple(images.shape[-2:]), what="compare")
    return psnr(torch.stack(list(frames)), images)
