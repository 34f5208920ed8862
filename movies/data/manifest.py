"""Manifests: one TOML file says where a dataset lies, which reader reads it and how often it is repeated."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from movies.data.toml_files import Section, read_toml
from movies.errors import InputError


class Manifest(Section):
    """One dataset. A relative `root` starts at the manifest's folder; `options` go to the reader by name."""

    name: str
    reader: str
    root: str = ""
    split: Literal["train", "validation", "test"] = "train"
    is_static: bool = False
    repeats: int = Field(1, ge=1)
    options: dict[str, Any] = Field({})

    def sequences(self) -> list:
        """The dataset's sequences. Raises InputError for options that the reader does not take."""
        from movies.data.readers import READERS  # a manifest can be checked without the readers' own dependencies

        try:
            return READERS[self.reader](self.root, **self.options)
        except TypeError as error:
            raise InputError(f"manifest {self.name!r}: reader {self.reader!r} refuses its options ({error})") from error


def load_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest. Raises InputError with file, key, value and legal set."""
    from movies.data.readers import READERS

    path = Path(path)
    manifest = read_toml(path, Manifest)
    if manifest.reader not in READERS:
        raise InputError(f"{path}: `reader` = {manifest.reader!r} is not one of {', '.join(sorted(READERS))}")
    if manifest.root and not Path(manifest.root).is_absolute():
        return manifest.model_copy(update={"root": str(path.parent / manifest.root)})
    return manifest
