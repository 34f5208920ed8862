"""Films of a scene: rendered from a named path or a camera file, frame by frame."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from movies.camera_files import load_cameras
from movies.cameras import Cameras
from movies.errors import InputError
from movies.metrics import psnr
from movies.rendering import render
from movies.scene import Scene4D
from movies.trajectories import camera_path, interpolate
from movies.video import check_video_suffix, write_video

NUM_FRAMES = 48
VIEWING_SIZE = 448  # longer side of a picture that one can look at


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
) -> None:
    """Render a stored scene into a video, from a named path or from the cameras of a file (in the scene's world).

    The whole clip plays once along the path, or stands still at `time`. `frames` is how many there are (48 along a
    path; one for each camera of a file, between which more are interpolated), `size` the longer side in pixels.
    Raises InputError for anything that does not fit.
    """
    check_video_suffix(out)
    if fps <= 0:
        raise InputError(f"the frames per second must be above 0, got {fps:g}")
    if size is not None and size < 2:
        raise InputError(f"the size must be at least 2 pixels, got {size}")
    if frames is not None and frames < 1:
        raise InputError(f"the number of frames must be at least 1, got {frames}")
    device = "cuda" if torch.cuda.is_available() and backend != "cpu" else "cpu"
    scene = Scene4D.load(scene_path).to(device)
    if cameras is None:
        views = camera_path(path, scene, frames or NUM_FRAMES)
    else:
        given = load_cameras(cameras).to(device)
        views = given if frames is None else interpolate(given, frames)
    moments = torch.linspace(0, 1, len(views)) if time is None else torch.full((len(views),), time)
    write_video(out, render_path(scene, views, moments.to(device), scene_size(scene, size), backend), fps)


@torch.no_grad()
def render_path(
    scene: Scene4D, cameras: Cameras, times: Tensor, size: tuple[int, int], backend: str = "auto", what: str = "render"
) -> Iterator[Tensor]:  # [K], [K] -> [3, H, W] each, on the CPU
    """Render one frame after another, with a progress bar once it takes long."""
    from tqdm import tqdm

    for camera, moment in tqdm(
        zip(cameras, times, strict=True), total=len(times), desc=what, delay=2, disable=None, leave=False
    ):
        yield render(scene.at(moment), camera, *size, backend=backend).images.cpu()


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
