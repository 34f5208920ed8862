"""Points followed through a clip or a scene."""

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from movies.commands.arguments import File, OptionalFile, Weights
from movies.errors import InputError


def track(
    source: Positional[Annotated[str, arg(metavar="SCENE|CLIP")]],
    out: File,
    points: Annotated[tuple[str, ...], arg(metavar="X,Y,FRAME ...")] = (),
    grid: int | None = None,
    grid_frame: int = 0,
    video: OptionalFile = None,
    model: Literal["movies", "d4rt"] = "movies",
    weights: Weights = "tiny",
    camera_weights: Weights = "tiny",
    cameras: OptionalFile = None,
    frames: int | Literal["all"] | None = None,
    resolution: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Follow pixels to all times: 3D points, their pixels, whether they are seen.

    Example: movies track clip.mp4 --points 120,64,0 300,80,6 --grid 16 --out tracks.npz --video tracks.mp4

    Args:
        source: A reconstructed scene (its folder or scene.safetensors), or a clip, which is reconstructed first.
        out: The .npz to write (docs/readouts.md).
        points: Pixels of the clip's own frames, x right and y down from the upper left corner, 0,0; the frame is
            counted among those read, from 0, as input.mp4 shows them.
        grid: So many points across the longer side of a frame, in rows and columns.
        grid_frame: The frame of the grid.
        video: A video of the frames with the tracks drawn on them.
        model: For a clip, as are all options below. d4rt asks a query network for these points alone; of the options
            below it takes weights, frames and device.
        weights: Weights of the model.
        camera_weights: VGGT weights.
        cameras: Cameras of the clip, as for `movies reconstruct`.
        frames: How many frames are read, evenly over the clip (default: 13; with d4rt as many as its weights know, and
            more, or all, in chunks).
        resolution: Longer side that the network sees.
        device: Where to compute.
    """
    from movies.tracking import track_by_queries, track_file

    asked = (source, out, points, grid, grid_frame, video)
    if model == "d4rt":
        tracks = track_by_queries(*asked, weights, frames, device)
    else:
        if frames == "all":
            raise InputError("--frames all is for --model d4rt; reconstruct --frames all leaves tracks of movies")
        count = 13 if frames is None else frames
        tracks = track_file(*asked, weights, camera_weights, cameras, count, resolution, device)
    seen = float(tracks.visible.float().mean())
    print(f"{len(tracks.queries)} points at {len(tracks.times)} times, visible {seen:.0%} of the time")
    print(f"wrote {', '.join(str(place) for place in (out, video) if place)}")
