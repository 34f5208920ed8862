"""Rows of the arrays in an .npz, without the rest: annotations of a long sequence run to gigabytes."""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from movies.errors import InputError

BROKEN = (OSError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile)


def npz_rows(path: Path, key: str, indices: Sequence[int]) -> np.ndarray:  # [V, ...] of an array [F, ...]
    """`array[indices]` along the first axis. Stored members are read in place, deflated ones up to the last row.

    Raises InputError naming file and array: not there, truncated, holding pickled objects, or with fewer rows.
    """
    with _member(path, key) as (stream, shape, dtype):
        if max(indices, default=-1) >= (shape[0] if shape else 0):
            raise InputError(f"{path}: `{key}` has shape {list(shape)}, frame {max(indices)} is asked of it")
        row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        start, data = stream.tell(), np.empty((len(indices), row), np.uint8)
        for position in np.argsort(indices, kind="stable"):  # a deflated member only runs forward
            stream.seek(start + int(indices[position]) * row)
            data[position] = np.frombuffer(stream.read(row), np.uint8, row)
    return data.view(dtype).reshape(len(indices), *shape[1:]) if row else np.empty((len(indices), *shape[1:]), dtype)


def npz_shape(path: Path, key: str) -> tuple[int, ...]:
    """The shape of an array, of which only the header is read. Raises InputError as `npz_rows` does."""
    with _member(path, key) as (_, shape, _):
        return shape


@contextmanager
def _member(path: Path, key: str) -> Iterator[tuple[BinaryIO, tuple[int, ...], np.dtype]]:
    """The stream behind the header of one array, with the array's shape and dtype."""
    try:
        with zipfile.ZipFile(path) as archive, _opened(archive, archive.getinfo(f"{key}.npy"), path) as stream:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = header(stream)
            if dtype.hasobject:
                raise InputError(f"{path}: `{key}` holds pickled objects, which are never loaded")
            if fortran_order and len(shape) > 1:
                raise InputError(f"{path}: `{key}` is stored column by column; save it again in C order")
            yield stream, shape, dtype
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except KeyError as error:
        raise InputError(f"{path}: has no array `{key}`") from error
    except BROKEN as error:
        raise InputError(f"{path}: `{key}` cannot be read ({error}); download the file again") from error


@contextmanager
def _opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Iterator[BinaryIO]:
    """A stored member as its place in the file, so that seeking costs nothing; a deflated one as zipfile's stream."""
    if info.compress_type != zipfile.ZIP_STORED:
        with archive.open(info) as stream:
            yield stream
        return
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", stream.read(4))  # the local header's own lengths end it
        stream.seek(name + extra, 1)
        yield stream
