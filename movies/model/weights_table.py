"""A weights file as a table: what it is, what of it a network takes, and how large its parts are."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from movies.errors import InputError
from movies.model.config import ModelConfig
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import LoadReport, Pretrained, compare, describe, part_of, recognise, save_weights
from movies.model.weights_file import Entry

NETWORKS = {"MoVieS": (ModelConfig, MoVieS), "VGGT": (ModelConfig, VGGT)}
COLUMNS = ("part", "keys", "matched", "missing", "unexpected", "mismatched", "unused", "parameters", "dtype", "bytes")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHOWN = 8  # keys named in full below the table, of each kind


def inspect_weights(path: str | Path, networks: Mapping[str, tuple[type, type]] = NETWORKS) -> str:
    """The table of a weights file of one of `networks`; only the header is read. Raises InputError for other files."""
    found = recognise(path, _configs(networks))
    report = compare(found.shapes(), found.empty(networks[found.network][1]), found.source)
    kind = f"our own file, {describe(found.entries())}" if found.source == "own" else f"{describe(found.file.entries)}"
    lines = [f"{path}: {kind}, recognised by its {'metadata' if found.source == 'own' else 'keys'}"]
    lines += _aligned([COLUMNS, *_rows(report, found.entries())])
    for name in ("missing", "unexpected", "mismatched", "unused"):
        lines += _named(name, getattr(report, name))
    lines += [f"{key}: {value}" for key, value in sorted(found.file.metadata.items())]
    return "\n".join([*lines, _verdict(found, report)])


def convert_weights(
    path: str | Path, out: str | Path, dtype: str = "fp32", networks: Mapping[str, tuple[type, type]] = NETWORKS
) -> str:
    """Write the file as our own, config in the metadata and tensors in `dtype`; returns what was done.

    Raises InputError for files that do not fill their network, and for an `out` that is not named .safetensors.
    """
    if Path(out).suffix != ".safetensors":
        raise InputError(f"{out}: weights are written as .safetensors; name it so")
    found = recognise(path, _configs(networks))
    model = found.load(networks[found.network][1], DTYPES[dtype])
    save_weights(model, out, DTYPES[dtype])
    size = Path(out).stat().st_size
    return f"wrote {out}: {found.network}, {sum(p.numel() for p in model.parameters()):,} parameters, {size:,} bytes"


def _configs(networks: Mapping[str, tuple[type, type]]) -> dict[str, type]:
    return {name: config for name, (config, _) in networks.items()}


def _rows(report: LoadReport, entries: dict[str, Entry]) -> list[tuple[str, ...]]:
    """A row for every part of the network, and the sum."""
    names = ("matched", "missing", "unexpected", "mismatched", "unused")
    fates = {key.split(":")[0]: name for name in names for key in getattr(report, name)}
    parts = {part_of(key): [] for key in [*entries, *report.missing]}
    for key in [*entries, *report.missing]:
        parts[part_of(key)].append(key)
    return [_row(part, keys, fates, entries) for part, keys in [*parts.items(), ("all", [*fates])]]


def _row(part: str, keys: list[str], fates: dict[str, str], entries: dict[str, Entry]) -> tuple[str, ...]:
    here = [entries[key] for key in keys if key in entries]
    counts = [sum(fates[key] == name for key in keys) for name in COLUMNS[2:7]]
    dtypes = ",".join(sorted({entry.dtype for entry in here})) or "-"
    numel, size = sum(entry.numel for entry in here), sum(entry.num_bytes for entry in here)
    return (part, str(len(here)), *(str(count or "-") for count in counts), f"{numel:,}", dtypes, f"{size:,}")


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = (
        [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    )
    return ["  ".join(cells).rstrip() for cells in text]


def _named(name: str, keys: Iterable[str]) -> list[str]:
    """The keys of a kind in full, as far as one can read them; whole parts are told by the table."""
    keys = list(keys)
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    meaning = {"unused": "unused on purpose"}.get(name, name)
    return [f"{meaning}: {', '.join(keys[:SHOWN])}{more}"] if keys else []


def _verdict(found: Pretrained, report: LoadReport) -> str:
    if report.missing or report.mismatched:
        return f"does not fill {found.network}: it would be refused"
    times = ", times rounded to bf16" if found.round_times else ""
    static = " of the static stage" if getattr(found.config, "static", False) else ""
    return f"fills {found.network}{static}{times}"
