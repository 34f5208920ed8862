"""Weights in and out: our own safetensors, and the published checkpoints, whose key names live here only.

Modules carry the published names, so translating is removing a prefix and knowing what is deliberately unused. A
model is either loaded completely or not at all, and no pickled code is ever run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from movies.errors import InputError
from movies.model.config import ModelConfig

Model = TypeVar("Model", bound=nn.Module)

# Keys of the published checkpoints that no model here has a use for: VGGT's point tracker, and the token that
# stood for masked patches when DINOv2 was trained.
UNUSED = {
    "vggt": ("track_head.", "aggregator.patch_embed.mask_token"),
    "movies": ("encoder.mask_token",),
    "own": (),
}
MOVING_HEADS = ("motion_head.", "motion_splat_head.", "backbone.time_embed.")
FORMAT = "movies-weights"


@dataclass(frozen=True)
class LoadReport:
    """What became of the keys: `unused` are known and deliberately left, `unexpected` are unknown to us."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]  # "name: [file's shape], the model has [shape]"
    unused: tuple[str, ...] = ()


def load_state(
    model: nn.Module, state_dict_or_path: Mapping[str, Tensor] | str | Path, source: str = "own"
) -> LoadReport:
    """Fill `model` from a state dict or a .safetensors or .pt file and report on every key.

    `source` names whose keys they are: "vggt", "movies" (with or without the outer `backbone.`) or "own". Parameters
    keep the model's dtype and device; a model on the meta device takes the file's tensors as float32. Raises
    InputError, and changes nothing, unless every parameter finds a tensor of its shape.
    """
    if source not in UNUSED:
        raise InputError(f"unknown source {source!r}: choose one of {', '.join(UNUSED)}")
    given = isinstance(state_dict_or_path, Mapping)
    name = "the state dict" if given else str(state_dict_or_path)
    state = dict(state_dict_or_path) if given else read_state(state_dict_or_path)
    state = strip_prefix(state) if source == "movies" else state

    report = compare({k: tuple(v.shape) for k, v in state.items()}, model, source)
    if report.missing or report.mismatched:
        raise InputError(f"{name}: {explain(report, state, model)}")
    fill(model, {k: state[k] for k in report.matched})
    return report


def compare(shapes: Mapping[str, tuple[int, ...]], model: nn.Module, source: str) -> LoadReport:
    """Sort the keys of a checkpoint, given with their shapes, by what `model` makes of them."""
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    unused = tuple(k for k in shapes if k not in own and k.startswith(UNUSED[source]))
    wrong = (k for k in own if k in shapes and shapes[k] != own[k])
    return LoadReport(
        matched=tuple(k for k in own if shapes.get(k) == own[k]),
        missing=tuple(k for k in own if k not in shapes),
        unexpected=tuple(k for k in shapes if k not in own and k not in unused),
        mismatched=tuple(f"{k}: {list(shapes[k])}, the model has {list(own[k])}" for k in wrong),
        unused=unused,
    )


def strip_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the outer `backbone.` that every key of the published MoVieS file carries."""
    if all(k.startswith("backbone.") for k in state):
        return {k.removeprefix("backbone."): v for k, v in state.items()}
    return dict(state)


@torch.no_grad()
def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy into the parameters, or hand the tensors over where the model has none of its own yet (meta device)."""
    if any(p.is_meta for p in model.parameters()):
        model.load_state_dict({k: v.float() for k, v in state.items()}, assign=True)
        for parameter in model.parameters():
            parameter.requires_grad_()
    else:
        model.load_state_dict(state)


def explain(report: LoadReport, state: Mapping[str, Tensor], model: nn.Module) -> str:
    """One line: what is wrong with a checkpoint for this model, and the mend."""
    kind, wanted = describe(state), type(model).__name__
    problems = []
    if report.missing:
        problems.append(f"{len(report.missing)} keys are missing ({summarise(report.missing)})")
    if report.mismatched:
        more = f" and {len(report.mismatched) - 3} more" if len(report.mismatched) > 3 else ""
        problems.append(f"{len(report.mismatched)} have other shapes ({'; '.join(report.mismatched[:3])}{more})")
    text = f"this is {kind}, which does not fill {wanted}: {', '.join(problems)}"
    if kind == "a MoVieS checkpoint of the static stage":
        return f"{text}; it has no motion heads: use a checkpoint of a dynamic stage"
    if kind == "a VGGT checkpoint" and wanted == "MoVieS":
        return f"{text}; load it into VGGT and call MoVieS.from_vggt"
    if report.mismatched and not report.missing:
        return f"{text}; build the model with the checkpoint's own ModelConfig"
    return (
        f"{text}; unexpected keys: {summarise(report.unexpected) or 'none'}; give a {wanted} checkpoint and its source"
    )


def describe(keys: Iterable[str]) -> str:
    """What a checkpoint is, judged by its keys."""
    names = {k.removeprefix("backbone.") for k in keys}
    if any(k.startswith("aggregator.") for k in names):
        return "a VGGT checkpoint"
    if not any(k.startswith("splat_head.") for k in names):
        return "no checkpoint of VGGT or MoVieS"
    moving = any(k.startswith(MOVING_HEADS[:2]) for k in names)
    return "a MoVieS checkpoint" if moving else "a MoVieS checkpoint of the static stage"


def summarise(keys: Iterable[str]) -> str:
    """Keys counted by their first part, with the keys themselves where they are few."""
    keys = list(keys)
    if len(keys) <= 4:
        return ", ".join(keys)
    heads: dict[str, int] = {}
    for key in keys:
        first, second = (*key.split("."), "")[:2]
        part = key if key.startswith(MOVING_HEADS[2]) else f"{first}.{second}" if first == "aggregator" else first
        heads[part] = heads.get(part, 0) + 1
    return ", ".join(f"{part} ({count} keys)" if count > 1 else part for part, count in heads.items())


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or .pt file; raises InputError that names the file and the mend."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; give the path of a .safetensors or .pt file")
    try:
        if path.suffix in (".pt", ".pth", ".bin"):
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            state = load_file(path)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable weights file ({first_line(error)}); {MEND}") from error
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: holds no flat dictionary of tensors; give a file with the model's state dict alone")
    return state


MEND = "it may be cut short or another kind of file: fetch it again, as .safetensors or a .pt of tensors only"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file, empty where it has none; raises InputError for other files."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; give the path of a .safetensors file")
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable weights file ({first_line(error)}); {MEND}") from error


def save_weights(model: nn.Module, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write our own safetensors: tensors in `dtype`, the model's name and config in the metadata; atomically."""
    path = Path(path)
    state = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    metadata = {"format": FORMAT, "model": type(model).__name__, "config": model.config.to_json()}
    if getattr(model, "round_times", False):
        metadata["round_times"] = "true"
    partial = path.with_name(path.name + ".partial")
    save_file(state, partial, metadata=metadata)
    partial.replace(path)


def load_weights(model_class: type[Model], path: str | Path) -> Model:
    """A model from our own file, or from a published checkpoint in its published size.

    Published MoVieS weights were trained with times rounded to bf16, and so are read that way.
    """
    path = Path(path)
    metadata = {} if path.suffix in (".pt", ".pth", ".bin") else read_metadata(path)
    name, own = model_class.__name__, metadata.get("format") == FORMAT
    if own and metadata.get("model") != name:
        raise InputError(f"{path}: holds weights of {metadata.get('model')}, not of {name}; load it with that class")
    config = ModelConfig.from_json(metadata.get("config", "")) if own else ModelConfig.preset("vggt-1b")
    with torch.device("meta"):
        model = model_class(config)
    load_state(model, path, source="own" if own else name.lower())
    if hasattr(model, "round_times"):
        model.round_times = metadata.get("round_times") == "true" or not own
    return model.eval()


def load_pretrained(model_class: type[Model], name: str | Path) -> Model:
    """Weights by name: "tiny" (bundled), a file, or a hub repository `owner/name` holding model.safetensors.

    The model comes in eval mode on the CPU in float32. Raises InputError where nothing of that name is found.
    """
    if Path(name).exists():
        return load_weights(model_class, name)
    bundled = files("movies") / "assets" / f"{model_class.__name__.lower()}_{name}.safetensors"
    if bundled.is_file():
        return load_weights(model_class, str(bundled))
    if str(name).count("/") == 1 and Path(name).suffix == "":
        return load_weights(model_class, _download(str(name)))
    raise InputError(f"no weights named {str(name)!r}: give `tiny`, a .safetensors file, or a hub id `owner/name`")


def _download(repository: str) -> str:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise InputError(f"{repository}: hub ids need huggingface_hub; run `pip install movies[hub]`") from error
    try:
        return hf_hub_download(repository, "model.safetensors")
    except Exception as error:  # the hub's client raises many kinds; all mean that there is no such file for us
        raise InputError(f"{repository}: cannot be fetched from the hub ({first_line(error)}); give a file") from error
