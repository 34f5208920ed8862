"""Manifests: one TOML file says where a dataset lies, which reader reads it and how far its labels are trusted.

A mix is a TOML file that names manifests. `${NAME}` in a root or an option is taken from the environment.
"""

import fnmatch
import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from movies.data.dataset import Source, SourceRules
from movies.data.indexing import indexed_names
from movies.data.toml_files import Section, read_toml
from movies.errors import InputError

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Skip(Section):
    """Sequences left out: a name, or a pattern with `*`; the reason is for people."""

    sequence: str
    reason: str


class Expected(Section):
    """What a whole download holds (0: not known). `partial` where parts of it are normally missing."""

    sequences: int = Field(0, ge=0)
    frames: int = Field(0, ge=0)
    partial: bool = False


class Manifest(Section):
    """One dataset. A relative `root` starts at the manifest's folder; `options` go to the reader by name.

    `gap` is the smallest and largest step between context frames (left out: the stage's). `depth_quantiles` keeps of
    every view's depth what lies between them; `min_valid_depth` is the share of the context that must have depth.
    `depth_weight` and `motion_weight` scale the losses of its samples.
    """

    name: str
    reader: str
    root: str = ""
    split: Literal["train", "validation", "test"] = "train"
    is_static: bool = False
    repeats: int = Field(1, ge=1)
    gap: tuple[int, int] | tuple[()] = ()
    depth_quantiles: tuple[float, float] = (0.0, 1.0)
    depth_weight: float = Field(1.0, ge=0)
    motion_weight: float = Field(1.0, ge=0)
    min_valid_depth: float = Field(0.1, ge=0, le=1)
    skip: tuple[Skip, ...] = ()
    expected: Expected = Expected()
    licence: str = ""
    source: str = ""
    index: str = ""
    options: dict[str, Any] = Field({})

    @field_validator("gap", mode="after")
    @classmethod
    def _gap(cls, gap: tuple) -> tuple:
        if gap and not 1 <= gap[0] <= gap[1]:
            raise ValueError(f"must be [smallest, largest] with 1 <= smallest <= largest, got {list(gap)}")
        return gap

    @field_validator("depth_quantiles", mode="after")
    @classmethod
    def _quantiles(cls, quantiles: tuple) -> tuple:
        if not 0 <= quantiles[0] < quantiles[1] <= 1:
            raise ValueError(f"must be [low, high] with 0 <= low < high <= 1, got {list(quantiles)}")
        return quantiles

    def sequences(self) -> list:
        """The dataset's sequences but those to skip; from the index where there is one, else by listing the root.

        Raises InputError for options that the reader does not take, an environment variable that is not set, an index
        of another root, and where nothing is left.
        """
        names = indexed_names(self.index, self.identity()) if self.index and Path(self.index).exists() else None
        found = [sequence for sequence in self.scan(names) if not self._is_skipped(sequence.name)]
        if not found:
            raise InputError(f"manifest {self.name!r}: no sequence is left of {self.root}; see `skip` and the index")
        return found

    def scan(self, names: list[str] | None = None) -> list:
        """What the reader finds, or its sequences of these names."""
        from movies.data.readers import READERS  # a manifest can be checked without the readers' own dependencies

        options = {key: self._expanded(value) for key, value in self.options.items()}
        if names is not None:
            options["names"] = names
        try:
            return READERS[self.reader](self._expanded(self.root), **options)
        except TypeError as error:
            raise InputError(f"manifest {self.name!r}: reader {self.reader!r} refuses its options ({error})") from error

    def rules(self) -> SourceRules:
        """What of this manifest changes the clips made from its sequences."""
        return SourceRules(self.gap, self.depth_quantiles, self.depth_weight, self.motion_weight, self.min_valid_depth)

    def data_source(self, repeats: int = 0) -> Source:
        """Sequences, repeats (0: the manifest's own) and rules, as ClipDataset takes them."""
        return Source(self.sequences(), repeats or self.repeats, self.rules())

    def identity(self) -> dict[str, Any]:
        """What an index was made for."""
        return {"reader": self.reader, "root": self._expanded(self.root), "options": self.options}

    def _is_skipped(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, skip.sequence) for skip in self.skip)

    def _expanded(self, value: Any) -> Any:
        """Text with environment variables filled in; anything else as it is."""
        if not isinstance(value, str):
            return value
        for name in _VARIABLE.findall(value):
            if name not in os.environ:
                raise InputError(
                    f"manifest {self.name!r}: {value!r} needs the environment variable {name}; "
                    f"export {name}=/folder/of/your/datasets"
                )
        return _VARIABLE.sub(lambda match: os.environ[match[1]], value)


class Part(Section):
    """One manifest of a mix, relative to the mix file; `repeats` replaces the manifest's own (0: the manifest's)."""

    manifest: str
    repeats: int = Field(0, ge=0)


class Mix(Section):
    """Several datasets trained on together."""

    name: str
    parts: tuple[Part, ...] = Field(min_length=1)


def load_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest. Raises InputError with file, key, value and legal set."""
    from movies.data.readers import READERS

    path = Path(path)
    manifest = read_toml(path, Manifest)
    if manifest.reader not in READERS:
        raise InputError(f"{path}: `reader` = {manifest.reader!r} is not one of {', '.join(sorted(READERS))}")
    index = str(path.parent / manifest.index) if manifest.index else str(path.with_suffix(".index.jsonl"))
    root = manifest.root
    if root and not Path(root).is_absolute() and not root.startswith("${"):
        root = str(path.parent / root)
    return manifest.model_copy(update={"index": index, "root": root})


def load_mix(path: str | Path) -> list[Manifest]:
    """The manifests of a mix with its repeats, or the one manifest that the file is."""
    path = Path(path)
    if not _is_mix(path):
        return [load_manifest(path)]
    mix = read_toml(path, Mix)
    loaded = [(load_manifest(path.parent / part.manifest), part.repeats) for part in mix.parts]
    return [manifest.model_copy(update={"repeats": repeats or manifest.repeats}) for manifest, repeats in loaded]


def _is_mix(path: Path) -> bool:
    """A mix has a table `parts`, which no manifest has; files that cannot be read are told by load_manifest."""
    try:
        return re.search(r"^\s*(\[\[)?parts\b", path.read_text(), re.MULTILINE) is not None
    except (OSError, UnicodeDecodeError):
        return False
