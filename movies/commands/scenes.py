"""A clip to a scene, and a scene to videos and files."""

import sys
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from movies.commands.arguments import Clip, File, Folder, OptionalFile, Scene, Weights
from movies.errors import InputError


def reconstruct(
    clip: Positional[Clip],
    out: Folder,
    model: Literal["movies", "d4rt"] = "movies",
    weights: Weights = "tiny",
    camera_weights: Weights = "tiny",
    cameras: OptionalFile = None,
    frames: int | Literal["all"] | None = None,
    chunk: int | None = None,
    overlap: int | None = None,
    memory: Annotated[str | None, arg(metavar="BYTES")] = None,
    loops: bool = False,
    resolution: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Literal["fp32", "bf16"] = "fp32",
    arrays: bool = False,
    refine: bool = True,
) -> None:
    """Make a 4D scene, novel views, depth, motion, tracks and masks of a video.

    Example: movies reconstruct clip.mp4 --out out/clip

    Args:
        clip: A video, a gif or a folder of images.
        out: Folder for scene.safetensors, cameras.json, videos, tracks.npz, masks, summary.json and overview.png.
        model: d4rt asks a query network for depth, cameras, tracks and a coloured point cloud (docs/d4rt.md); of the
            options below it takes weights, frames, chunk, overlap, loops, resolution and device.
        weights: Weights of the model: tiny (bundled), a file, or a hub id.
        camera_weights: VGGT weights, which estimate the cameras (and the unit of given ones).
        cameras: transforms.json, COLMAP, TUM, MegaSaM or ViPE (docs/conventions.md); estimated if left out.
        frames: How many frames are read, evenly over the clip, or all (default: 13; with d4rt as many as its weights
            know). More than a chunk give a scene in segments.
        chunk: How many frames the network reads together at most (default: as many as without --frames).
        overlap: How many of them are shared with the next chunk (default: 5; with d4rt half a chunk at most).
        memory: A budget, as 8G: chunks get shorter where they would not fit.
        loops: Where the clip comes back to a place, close the loop.
        resolution: Longer side that the network sees, a multiple of its patch (default: the weights' own); with d4rt
            any longer side of depth and points, their colour patches cut from the original frames.
        device: Where to compute.
        dtype: bf16 halves the memory of the weights, and is faster where the processor has it.
        arrays: Keep depth, flow and motion of every pixel too, as arrays.npz (not with segments).
        refine: Refine estimated cameras by the pictures (docs/cameras.md); given ones are never changed.
    """
    if model == "d4rt":
        if cameras is not None or memory is not None:
            raise InputError("d4rt reads cameras from its own answers, in a memory that chunks bound: leave --cameras "
                             "and --memory out, or give --chunk")  # fmt: skip
        _by_queries(clip, out, weights, frames, device, chunk, overlap, loops, resolution)
        return
    chunk, overlap = 13 if chunk is None else chunk, 5 if overlap is None else overlap
    frames, given = 13 if frames is None else frames, (clip, out, weights, camera_weights, cameras)
    if frames == "all" or frames > chunk or memory is not None:
        from movies.long_jobs import reconstruct_long_file

        if arrays:
            raise InputError(f"--arrays is for clips of one chunk: leave it out, or give --frames {chunk} at most")
        count, limits = None if frames == "all" else frames, (chunk, overlap, memory, loops, refine)
        summary = reconstruct_long_file(*given, count, resolution, device, dtype, *limits, say=_say)
    else:
        from movies.jobs import reconstruct_file

        summary = reconstruct_file(*given, frames, resolution, device, dtype, arrays, refine)
    for warning in summary["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    seconds = sum(summary["seconds"].values())
    print(f"{summary['frames']} frames of {summary['width']}x{summary['height']} in {seconds:.1f} s")
    if "chunks" in summary:
        print(f"{summary['chunks']} segments, {summary['scene_bytes'] / 1e6:.1f} MB, rendered again:", end="")
        print(f" {summary['input_psnr']:.2f} dB; look at {out}/novel_view.mp4; render more with")
        print(f"  movies render {out}/scene --path follow --out follow.mp4")
        return
    print(f"{summary['num_static']} static and {summary['num_moving']} moving Gaussians", end="")
    print(f" at {summary['num_times']} times, {summary['scene_bytes'] / 1e6:.1f} MB")
    print(f"input views rendered again: {summary['input_psnr']:.2f} dB")
    print(f"look at {out}/overview.png and {out}/novel_view.mp4; render more with")
    print(f"  movies render {out}/scene.safetensors --path orbit --out orbit.mp4")


def _by_queries(
    clip: str,
    out: str,
    weights: str,
    frames: int | str | None,
    device: str,
    chunk: int | None,
    overlap: int | None,
    loops: bool,
    resolution: int | None,
) -> None:
    if frames is None and chunk is None:
        from movies.query_jobs import reconstruct_by_queries

        summary = reconstruct_by_queries(clip, out, weights, None, device, resolution)
    else:
        from movies.long_queries import reconstruct_long_by_queries

        count = None if frames == "all" else frames
        asked = (count, device, chunk, overlap, loops, resolution)
        summary = reconstruct_long_by_queries(clip, out, weights, *asked, _say)
    for warning in summary["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{summary['frames']} frames, {summary['num_points']} points; all pixels followed by", end=" ")
    print(f"{summary['num_queries']} queries, {summary['queries_saved']:.1f} times fewer than each by itself,", end=" ")
    print(f"in {summary['dense_seconds']:.1f} s")
    print(f"look at {out}/depth.mp4 and {out}/points.ply; render more with")
    scene = "scene" if "chunks" in summary else "scene.safetensors"
    print(f"  movies render {out}/{scene} --path orbit --out orbit.mp4")


def _say(text: str) -> None:
    print(text, flush=True)


def render(
    scene: Positional[Scene],
    out: File,
    path: Literal["orbit", "spiral", "hold", "follow", "interpolate", "dolly"] = "orbit",
    cameras: OptionalFile = None,
    time_map: Annotated[str | None, arg(metavar="NAME|KEYFRAMES")] = None,
    time: float | None = None,
    frames: int | None = None,
    fps: float = 16.0,
    size: int | None = None,
    background: Annotated[str, arg(metavar="COLOR")] = "black",
    depth: OptionalFile = None,
    motion: OptionalFile = None,
    clip: Annotated[str | None, arg(name="input", metavar="CLIP")] = None,
    backend: Literal["auto", "gsplat", "cpu"] = "auto",
) -> None:
    """Render a scene along a camera path into a video.

    Example: movies render out/clip/scene.safetensors --path orbit --time-map bullet --out orbit.mp4

    Args:
        scene: A scene.safetensors, or the folder of a scene in segments.
        out: The video to write, .mp4, .mov or .mkv.
        path: The camera path, made from the input cameras.
        cameras: Cameras of a file instead of a path (its world is the scene's).
        time_map: How the clip's time runs along the path: play, freeze, slow, bullet, boomerang, or keyframes
            PATH:TIME as 0:0,0.5:0.5,1:1.
        time: The moment of freeze, slow and bullet, 0 to 1 (alone: stand still at it).
        frames: How many frames (default: 48, or one for each camera of the file).
        fps: Frames per second.
        size: Longer side in pixels (default: the input views').
        background: Where the scene is empty: black, white, or red,green,blue from 0 to 1.
        depth: A video of depth to write beside.
        motion: A video of motion to write beside.
        clip: The clip that the scene was made of, shown to the left.
        backend: The rasteriser.
    """
    from movies.novel_views import render_video

    render_video(scene, out, path, cameras, time, frames, fps, size, backend, time_map, background, depth, motion, clip)
    print(f"wrote {', '.join(place for place in (out, depth, motion) if place)}")


def export(
    scene: Positional[Scene],
    format: Literal["ply", "compressed-ply", "splat", "spz", "glb", "npz", "html"],
    out: File,
    times: Annotated[str, arg(metavar="N|all")] = "all",
) -> None:
    """Write a scene as files that other programs open, or as a page that plays it.

    Example: movies export out/clip/scene.safetensors --format html --out scene.html

    Args:
        scene: A scene.safetensors, or the folder of a scene in segments: each then has files of its own.
        format: html: one page that plays the scene in any browser, without a network. glb, npz: one file of all
            times. The others know no time: a numbered file for each.
        out: The file to write.
        times: All stored times, a count spread evenly over them, or times from 0 to 1 as 0.0,0.5.
    """
    from movies.export import export_file

    written = export_file(scene, format, out, times)
    size = sum(path.stat().st_size for path in written) / 1e6
    print(f"wrote {' to '.join(dict.fromkeys([str(written[0]), str(written[-1])]))}, {size:.1f} MB")
