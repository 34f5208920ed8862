"""The job of `movies track`: pixels of a stored scene or of a clip, followed to all times, into a file and a video."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from movies.d4rt.network import D4RT
from movies.d4rt.reading import D4RTReading
from movies.drawing import draw_tracks
from movies.errors import InputError
from movies.jobs import prepared, reconstructed
from movies.long_queries import image_shape, open_networks, query_plan
from movies.long_tracks import follow_through
from movies.long_video.frames import open_frames
from movies.motion import follow_scene, observed
from movies.novel_views import render_path, scene_size
from movies.outputs import CLIP_FPS, SCENE, enlarged, track
from movies.query_jobs import load_clip, open_reader
from movies.reconstruct import choose_device
from movies.scene import Scene4D
from movies.tracks import PointTracks, Queries, Window
from movies.video import check_video_suffix, write_video


def track_file(
    source: str | Path,
    out: str | Path,
    points: tuple[str, ...] = (),
    grid: int | None = None,
    grid_frame: int = 0,
    video: str | Path | None = None,
    weights: str = "tiny",
    camera_weights: str = "tiny",
    cameras: str | Path | None = None,
    frames: int = 13,
    resolution: int | None = None,
    device: str = "auto",
) -> PointTracks:
    """Follow pixels of a stored scene, or of a clip, which is reconstructed first. What `movies track` calls.

    `source` is a scene.safetensors, the folder of one, or a clip. `points` are x,y,frame: pixels of the clip's frames
    (of the scene's views, where no summary.json beside it tells of a clip) and the number of a frame read. After them
    come `grid` points across the longer side of frame `grid_frame`. A clip's tracks are as predicted, a scene's follow
    what renders the pixel. Raises InputError for what does not fit, before the long work begins.
    """
    _check_request(points, grid, out, video)
    path = Path(source) / SCENE if (Path(source) / SCENE).is_file() else Path(source)
    if path.suffix == Path(SCENE).suffix:
        scene = Scene4D.load(path).to(choose_device(device))
        window = _stored_window(path, scene)
        tracks = track_scene(scene, _queries(points, grid, grid_frame, window, len(scene.cameras)))
        images = _pictures(scene, tracks) if video is not None else torch.zeros(0)
    else:
        task = prepared(source, weights, camera_weights, cameras, frames, resolution, device, "fp32")
        window, images = task.window, task.clip.images
        queries = _queries(points, grid, grid_frame, window, len(images))
        result, _ = reconstructed(task)
        tracks = track(result, result.scene.to(task.place), queries)
    _write(tracks, out, video, window, images)
    return tracks


def track_by_queries(
    clip: str | Path,
    out: str | Path,
    points: tuple[str, ...] = (),
    grid: int | None = None,
    grid_frame: int = 0,
    video: str | Path | None = None,
    weights: str = "tiny",
    frames: int | Literal["all"] | None = None,
    device: str = "auto",
) -> PointTracks:
    """`track_file` of a clip by D4RT, which is asked for the points alone; `frames` None: as many as it knows.

    More are followed through chunks that share frames, in the memory of one; where nothing is known they are NaN.
    """
    _check_request(points, grid, out, video)
    found = D4RT.find(weights)
    if frames is None or (frames != "all" and frames <= found.config.num_frames):
        model = found.load(D4RT).to(choose_device(device))
        loaded = load_clip(clip, model, frames)
        images, window = loaded.images, Window(*loaded.views.size)
        queries = _queries(points, grid, grid_frame, window, len(images))
        reader, size = open_reader(model, loaded)
        place = reader.tokens.features.device
        tracks = D4RTReading(reader, size, loaded.times.to(place)).tracks(queries.to(place))
    else:
        source = open_frames(clip, None if frames == "all" else frames)
        images = source.stream(list(range(len(source))))
        window = Window(*image_shape(source))
        queries = _queries(points, grid, grid_frame, window, len(source))
        networks = open_networks(found, weights, source, device)
        tracks = follow_through(source, query_plan(source, found.config.num_frames), networks, queries)
    _write(tracks, out, video, window, images)
    return tracks


def _write(
    tracks: PointTracks, out: str | Path, video: str | Path | None, window: Window, images: Iterable[Tensor]
) -> None:  # [3, H, W] each
    tracks.save(out, window)
    if video is not None:
        write_video(video, draw_tracks((enlarged(image[None])[0] for image in images), tracks), CLIP_FPS)


def _check_request(points: tuple[str, ...], grid: int | None, out: str | Path, video: str | Path | None) -> None:
    if Path(out).suffix.lower() != ".npz":
        raise InputError(f"{out}: tracks are written as .npz; name it so")
    if video is not None:
        check_video_suffix(video)
    if not points and grid is None:
        raise InputError("nothing to follow: give --points x,y,frame, or --grid N")


def _queries(points: tuple[str, ...], grid: int | None, grid_frame: int, window: Window, num_views: int) -> Queries:
    """The pixels that a user asks for. Raises InputError for those that are not there."""
    asked = Queries.parse(points, window, num_views)
    if grid is None:
        return asked
    if grid < 1:
        raise InputError(f"a grid needs at least 1 point across, got {grid}")
    if not 0 <= grid_frame < num_views:
        raise InputError(f"there is no frame {grid_frame} for the grid; frames read are 0 to {num_views - 1}")
    size = (window.height * window.rows, window.width * window.columns)
    across = (max(1, round(grid * side / max(size))) for side in size)
    return Queries.cat([asked, Queries.grid(*across, 1, torch.tensor([grid_frame]))])


def track_scene(scene: Scene4D, queries: Queries) -> PointTracks:
    """What renders the pixels of a scene's input views, followed to its stored times."""
    size, queries = scene_size(scene), queries.to(scene.times.device)
    return observed(scene, *follow_scene(scene, queries, scene.times, size), queries, size)


def _pictures(scene: Scene4D, tracks: PointTracks) -> Tensor:  # [T, 3, H, W]
    """A scene keeps no frames: what its cameras see of it stands for them."""
    return torch.stack(list(render_path(scene, tracks.cameras, tracks.times, scene_size(scene), what="input views")))


def _stored_window(path: Path, scene: Scene4D) -> Window:
    """The clip's frames as the summary beside a scene remembers them; the scene's own views where there is none."""
    try:
        summary = json.loads((path.parent / "summary.json").read_text())
        if (summary["height"], summary["width"], summary["frames"]) == (*scene.image_size, len(scene.cameras)):
            return Window(**summary["window"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no summary, or another program's
    return Window(*scene_size(scene))
