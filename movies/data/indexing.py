"""Index of a dataset: what a scan found, written once, so that training need not list a hundred thousand folders.

A text file of JSON lines: first what it was made for, then for every sequence its name, frames, size and labels, or the
error with which it could not be opened.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from movies.data.sequence import Sequence
from movies.errors import InputError
from movies.files import replacing_file


def write_index(path: str | Path, identity: dict[str, Any], sequences: list[Sequence]) -> tuple[int, int]:
    """Open every sequence's lists (not its images) and write what they say. -> (sequences, of them with an error)"""
    errors = 0
    with replacing_file(path) as temporary, temporary.open("w") as file:
        file.write(json.dumps(identity) + "\n")
        for sequence in sequences:
            entry = describe(sequence)
            errors += "error" in entry
            file.write(json.dumps(entry) + "\n")
    return len(sequences), errors


def describe(sequence: Sequence) -> dict[str, Any]:
    """Name, number of frames, size (height, width) and labels of one sequence; its error where it has one."""
    try:
        frames = sequence.num_frames
        if hasattr(sequence, "layout"):
            return {"name": sequence.name, "frames": frames, **sequence.layout()}
        views, tracks = sequence.read([0])
        labels = {"size": list(views.size), "depth": bool(views.depth_mask.any()), "tracks": len(tracks) > 0}
    except (InputError, OSError) as error:
        return {"name": sequence.name, "error": str(error)}
    return {"name": sequence.name, "frames": frames, **labels}


def read_index(path: str | Path, identity: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Entries of an index. Raises InputError where it was made for another reader, root or options, or is damaged."""
    try:
        with Path(path).open() as file:
            made_for = json.loads(file.readline())
            if made_for != json.loads(json.dumps(identity)):
                differs = next((key for key in identity if made_for.get(key) != identity[key]), "reader")
                raise InputError(
                    f"{path}: was written for another `{differs}`; run `movies data index` again or remove the file"
                )
            for line in file:
                yield json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise InputError(f"{path}: is not an index; run `movies data index` again or remove the file") from error


def indexed_names(path: str | Path, identity: dict[str, Any]) -> list[str]:
    """Names of the sequences that could be opened."""
    return [entry["name"] for entry in read_index(path, identity) if "error" not in entry]
