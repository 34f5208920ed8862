"""Rows of the arrays in an .npz, without the rest: annotations of a long sequence run to gigabytes."""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from movies.errors import InputError

BROKEN = (OSError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class Member:
    """One array in an .npz: its shape and dtype, and where its rows begin in the file (-1: deflated, nowhere)."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int


def npz_rows(path: Path, key: str, indices: Sequence[int]) -> np.ndarray:  # [V, ...] of an array [F, ...]
    """`array[indices]` along the first axis. Stored members are read in place, deflated ones up to the last row.

    Raises InputError naming file and array: not there, truncated, holding pickled objects, or with fewer rows.
    """
    with _told(path, key):
        member = _member(path, key)
        if max(indices, default=-1) >= (member.shape[0] if member.shape else 0):
            raise InputError(f"{path}: `{key}` has shape {list(member.shape)}, frame {max(indices)} is asked of it")
        size = member.dtype.itemsize * int(np.prod(member.shape[1:], dtype=np.int64))
        data = np.empty((len(indices), size), np.uint8)
        with _rows_of(path, key, member) as stream:
            start = stream.tell()
            for position in np.argsort(indices, kind="stable"):  # a deflated member only runs forward
                stream.seek(start + int(indices[position]) * size)
                data[position] = np.frombuffer(stream.read(size), np.uint8, size)
    shape = (len(indices), *member.shape[1:])
    return data.view(member.dtype).reshape(shape) if size else np.empty(shape, member.dtype)


def npz_shape(path: Path, key: str) -> tuple[int, ...]:
    """The shape of an array, of which only the header is read. Raises InputError as `npz_rows` does."""
    with _told(path, key):
        return _member(path, key).shape


@lru_cache(maxsize=1024)
def _member(path: Path, key: str) -> Member:
    """Read once for as long as a file is in use: the directory and the header cost more than a row."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
        with archive.open(info) as stream:
            shape, dtype = _header(stream, path, key)
            length = stream.tell()
        stored = info.compress_type == zipfile.ZIP_STORED
    return Member(shape, dtype, _content(path, info.header_offset) + length if stored else -1)


def _header(stream: BinaryIO, path: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = header(stream)
    if dtype.hasobject:
        raise InputError(f"{path}: `{key}` holds pickled objects, which are never loaded")
    if fortran_order and len(shape) > 1:
        raise InputError(f"{path}: `{key}` is stored column by column; save it again in C order")
    return shape, dtype


def _content(path: Path, header: int) -> int:
    """Where a stored member's content begins: behind its local header, whose own lengths end it."""
    with path.open("rb") as stream:
        stream.seek(header + 26)
        name, extra = struct.unpack("<HH", stream.read(4))
    return header + 30 + name + extra


@contextmanager
def _rows_of(path: Path, key: str, member: Member) -> Iterator[BinaryIO]:
    """A stream at an array's first row: of the file itself, where seeking costs nothing, or of zipfile's inflating."""
    if member.start >= 0:
        with path.open("rb") as stream:
            stream.seek(member.start)
            yield stream
        return
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
        _header(stream, path, key)
        yield stream


@contextmanager
def _told(path: Path, key: str) -> Iterator[None]:
    """What goes wrong in the block, as one line."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except KeyError as error:
        raise InputError(f"{path}: has no array `{key}`") from error
    except BROKEN as error:
        raise InputError(f"{path}: `{key}` cannot be read ({error}); download the file again") from error
