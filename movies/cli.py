"""The command `movies`: parse, call one function, one-line errors. Exit 0; 2 for a user's mistake; 130 for Ctrl-C."""

import contextlib
import functools
import io
import re
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

Clip = Annotated[str, arg(metavar="CLIP")]
File = Annotated[str, arg(metavar="FILE")]
OptionalFile = Annotated[str | None, arg(metavar="FILE")]
Folder = Annotated[str, arg(metavar="DIR")]
Weights = Annotated[str, arg(metavar="NAME|FILE")]


def reconstruct(
    clip: Positional[Clip],
    out: Folder,
    weights: Weights = "tiny",
    camera_weights: Weights = "tiny",
    cameras: OptionalFile = None,
    frames: int = 13,
    resolution: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Literal["fp32", "bf16"] = "fp32",
) -> None:
    """Make a 4D scene, novel views, depth, motion and tracks of a video.

    Example: movies reconstruct clip.mp4 --out out/clip

    Args:
        clip: A video, a gif or a folder of images.
        out: Folder for scene.safetensors, cameras.json, videos, tracks.npz, summary.json and overview.png.
        weights: MoVieS weights: tiny (bundled), a file, or a hub id.
        camera_weights: VGGT weights, which estimate the cameras (and the unit of given ones).
        cameras: transforms.json, COLMAP, TUM, MegaSaM or ViPE (docs/conventions.md); estimated if left out.
        frames: How many frames are read, evenly over the clip.
        resolution: Longer side that the network sees, a multiple of its patch (default: the weights' own).
        device: Where to compute.
        dtype: bf16 halves the memory of the weights, and is faster where the processor has it.
    """
    from movies.reconstruct import reconstruct_file

    summary = reconstruct_file(clip, out, weights, camera_weights, cameras, frames, resolution, device, dtype)
    for warning in summary["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    seconds = sum(summary["seconds"].values())
    print(f"{summary['frames']} frames of {summary['width']}x{summary['height']} in {seconds:.1f} s")
    print(f"{summary['num_static']} static and {summary['num_moving']} moving Gaussians", end="")
    print(f" at {summary['num_times']} times, {summary['scene_bytes'] / 1e6:.1f} MB")
    print(f"input views rendered again: {summary['input_psnr']:.2f} dB")
    print(f"look at {out}/overview.png and {out}/novel_view.mp4; render more with")
    print(f"  movies render {out}/scene.safetensors --path orbit --out orbit.mp4")


def render(
    scene: Positional[Annotated[str, arg(metavar="SCENE")]],
    out: File,
    path: Literal["orbit", "spiral", "hold", "follow", "interpolate", "dolly"] = "orbit",
    cameras: OptionalFile = None,
    time: float | None = None,
    frames: int | None = None,
    fps: float = 16.0,
    size: int | None = None,
    backend: Literal["auto", "gsplat", "cpu"] = "auto",
) -> None:
    """Render a scene along a camera path into a video.

    Example: movies render out/clip/scene.safetensors --path orbit --out orbit.mp4

    Args:
        scene: A scene.safetensors.
        out: The video to write, .mp4, .mov or .mkv.
        path: The camera path, made from the input cameras.
        cameras: Cameras of a file instead of a path (its world is the scene's).
        time: Stand still at this time, 0 to 1 (default: the clip plays once).
        frames: How many frames (default: 48, or one for each camera of the file).
        fps: Frames per second.
        size: Longer side in pixels (default: the input views').
        backend: The rasteriser.
    """
    from movies.novel_views import render_video

    render_video(scene, out, path, cameras, time, frames, fps, size, backend)
    print(f"wrote {out}")


def export(
    scene: Positional[Annotated[str, arg(metavar="SCENE")]],
    format: Literal["ply", "compressed-ply", "splat", "spz", "glb", "npz", "html"],
    out: File,
    times: Annotated[str, arg(metavar="N|all")] = "all",
) -> None:
    """Write a scene as files that other programs open, or as a page that plays it.

    Example: movies export out/clip/scene.safetensors --format html --out scene.html

    Args:
        scene: A scene.safetensors.
        format: html: one page that plays the scene in any browser, without a network. glb, npz: one file of all
            times. The others know no time: a numbered file for each.
        out: The file to write.
        times: All stored times, a count spread evenly over them, or times from 0 to 1 as 0.0,0.5.
    """
    from movies.export import export_file

    written = export_file(scene, format, out, times)
    size = sum(path.stat().st_size for path in written) / 1e6
    print(f"wrote {' to '.join(dict.fromkeys([str(written[0]), str(written[-1])]))}, {size:.1f} MB")


def train(
    stage: Positional[Annotated[str, arg(metavar="STAGE.toml|DIR")]],
    out: Folder,
    resume: bool = False,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    checkpoint_every: int | None = None,
    dry_run: bool = False,
) -> None:
    """Train a stage, or the stages of a folder one after the other.

    Example: movies train stages/tiny --out runs/tiny

    Args:
        stage: A stage file, or a folder of them.
        out: Folder for checkpoints, logs and final weights.
        resume: Go on from the newest checkpoint in the folder.
        max_steps: Stop every stage after so many steps.
        max_minutes: Stop after so many minutes, with a checkpoint.
        checkpoint_every: Steps between checkpoints.
        dry_run: Say what would be done, and do nothing.
    """
    from movies.train.trainer import train

    print(train(stage, out, resume, max_steps, max_minutes, checkpoint_every, dry_run))


def evaluate_synthetic(
    weights: Weights = "tiny",
    camera_weights: Weights = "tiny",
    clips: int = 32,
    difficulty: float = 0.0,
    out: Annotated[str | None, arg(metavar="DIR")] = None,
) -> None:
    """Measure weights on held-out synthetic clips, against baselines and the oracle.

    Example: movies evaluate synthetic --clips 2

    Args:
        weights: MoVieS weights: tiny (bundled), a file, or a hub id.
        camera_weights: VGGT weights.
        clips: How many dynamic clips, and as many static ones.
        difficulty: Of the worlds, 0 (easy) to 1 (wide).
        out: Folder for report.json and pictures (default: the table only).
    """
    from movies.evaluate.synthetic import evaluate

    print(evaluate(weights, camera_weights, clips, difficulty, out))


def data_index(manifest: Positional[Annotated[str, arg(metavar="MANIFEST")]]) -> None:
    """Write down once what sequences a dataset has, so that training need not list them.

    Example: movies data index data_manifests/tartanair.toml

    Args:
        manifest: A manifest or a mix.
    """
    from movies.data.checks import index_manifests

    for line in index_manifests(manifest):
        print(line)


def data_check(manifest: Positional[Annotated[str, arg(metavar="MANIFEST")]], sequences: int = 8) -> int:
    """Read a sample of a dataset and say what is broken, and the likely cause. Exit 1 where something is.

    Example: movies data check data_manifests/synthetic_wide_56.toml --sequences 2

    Args:
        manifest: A manifest or a mix.
        sequences: How many sequences to read, evenly over the dataset.
    """
    from movies.data.checks import check_manifests

    reports = check_manifests(manifest, sequences)
    for report in reports:
        print(report)
    return int(any(report.problems for report in reports))


def data_preview(
    manifest: Positional[Annotated[str, arg(metavar="MANIFEST")]], out: Folder, sequences: int = 2, frames: int = 24
) -> None:
    """Draw images, depth and tracks of some sequences: a video and a sheet of each.

    Example: movies data preview data_manifests/synthetic_wide_56.toml --out out/preview

    Args:
        manifest: A manifest or a mix.
        out: Folder for the videos and pictures.
        sequences: How many sequences of every dataset.
        frames: How many frames of each, from its start.
    """
    from movies.data.preview import preview_manifests

    for path in preview_manifests(manifest, out, sequences, frames):
        print(f"wrote {path}")


def weights_inspect(path: Positional[File]) -> None:
    """Say what a weights file holds, part by part, and whether it can be loaded.

    Example: movies weights inspect model.safetensors

    Args:
        path: A .safetensors or .pt file; nothing in it is executed.
    """
    from movies.model.weights_table import inspect_weights

    print(inspect_weights(path))


def weights_convert(
    path: Positional[Annotated[str, arg(metavar="IN")]],
    out: Positional[Annotated[str, arg(metavar="OUT")]],
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
) -> None:
    """Write published weights as our own safetensors, which carry their config.

    Example: movies weights convert movies_ckpt.safetensors movies.safetensors --dtype bf16

    Args:
        path: A published or own .safetensors or .pt file, of either network.
        out: The .safetensors file to write.
        dtype: In what to store; in bf16 only the weights of products and convolutions.
    """
    from movies.model.weights_table import convert_weights

    print(convert_weights(path, out, dtype))


def doctor() -> None:
    """Say what of Python, torch, CUDA, gsplat, numba, ffmpeg and the weights works here, and the mend.

    Example: movies doctor
    """
    from movies.doctor import REQUIRED, examine

    findings = examine()
    for finding in findings:
        print(finding)
    broken = [f.name for f in findings if not f.works and f.name in REQUIRED]
    print(f"needed and absent: {', '.join(broken)}" if broken else "everything needed is here")


COMMANDS: dict[str, Callable] = {
    "reconstruct": reconstruct,
    "render": render,
    "export": export,
    "train": train,
    "doctor": doctor,
}
GROUPS: dict[str, tuple[str, dict[str, Callable]]] = {
    "data": (
        "Check, index or look at datasets.\n\nExample: movies data check data_manifests/synthetic_wide_56.toml",
        {"check": data_check, "index": data_index, "preview": data_preview},
    ),
    "weights": (
        "Inspect or convert files of weights.\n\nExample: movies weights inspect model.safetensors",
        {"inspect": weights_inspect, "convert": weights_convert},
    ),
    "evaluate": (
        "Measure weights by a protocol.\n\nExample: movies evaluate synthetic --clips 2",
        {"synthetic": evaluate_synthetic},
    ),
}
DESCRIPTION = (
    "One monocular video to a 4D scene of moving 3D Gaussians.\n\n"
    "Example: movies reconstruct clip.mp4 --out out/clip\n\n--debug, anywhere, shows the traceback of an error."
)


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")  # libraries' advice to programmers
            call = _parse(arguments)
            return (call() or 0) if call is not None else 0
    except KeyboardInterrupt:
        if debug:
            raise
        return _fail("interrupted", 130, "")
    except Exception as error:
        if debug:
            raise
        return _report(error)


def _report(error: Exception) -> int:
    from movies.errors import InputError

    if isinstance(error, InputError):
        return _fail(str(error))
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}")
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return _fail("not enough memory; lower --resolution or --frames, or use --device cpu")
    raise error  # a defect of ours: its traceback is wanted


def _fail(message: str, status: int = 2, prefix: str = "error: ") -> int:
    print(prefix + " ".join(message.split()), file=sys.stderr)
    return status


def _parse(arguments: list[str]) -> Callable[[], int | None] | None:
    """The call that the arguments ask for, None where help was all. Raises InputError for what cannot be parsed."""
    from movies.errors import InputError

    if arguments and arguments[0] in GROUPS:
        name, rest = arguments[0], arguments[1:]
        description, commands = GROUPS[name]
        prog = f"movies {name}"
    else:
        commands = COMMANDS | {name: _heading(text) for name, (text, _) in GROUPS.items()}
        prog, description, rest = "movies", DESCRIPTION, arguments
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.extras.subcommand_cli_from_dict(
                {key: _deferred(command) for key, command in commands.items()},
                prog=prog,
                description=description,
                args=rest or ["--help"],
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (None, 0):
            return None
        asked = f"{prog} {rest[0]}" if rest[0] in commands else prog
        raise InputError(f"{_one_line(box.getvalue())}; see `{asked} --help`") from None


def _deferred(command: Callable) -> Callable:
    """The command with its arguments bound, not yet called: parsing is over before anything runs."""

    @functools.wraps(command)
    def bind(*args, **kwargs):
        return functools.partial(command, *args, **kwargs)

    bind.__annotations__ = {**command.__annotations__, "return": Callable}
    return bind


def _heading(text: str) -> Callable:
    """Stands for a group in the list of commands."""

    def group() -> None:
        raise AssertionError("a group is parsed by its own table")

    group.__doc__ = text
    return group


def _one_line(box: str) -> str:
    """What a box of tyro says, up to its ruler, as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│|╭╮╰╯+") for line in text.splitlines()]
    said = []
    for line in lines[1:]:  # the first is the box's title
        if line.strip() and not line.strip(" ─-"):
            if said:
                break
            continue
        if not line.startswith(" " * 9):  # help texts of the arguments that are missing
            said.append(line.strip())
    return " ".join(said).strip().rstrip(".") or "the arguments cannot be read"
