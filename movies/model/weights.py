"""Weights in and out: our own safetensors, and the published checkpoints, whose key names live here only.

Modules carry the published names, so translating is removing a prefix and knowing what is deliberately unused. A
model is either loaded completely or not at all, and no pickled code is ever run. Large models are built on the meta
device and filled a few tensors at a time, so loading needs little more than the weights in the dtype asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from movies.errors import InputError
from movies.files import replacing_file
from movies.model.config import ModelConfig
from movies.model.hub import locate
from movies.model.weights_file import Entry, WeightsFile, read_header

Model = TypeVar("Model", bound=nn.Module)

# Keys that a model may leave: VGGT's point tracker, its point head where only cameras and depth are wanted, and the
# token that stood for masked patches when DINOv2 was trained.
UNUSED = {
    "vggt": ("track_head.", "point_head.", "aggregator.patch_embed.mask_token"),
    "movies": ("encoder.mask_token",),
    "own": ("point_head.",),
}
MOVING_HEADS = ("motion_head.", "motion_splat_head.", "backbone.time_embed.")
VGGT_KIND, MOVIES_KIND = "a VGGT checkpoint", "a MoVieS checkpoint"
STATIC_KIND, ADAPTER_KIND = "a MoVieS checkpoint of the static stage", "a LoRA or other adapter"
FOREIGN_KIND = "no checkpoint of VGGT or MoVieS"
FORMAT = "movies-weights"
CONFIGS = {"MoVieS": ModelConfig, "VGGT": ModelConfig}
# Where rounding weights to eight bits would move cameras, times or positions; all of it together is small.
FLOAT32_WEIGHTS = ("plucker_embed.", "extra_embed.", "time_embed.", "embed_pose.", "pose_branch.fc2.")


@dataclass(frozen=True)
class LoadReport:
    """What became of the keys: `unused` are known and deliberately left, `unexpected` are unknown to us."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]  # "name: [file's shape], the model has [shape]"
    unused: tuple[str, ...] = ()


def load_state(
    model: nn.Module,
    state_dict_or_path: Mapping[str, Tensor] | str | Path,
    source: str = "own",
    dtype: torch.dtype = torch.float32,
) -> LoadReport:
    """Fill `model` from a state dict or a .safetensors or .pt file and report on every key.

    `source` names whose keys they are: "vggt", "movies" (with or without the outer `backbone.`) or "own". Parameters
    keep the model's dtype and device; a model on the meta device takes them in `dtype` (bf16: only the weights of
    products and convolutions, see `held_dtype`). Raises InputError, and changes nothing, unless every parameter finds
    a tensor of its shape with finite numbers.
    """
    if source not in UNUSED:
        raise InputError(f"unknown source {source!r}: choose one of {', '.join(UNUSED)}")
    if isinstance(state_dict_or_path, Mapping):
        return _load_mapping(model, dict(state_dict_or_path), source, dtype)
    return load_file(model, read_header(state_dict_or_path), source, dtype)


def _load_mapping(model: nn.Module, state: dict[str, Tensor], source: str, dtype: torch.dtype) -> LoadReport:
    names = own_names(state, source)
    shapes = {own: tuple(state[name].shape) for own, name in names.items()}
    report = checked(compare(shapes, model, source), "the state dict", shapes, model)
    fill(model, lambda: ((key, state[names[key]]) for key in report.matched), "the state dict", dtype)
    return report


def load_file(model: nn.Module, file: WeightsFile, source: str, dtype: torch.dtype = torch.float32) -> LoadReport:
    """`load_state` from a file whose header has been read."""
    names = own_names(file.entries, source)
    shapes = {own: file.entries[name].shape for own, name in names.items()}
    report = checked(compare(shapes, model, source), str(file.path), shapes, model)
    owners = {name: own for own, name in names.items()}

    def tensors() -> Iterator[tuple[str, Tensor]]:
        return ((owners[name], tensor) for name, tensor in file.tensors(names[key] for key in report.matched))

    fill(model, tensors, str(file.path), dtype)
    return report


def compare(shapes: Mapping[str, tuple[int, ...]], model: nn.Module, source: str) -> LoadReport:
    """Sort the keys of a checkpoint, given with their shapes, by what `model` makes of them."""
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    unused = tuple(k for k in shapes if k not in own and k.startswith(UNUSED[source]))
    left = set(unused)
    wrong = (k for k in own if k in shapes and shapes[k] != own[k])
    return LoadReport(
        matched=tuple(k for k in own if shapes.get(k) == own[k]),
        missing=tuple(k for k in own if k not in shapes),
        unexpected=tuple(k for k in shapes if k not in own and k not in left),
        mismatched=tuple(f"{k}: {list(shapes[k])}, the model has {list(own[k])}" for k in wrong),
        unused=unused,
    )


def checked(report: LoadReport, name: str, keys: Iterable[str], model: nn.Module) -> LoadReport:
    """The report, where it allows loading; raises InputError otherwise."""
    if report.missing or report.mismatched:
        raise InputError(f"{name}: {explain(report, keys, model)}")
    return report


def own_names(keys: Iterable[str], source: str) -> dict[str, str]:
    """Our names of the keys of a source, with the source's: the published MoVieS file has an outer `backbone.`."""
    keys = list(keys)
    prefix = "backbone." if source == "movies" and all(k.startswith("backbone.") for k in keys) else ""
    return {k.removeprefix(prefix): k for k in keys}


@torch.no_grad()
def fill(model: nn.Module, tensors: Callable[[], Iterable[tuple[str, Tensor]]], name: str, dtype: torch.dtype) -> None:
    """Copy into the parameters, or give the model tensors of its own where it has none yet (meta device)."""
    if any(p.is_meta for p in model.parameters()):
        held = {k: _copied(k, v, dtype) for k, v in _finite(tensors(), name)}
        model.load_state_dict(held, assign=True)
        for parameter in model.parameters():
            parameter.requires_grad_()
        return
    for _ in _finite(tensors(), name):  # all of them before the first is changed
        pass
    own = model.state_dict()
    for key, tensor in tensors():
        own[key].copy_(tensor)


def _copied(key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(held_dtype(key, tensor.dim(), dtype), copy=True)


def held_dtype(key: str, dims: int, dtype: torch.dtype) -> torch.dtype:
    """In what a parameter is held where `dtype` is asked for: bf16 belongs to products and convolutions only.

    Norms, biases, tokens, position tables, and what embeds cameras and times stay float32.
    """
    small = dims < 2 or not key.endswith(".weight") or any(part in key for part in FLOAT32_WEIGHTS)
    return torch.float32 if dtype == torch.bfloat16 and small else dtype


def _finite(tensors: Iterable[tuple[str, Tensor]], name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors, unless one holds NaN or infinity."""
    for key, tensor in tensors:
        # The sum is one pass without a temporary; only where it is not finite the numbers are looked at.
        doubtful = not tensor.is_meta and tensor.is_floating_point() and not tensor.sum(dtype=torch.float32).isfinite()
        if doubtful and not (whole := tensor.isfinite()).all():
            bad = int((~whole).sum())
            raise InputError(f"{name}: {key} holds {bad} numbers that are NaN or infinite; fetch it again")
        yield key, tensor


def explain(report: LoadReport, keys: Iterable[str], model: nn.Module) -> str:
    """One line: what is wrong with a checkpoint for this model, and the mend."""
    kind, wanted = describe(keys), type(model).__name__
    problems = []
    if report.missing:
        problems.append(f"{len(report.missing)} keys are missing ({summarise(report.missing)})")
    if report.mismatched:
        more = f" and {len(report.mismatched) - 3} more" if len(report.mismatched) > 3 else ""
        problems.append(f"{len(report.mismatched)} have other shapes ({'; '.join(report.mismatched[:3])}{more})")
    text = f"this is {kind}, which does not fill {wanted}: {', '.join(problems)}"
    if kind == STATIC_KIND and wanted == "MoVieS":
        return f"{text}; it has no motion heads: use a checkpoint of a dynamic stage, or ModelConfig(static=True)"
    if kind == VGGT_KIND and wanted == "MoVieS":
        return f"{text}; load it into VGGT and call MoVieS.from_vggt"
    if kind == ADAPTER_KIND:
        return f"{text}; it only changes a network: merge it into that network's weights first"
    if report.mismatched and not report.missing:
        return f"{text}; build the model with the checkpoint's own ModelConfig"
    return (
        f"{text}; unexpected keys: {summarise(report.unexpected) or 'none'}; give a {wanted} checkpoint and its source"
    )


def describe(keys: Iterable[str]) -> str:
    """What a checkpoint is, judged by its keys."""
    names = {k.removeprefix("backbone.") for k in keys}
    if any("lora_" in k.lower() or "adapter" in k for k in names):
        return ADAPTER_KIND
    if any(k.startswith("aggregator.") for k in names):
        return VGGT_KIND
    if not any(k.startswith("splat_head.") for k in names):
        return FOREIGN_KIND
    return MOVIES_KIND if any(k.startswith(MOVING_HEADS[:2]) for k in names) else STATIC_KIND


def summarise(keys: Iterable[str]) -> str:
    """Keys counted by their first part, with the keys themselves where they are few."""
    keys = list(keys)
    if len(keys) <= 4:
        return ", ".join(keys)
    heads: dict[str, int] = {}
    for key in keys:
        heads[part_of(key)] = heads.get(part_of(key), 0) + 1
    named = [f"{part} ({count} keys)" if count > 1 else part for part, count in heads.items()]
    return ", ".join(named[:12]) + (f" and {len(named) - 12} more" if len(named) > 12 else "")


def part_of(key: str) -> str:
    """The part of a network that a key belongs to: its first name, two of them inside VGGT's aggregator."""
    first, second = (*key.split("."), "")[:2]
    return key if key.startswith(MOVING_HEADS[2]) else f"{first}.{second}" if first == "aggregator" else first


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a weights file, empty where it has none; raises InputError for files of other kinds."""
    return read_header(path).metadata


def save_weights(
    model: nn.Module, path: str | Path, dtype: torch.dtype = torch.float32, about: dict[str, str] | None = None
) -> None:
    """Write our own safetensors: tensors in `dtype`; name, config and what is said `about` them in the metadata."""
    state = {k: v.detach().to("cpu", held_dtype(k, v.dim(), dtype)).contiguous() for k, v in model.state_dict().items()}
    own = {"format": FORMAT, "model": type(model).__name__, "config": model.config.to_json()}
    metadata = {**(about or {}), **own}
    if getattr(model, "round_times", False):
        metadata["round_times"] = "true"
    with replacing_file(path) as temporary:
        save_file(state, temporary, metadata=metadata)


@dataclass(frozen=True)
class Pretrained:
    """A weights file and the network that it holds, recognised by its metadata (our own) or by its keys (published).

    Published files are taken to be of the published size. Published MoVieS weights were trained with times rounded
    to bf16, and so are used that way.
    """

    file: WeightsFile
    network: str  # "MoVieS" or "VGGT"
    source: str
    config: ModelConfig
    round_times: bool

    def check(self, build: Callable[[ModelConfig], nn.Module]) -> LoadReport:
        """What loading into `build(config)` would do, from the header alone; raises InputError as loading would."""
        model, shapes = self.empty(build), self.shapes()
        return checked(compare(shapes, model, self.source), str(self.file.path), shapes, model)

    def empty(self, build: Callable[[ModelConfig], Model]) -> Model:
        """`build(config)` on the meta device: names and shapes, no numbers."""
        with torch.device("meta"):
            return build(self.config)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by our names."""
        return {own: self.entries()[own].shape for own in self.entries()}

    def entries(self) -> dict[str, Entry]:
        """The header's entries by our names."""
        return {own: self.file.entries[name] for own, name in own_names(self.file.entries, self.source).items()}

    def load(self, build: Callable[[ModelConfig], Model], dtype: torch.dtype = torch.float32) -> Model:
        """The network in eval mode on the CPU, its products' weights in `dtype`."""
        model = self.empty(build)
        load_file(model, self.file, self.source, dtype)
        if hasattr(model, "round_times"):
            model.round_times = self.round_times
        return model.eval()


def recognise(path: str | Path, configs: Mapping[str, type] = CONFIGS) -> Pretrained:
    """What a weights file holds; `configs` are the networks looked for. Raises InputError for files of no such one."""
    file = read_header(path)
    if file.metadata.get("format") == FORMAT:
        network = file.metadata["model"]
        if network not in configs:
            raise InputError(
                f"{path}: holds weights of {network}, not of {' or '.join(configs)}; load it with that class"
            )
        config = configs[network].from_json(file.metadata.get("config", ""))
        return Pretrained(file, network, "own", config, file.metadata.get("round_times") == "true")
    kind, config = describe(file.entries), ModelConfig.preset("vggt-1b")
    if kind in (FOREIGN_KIND, ADAPTER_KIND):
        raise InputError(f"{path}: this is {kind} (keys {summarise(file.entries)}); give weights of VGGT or MoVieS")
    if kind == VGGT_KIND:
        return Pretrained(file, "VGGT", "vggt", config, False)
    return Pretrained(file, "MoVieS", "movies", replace(config, static=kind == STATIC_KIND), True)


def find_weights(network: str, name: str | Path, configs: Mapping[str, type] = CONFIGS) -> Pretrained:
    """The weights of a `network` (a key of `configs`) by name: "tiny", a file, a folder or a hub id.

    Raises InputError where nothing of that name is found, or another network is.
    """
    path = locate(network, name)
    found = recognise(path, configs)
    if found.network != network:
        mend = "load it with that class" if found.source == "own" else "give the other network's file"
        raise InputError(f"{path}: holds weights of {found.network}, not of {network}; {mend}")
    return found


def load_weights(model_class: type[Model], path: str | Path, dtype: torch.dtype = torch.float32) -> Model:
    """A model in eval mode from our own file, or from a published checkpoint in its published size."""
    return find_weights(model_class.__name__, path).load(model_class, dtype)
