"""VideoMAE checkpoints into the encoder (Tong et al. 2022): the published key names of both layouts live here only.

Hugging Face keeps query, key and value apart with biases of query and value alone; the original files keep them in one
matrix. Positions are a fixed sinusoidal table that files need not hold; either is resampled to our grid.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.d4rt.encoder import VideoEncoder
from movies.errors import InputError
from movies.model.weights import LoadReport, summarise
from movies.model.weights_file import read_header

PREFIXES = ("videomae.", "encoder.", "model.", "module.")
# Each of our names of a block's parts, in Hugging Face's layout and in the original one.
BLOCK_PARTS = {
    "norm1": ("layernorm_before", "norm1"),
    "attn.proj": ("attention.output.dense", "attn.proj"),
    "norm2": ("layernorm_after", "norm2"),
    "mlp.fc1": ("intermediate.dense", "mlp.fc1"),
    "mlp.fc2": ("output.dense", "mlp.fc2"),
}
PARTS = {"patch_embed.proj": ("embeddings.patch_embeddings.projection", "patch_embed.proj")}
NORMS = ("layernorm", "fc_norm", "norm")  # the last norm, by training objective
POSITIONS = ("embeddings.position_embeddings", "pos_embed")
# What VideoMAE has no need of, or we none: the decoder and mask of its pretraining, the classifier of its fine-tuning.
UNUSED = ("decoder.", "encoder_to_decoder.", "mask_token", "classifier.", "head.", "position_embeddings")
OURS = ("aspect_embed.", ".ls1.", ".ls2.")  # what no VideoMAE has; it starts as in a fresh network


@dataclass(frozen=True)
class VideoMAEFile:
    """A checkpoint's tensors under their names without the outer prefix, and what reading has used of them."""

    name: str
    tensors: Mapping[str, Tensor]
    used: set[str]

    def take(self, *names: str) -> Tensor | None:
        """The first of `names` that is there."""
        found = next((name for name in names if name in self.tensors), None)
        if found is None:
            return None
        self.used.add(found)
        return self.tensors[found]


def load_videomae(encoder: VideoEncoder, state_or_path: Mapping[str, Tensor] | str | Path) -> LoadReport:
    """Fill an encoder of matching size from a VideoMAE state dict or file and report on every key.

    `matched` are our names that were filled; `missing` those that no VideoMAE has (aspect token, layer scales), which
    keep their values; `unused` its pretraining decoder and heads. Raises InputError, and changes nothing, for files
    that are no VideoMAE and for those of another size.
    """
    file = _open(state_or_path)
    found = dict(_translated(file, len(encoder.blocks)))
    own = encoder.state_dict()
    if not any(key.startswith("blocks.0.") for key in found):
        raise InputError(f"{file.name}: this is no VideoMAE checkpoint (keys {summarise(file.tensors)})")
    found["pos_embed"] = resampled_positions(file, encoder)
    missing = [key for key in own if key not in found]
    needed = [key for key in missing if not any(part in key for part in OURS)]
    wrong = [f"{k}: {list(v.shape)}, the model has {list(own[k].shape)}" for k, v in found.items()
             if own[k].shape != v.shape]  # fmt: skip
    left = [key for key in file.tensors if key not in file.used]
    if wrong or needed or any(re.match(r"(encoder\.layer|blocks)\.\d+\.", key) for key in left):
        what = [*wrong[:2], *(f"{key} is not there" for key in needed[:2])] or [f"{left[0]} finds no block"]
        raise InputError(
            f"{file.name}: this VideoMAE is of another size ({'; '.join(what)}); choose the D4RT preset of its size"
        )
    with torch.no_grad():
        for key, tensor in found.items():
            own[key].copy_(tensor)
    unused = tuple(key for key in left if key.startswith(UNUSED))
    unexpected = tuple(key for key in left if key not in unused)
    return LoadReport(tuple(found), tuple(missing), unexpected, (), unused)


def _open(state_or_path: Mapping[str, Tensor] | str | Path) -> VideoMAEFile:
    if isinstance(state_or_path, Mapping):
        name, tensors = "the state dict", dict(state_or_path)
    else:
        file = read_header(state_or_path)
        name, tensors = str(file.path), {key: tensor.clone() for key, tensor in file.tensors(file.entries)}
    for prefix in PREFIXES:  # "encoder.layer." is Hugging Face's own, an outer "encoder." that of pretraining files
        inner = [key for key in tensors if key.startswith(prefix) and not key.startswith("encoder.layer.")]
        if any(key.removeprefix(prefix).startswith(("embeddings.", "patch_embed.")) for key in inner):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return VideoMAEFile(name, tensors, set())


def _translated(file: VideoMAEFile, depth: int) -> Iterator[tuple[str, Tensor]]:
    """Our names with the file's tensors."""
    for ours, theirs in PARTS.items():
        yield from _both(file, ours, theirs)
    for i in range(depth):
        blocks = (f"encoder.layer.{i}.", f"blocks.{i}.")
        for ours, theirs in BLOCK_PARTS.items():
            yield from _both(file, f"blocks.{i}.{ours}", tuple(b + t for b, t in zip(blocks, theirs, strict=True)))
        yield from _qkv(file, f"blocks.{i}.attn.qkv", blocks[0] + "attention.attention.", blocks[1] + "attn.")
    yield from _both(file, "norm", NORMS)


def _both(file: VideoMAEFile, ours: str, theirs: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    for kind in ("weight", "bias"):
        tensor = file.take(*(f"{name}.{kind}" for name in theirs))
        if tensor is not None:
            yield f"{ours}.{kind}", tensor


def _qkv(file: VideoMAEFile, ours: str, split: str, fused: str) -> Iterator[tuple[str, Tensor]]:
    """One matrix of queries, keys and values; keys have no bias, as a common one changes no attention."""
    weight = file.take(f"{fused}qkv.weight")
    if weight is None:
        parts = [file.take(f"{split}{name}.weight") for name in ("query", "key", "value")]
        if any(part is None for part in parts):
            return
        weight = torch.cat(parts)
    bias = file.take(f"{fused}qkv.bias")
    if bias is None:
        q, v = (file.take(f"{split}{name}_bias", f"{fused}{name}_bias") for name in ("q", "v"))
        zeros = weight.new_zeros(len(weight) // 3)
        bias = torch.cat([zeros if q is None else q, zeros, zeros if v is None else v])
    yield f"{ours}.weight", weight
    yield f"{ours}.bias", bias


def resampled_positions(file: VideoMAEFile, encoder: VideoEncoder) -> Tensor:  # [S, h*w, D]
    """The file's positions, or the table that VideoMAE makes, from 8 slices of 14x14 (or a square of 8) to our grid."""
    num_slices, area, dim = encoder.pos_embed.shape
    table = file.take(*POSITIONS)
    table = videomae_positions(8 * 14 * 14, dim) if table is None else table.reshape(-1, table.shape[-1])
    side = round((len(table) / 8) ** 0.5)
    if 8 * side**2 != len(table) or table.shape[-1] != dim:
        raise InputError(f"{file.name}: positions {list(table.shape)} are not of 8 square slices of {dim} channels")
    volume = table.float().reshape(1, 8, side, side, dim).permute(0, 4, 1, 2, 3)
    grid = round(area**0.5)
    if volume.shape[2:] != (num_slices, grid, grid):
        volume = F.interpolate(volume, (num_slices, grid, grid), mode="trilinear", align_corners=False)
    return volume.permute(0, 2, 3, 4, 1).reshape(num_slices, area, dim)


def videomae_positions(count: int, dim: int) -> Tensor:  # [count, dim]
    """VideoMAE's fixed table: sin and cos in turn of position / 10000^(2 floor(j / 2) / dim), over all tubelets."""
    channel = torch.arange(dim, dtype=torch.float64)
    angles = torch.arange(count, dtype=torch.float64)[:, None] / 10000.0 ** (2 * (channel // 2) / dim)
    return torch.where(channel.long() % 2 == 0, angles.sin(), angles.cos()).float()
