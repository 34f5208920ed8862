"""Checkpoints: folders written beside their place and renamed, tensors as safetensors, the rest as JSON. No pickle.

They hold whole weights and moments by parameter, whoever trained: a run can go on with another engine or on another
number of processes. No state of random numbers is kept, as every batch draws from its own place in the plan.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from movies.model.weights import save_weights

STATE = "state.json"
MODEL, AVERAGE, MOMENTS = "model.safetensors", "average.safetensors", "moments.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a stage stands: steps done (also the sampler's next), and counters for the log, over all processes."""

    step: int = 0
    seed: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    spikes: int = 0
    usual_loss: float = 0.0  # a moving mean
    drawn: int = 0  # sequences
    refused_clips: int = 0
    broken_clips: int = 0


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    average: nn.Module | None,
    moments: dict[str, Tensor],
    keep: int = 2,
) -> Path:
    """Write `folder`/step-N whole or not at all, then remove all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"step-{progress.step:08d}"
    if _is_complete(place):  # the last step's, when a stage ends
        return place
    part = folder / f".{place.name}.{os.getpid()}.part"
    clear_parts(folder)
    part.mkdir()
    try:
        save_weights(model, part / MODEL)
        if average is not None:
            save_weights(average, part / AVERAGE)
        save_file(moments, part / MOMENTS)
        sizes = {path.name: path.stat().st_size for path in part.iterdir()}
        (part / STATE).write_text(json.dumps({"progress": asdict(progress), "sizes": sizes}, indent=1))
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return place


def read_checkpoint(place: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Where the stage stood, and the moments for the engine; the weights are ordinary files of weights."""
    return Progress(**json.loads((place / STATE).read_text())["progress"]), load_file(place / MOMENTS)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a stage; one with a file missing or cut short is passed over."""
    return next((place for place in sorted(folder.glob("step-*"), reverse=True) if _is_complete(place)), None)


def clear_parts(folder: Path) -> None:
    """Remove what a killed run was writing."""
    for part in folder.glob(".step-*.part"):
        shutil.rmtree(part, ignore_errors=True)


def _is_complete(place: Path) -> bool:
    try:
        sizes = json.loads((place / STATE).read_text())["sizes"]
        return all((place / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False
