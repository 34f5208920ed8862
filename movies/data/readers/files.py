"""Files of the public datasets: each opened by a well-kept library, nothing in them executed, every failure one line.

Pictures and videos are opened by movies.video. OpenEXR and h5py belong to the extra `data` and are imported when used.
"""

import gzip
import importlib
import json
import posixpath
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from movies.errors import InputError


def inside(root: str | Path, relative: str | Path) -> Path:
    """`root / relative`. Raises InputError where `relative`, which a file named, leads out of `root`."""
    text = str(relative).replace("\\", "/")
    normal = posixpath.normpath(text)
    if posixpath.isabs(normal) or normal == ".." or normal.startswith("../") or ":" in normal.split("/")[0]:
        raise InputError(f"{root}: the path {text!r} leads out of this folder; only files inside it are read")
    return Path(root) / normal


def dataset_root(root: str | Path) -> Path:
    """The folder itself. Raises InputError where there is none, or a file in its place."""
    path = Path(root)
    if not str(root):
        raise InputError("the dataset needs a `root`: the folder that it was unpacked into")
    if not path.exists():
        raise InputError(f"{path}: no such folder; is the dataset unpacked there, and the root of the manifest right?")
    if not path.is_dir():
        raise InputError(f"{path}: a folder is needed here, this is a file")
    return path


def list_files(folder: str | Path, *suffixes: str) -> list[Path]:
    """Files of a folder by name, hidden ones left out; none where the folder is absent. One listing, no `stat`."""
    try:
        names = sorted(entry.name for entry in Path(folder).iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise InputError(f"{folder}: a folder is needed here, this is a file") from error
    return [Path(folder) / name for name in names if not suffixes or name.lower().endswith(suffixes)]


def frame_number(path: Path) -> int:
    """The last run of digits in a file's name before its suffix: depth_00012.png and 000012_left.png are frame 12."""
    digits = "".join(c if c.isdigit() else " " for c in path.name.split(".")[0]).split()
    if not digits:
        raise InputError(f"{path}: a frame's name needs a number")
    return int(digits[-1])


def numbered(files: list[Path]) -> dict[int, Path]:
    """Files by their frame number."""
    return {frame_number(file): file for file in files}


def read_table(path: str | Path, columns: int, header_lines: int = 0) -> np.ndarray:  # [F, columns] float64
    """A text file of numbers separated by spaces. Raises InputError unless every line has `columns` of them."""
    with _told(path, "as a table of numbers"):
        lines = [line for line in Path(path).read_text().splitlines()[header_lines:] if line.strip()]
        rows = [line.split() for line in lines]
        wrong = next((i for i, row in enumerate(rows) if len(row) != columns), None)
        if wrong is not None:
            at = header_lines + wrong + 1
            raise InputError(f"{path}: line {at} has {len(rows[wrong])} columns, {columns} are needed")
        return np.array(rows, dtype=np.float64).reshape(-1, columns)


def read_bytes(path: str | Path) -> bytes:
    """All of a file."""
    with _told(path, "at all"):
        return Path(path).read_bytes()


def read_json(path: str | Path) -> Any:
    """A JSON file."""
    with _told(path, "as JSON"):
        return json.loads(Path(path).read_text())


def jgz_entries(path: str | Path) -> Iterator[Any]:
    """The entries of a gzipped JSON list one by one: as a whole they would take gigabytes."""
    decoder, gap, text = json.JSONDecoder(), re.compile(r"[\s,]*"), ""
    with _told(path, "as a gzipped JSON list"), gzip.open(path, "rt", encoding="utf-8") as file:
        if file.read(1) != "[":
            raise InputError(f"{path}: a gzipped JSON list is needed")
        while chunk := file.read(1 << 20):
            text, at = text + chunk, 0
            with suppress(json.JSONDecodeError):  # the end of an entry comes with the next chunk
                while True:
                    entry, at = decoder.raw_decode(text, gap.match(text, at).end())
                    yield entry
            text = text[at:]
        if text.strip() != "]":
            raise InputError(f"{path}: the list breaks off; download it again")


def read_npy(path: str | Path) -> np.ndarray:
    """One array of numbers; pickled objects are refused, not executed."""
    with _told(path, "as an array (.npy)"):
        return np.load(path, allow_pickle=False)


def read_npz(path: str | Path, *keys: str) -> dict[str, np.ndarray]:
    """The arrays `keys` of an npz and no others. Raises InputError for a missing one and for pickled objects."""
    with _told(path, "as arrays (.npz)"), np.load(path, allow_pickle=False) as arrays:
        missing = [key for key in keys if key not in arrays.files]
        if missing:
            raise InputError(f"{path}: holds no {', '.join(missing)}; it has {', '.join(arrays.files) or 'nothing'}")
        return {key: arrays[key] for key in keys}


def read_pth(path: str | Path) -> Any:
    """What `torch.save` wrote: tensors and plain containers only, anything else is refused, not executed."""
    import torch

    with _told(path, "as tensors (.pth)"):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # only what is used is read


def read_exr(path: str | Path) -> np.ndarray:  # [H, W] float32
    """One channel of an OpenEXR picture (R, Y or Z, else the first by name)."""
    library = _library("OpenEXR", "OpenEXR")
    if not Path(path).exists():  # the library would say so itself, and also print it
        raise InputError(f"{path}: no such file")
    with _told(path, "as an EXR picture"), library.File(str(path), separate_channels=True) as file:
        channels = file.channels()
        name = next((name for name in ("R", "Y", "Z") if name in channels), min(channels))
        return as_float32(channels[name].pixels)


def as_float32(array: np.ndarray) -> np.ndarray:
    """A copy as float32: of halves by torch, which converts many at a time, numpy one by one."""
    import torch

    return torch.from_numpy(array.copy()).float().numpy() if array.dtype == np.float16 else array.astype(np.float32)


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[Any]:
    """An h5py file to read from; data sets are read by slices, so only what is asked for is decoded."""
    library = _library("h5py", "h5py")
    with _told(path, "as HDF5"), library.File(path, "r") as file:
        yield file


def read_hdf5(path: str | Path, key: str, at: Any = ()) -> np.ndarray:
    """The part `at` (an index or slices; all of it by default) of one data set."""
    with open_hdf5(path) as file:
        if key not in file:
            raise InputError(f"{path}: holds no data set {key!r}; it has {', '.join(file) or 'nothing'}")
        return np.asarray(file[key][at])


def _library(module: str, package: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{package} is needed to read this dataset: pip install 'movies[data]'") from error


@contextmanager
def _told(path: str | Path, kind: str) -> Iterator[None]:
    """What goes wrong while a file is read becomes one line with its name."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise InputError(f"{path}: holds pickled objects, which are never executed; save plain arrays") from error
        raise InputError(f"{path}: cannot be read {kind} ({_short(error)})") from error
    except (OSError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile, *_unpickling()) as error:
        raise InputError(f"{path}: cannot be read {kind} ({_short(error)})") from error


def _unpickling() -> tuple[type[Exception], ...]:
    from pickle import UnpicklingError  # the name of torch's refusal; nothing is unpickled here

    return (UnpicklingError,)


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0][:120].rstrip(".") if lines else type(error).__name__) + "; download or unpack it again"
