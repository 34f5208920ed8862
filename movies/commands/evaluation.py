"""Evaluation by protocol."""

import inspect
from collections.abc import Callable
from typing import Annotated

from tyro.conf import Positional, arg

from movies.commands.arguments import Weights

PROTOCOLS = {
    "synthetic_worlds": "Held-out synthetic worlds, every task with given cameras; needs no data.",
    "synthetic_cameras": "Held-out synthetic worlds, cameras estimated; needs no data.",
    "dycheck": "Novel views on DyCheck's iPhone sequences, co-visibility masked.",
    "nvidia": "Novel views on NVIDIA Dynamic Scenes.",
    "realestate10k": "Novel views on RealEstate10K.",
    "tapvid3d": "3D tracks on TAPVid-3D: AJ, APD, OA over whole videos.",
    "tapvid3d_minival": "The same on the 150 videos of TAPVid-3D's minival.",
    "tapvid3d_13": "3D tracks on TAPVid-3D: distances over 13 frames.",
    "sintel": "Depth, boundaries, cameras and points on MPI Sintel.",
    "kitti_depth": "Video depth on KITTI.",
    "kitti_odometry": "Cameras on KITTI odometry.",
}
Optional = Annotated[str | None, arg(metavar="DIR")]


def evaluate_protocol(
    protocol: Positional[Annotated[str, arg(metavar="PROTOCOL.toml")]],
    data: Annotated[str, arg(metavar="DIR")] = "",
    model: str = "movies",
    weights: Weights = "tiny",
    camera_weights: Weights = "tiny",
    predictions: Optional = None,
    beside: tuple[str, ...] = (),
    out: Optional = None,
    scenes: tuple[str, ...] = (),
    workers: int = 1,
    lpips: tuple[str, ...] = (),
    device: str = "auto",
    dtype: str = "fp32",
    refine: bool = True,
    write_inputs: Optional = None,
) -> int:
    """Measure a method by a protocol of your own file.

    Example: movies evaluate file my_protocol.toml --data datasets/mine --out out/mine

    Args:
        protocol: The file; docs/evaluation.md has its fields.
        data: Folder that the dataset was unpacked into.
        model: movies, d4rt, which renders nothing, or still: nothing moves, the least that any should reach.
        weights: Its weights: tiny (bundled), a file, or a hub id.
        camera_weights: VGGT weights, for cameras that are not given.
        predictions: Score this folder of npz files instead (docs/evaluation.md).
        beside: Also run these models, with bundled weights if any, and put them into the table.
        out: Folder for report.json, report.md and pictures; a run that was interrupted goes on there.
        scenes: Score these scenes alone.
        workers: Processes that score scenes at the same time.
        lpips: Files of the LPIPS weights, of the network that the protocol names; without them LPIPS is left out.
        device: auto, cpu or cuda.
        dtype: fp32 or bf16.
        refine: Refine estimated cameras by the pictures (docs/cameras.md).
        write_inputs: Write what a method elsewhere needs into this folder, and score nothing.
    """
    from movies.evaluate.methods import MethodSpec
    from movies.evaluate.runner import evaluate_beside, export_inputs

    if write_inputs:
        print(f"{export_inputs(protocol, data, write_inputs, scenes)} cases written to {write_inputs}")
        return 0
    spec = MethodSpec(weights, camera_weights, model, predictions or "", device, dtype, refine)
    text, failed = evaluate_beside(beside, protocol, spec, data, out, scenes, workers, lpips)
    print(text)
    return 1 if failed else 0


def _protocol_command(name: str) -> Callable[..., int]:
    """The command of one bundled protocol: `evaluate_protocol` without its first argument."""

    def command(**options) -> int:
        return evaluate_protocol(name, **options)

    # the parser reads the options from these
    signature = inspect.signature(evaluate_protocol)
    command.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
    command.__annotations__ = {k: v for k, v in evaluate_protocol.__annotations__.items() if k != "protocol"}
    _, arguments = evaluate_protocol.__doc__.split("    Args:\n")
    arguments = arguments.split("\n", 1)[1]  # without the file
    example = f"movies evaluate {name}" + ("" if name.startswith("synthetic") else " --data datasets/it --out out/it")
    command.__doc__ = f"{PROTOCOLS[name]}\n\n    Example: {example}\n\n    Args:\n{arguments}"
    return command


def evaluate_synthetic(
    weights: Weights = "tiny",
    camera_weights: Weights = "tiny",
    clips: int = 32,
    difficulty: float = 0.0,
    out: Optional = None,
    workers: int = 1,
) -> int:
    """Measure weights on held-out synthetic clips, against baselines and the oracle.

    Example: movies evaluate synthetic --clips 2

    Args:
        weights: MoVieS weights: tiny (bundled), a file, or a hub id.
        camera_weights: VGGT weights.
        clips: How many dynamic clips, and as many static ones; other than 32 is not the frozen protocol.
        difficulty: Of the worlds, 0 (easy) to 1 (wide); other than 0 is not the frozen protocol.
        out: Folder for report.json and pictures (default: the table only).
        workers: Processes that score clips at the same time.
    """
    from movies.evaluate.held_out import evaluate_held_out

    table, failed = evaluate_held_out(weights, camera_weights, clips, difficulty, out, workers)
    print(table)
    return 1 if failed else 0


def evaluate_compare(reports: Positional[Annotated[tuple[str, ...], arg(metavar="REPORT.json")]]) -> None:
    """Put runs of one protocol side by side, with what others have published.

    Example: movies evaluate compare out/a/report.json out/b/report.json

    Args:
        reports: report.json files, or the folders that hold them.
    """
    from movies.evaluate.compare import compare_reports

    print(compare_reports(reports))


COMMANDS: dict[str, Callable] = {
    "synthetic": evaluate_synthetic,
    **{name: _protocol_command(name) for name in PROTOCOLS},
    "file": evaluate_protocol,
    "compare": evaluate_compare,
}
