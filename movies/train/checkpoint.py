"""Checkpoints: folders written beside their place and renamed, tensors as safetensors, the rest as JSON. No pickle."""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from movies.model.weights import load_state, save_weights

STATE = "state.json"


@dataclass(frozen=True)
class Progress:
    """Where a stage stands: steps done, the sampler's next step of `seed`, and counters for the log."""

    step: int = 0
    position: int = 0
    seed: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0
    drawn: int = 0  # sequences
    refused_clips: int = 0
    broken_clips: int = 0


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    generators: dict[str, torch.Generator],
    keep: int = 2,
) -> Path:
    """Write `folder`/step-N whole or not at all, then remove all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"step-{progress.step:08d}"
    part = folder / f".{place.name}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        save_weights(model, part / "model.safetensors")
        if average is not None:
            save_weights(average, part / "average.safetensors")
        save_file(_optimizer_tensors(optimizer) | _random_tensors(generators), part / "trainer.safetensors")
        sizes = {path.name: path.stat().st_size for path in part.iterdir()}
        (part / STATE).write_text(json.dumps({"progress": asdict(progress), "sizes": sizes}, indent=1))
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return place


def load_checkpoint(
    place: Path,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    generators: dict[str, torch.Generator],
) -> Progress:
    """Put back everything that `save_checkpoint` wrote."""
    load_state(model, place / "model.safetensors")
    if average is not None:
        load_state(average, place / "average.safetensors")
    tensors = load_file(place / "trainer.safetensors")
    _restore_optimizer(optimizer, tensors)
    torch.set_rng_state(tensors["random/global"])
    for name, generator in generators.items():
        generator.set_state(tensors[f"random/{name}"])
    return Progress(**json.loads((place / STATE).read_text())["progress"])


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a stage; one with a file missing or cut short is passed over."""
    return next((place for place in sorted(folder.glob("step-*"), reverse=True) if _is_complete(place)), None)


def _is_complete(place: Path) -> bool:
    try:
        sizes = json.loads((place / STATE).read_text())["sizes"]
        return all((place / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """optimizer/<slot>/<parameter>: the moments and step counts of AdamW."""
    return {
        f"optimizer/{slot}/{name}": value.detach().cpu().contiguous()
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for slot, value in optimizer.state[parameter].items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, slot, name = key.split("/")
            parameter = parameters[name]
            # AdamW keeps its step counts on the CPU.
            optimizer.state[parameter][slot] = value if slot == "step" else value.to(parameter.device)


def _random_tensors(generators: dict[str, torch.Generator]) -> dict[str, Tensor]:
    states = {f"random/{name}": generator.get_state() for name, generator in generators.items()}
    return states | {"random/global": torch.get_rng_state()}
