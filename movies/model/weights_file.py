"""Files of tensors, read a few at a time: names and shapes come from the header, memory stays at one group's size.

Each group of tensors is mapped, handed out and unmapped again, so reading a file of any size never holds more of it
than `GROUP_BYTES`. Pickled code is never run: .pt files are read with `weights_only`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from movies.errors import InputError

PICKLED = (".pt", ".pth", ".bin")
GROUP_BYTES = 1 << 26
DAMAGED = (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError)
MEND = "it may be cut short or another kind of file: fetch it again, as .safetensors or a .pt of tensors only"
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor."""

    shape: tuple[int, ...]
    dtype: str  # torch's name without "torch."
    num_bytes: int

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class WeightsFile:
    """A readable file of tensors; `read_header` makes one."""

    path: Path
    metadata: dict[str, str]
    entries: dict[str, Entry]

    def tensors(self, keys: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Hand out tensors one by one. They are the mapped file itself: copy what is to stay."""
        for group in self._groups(keys):
            with _translated(self.path), _opened(self.path) as get:
                for key in group:
                    yield key, get(key)

    def _groups(self, keys: Iterable[str]) -> Iterator[list[str]]:
        group, size = [], 0
        for key in keys:
            group.append(key)
            size += self.entries[key].num_bytes
            if size >= GROUP_BYTES:
                yield group
                group, size = [], 0
        if group:
            yield group


def read_header(path: str | Path) -> WeightsFile:
    """Names, shapes and metadata of a .safetensors or .pt file; raises InputError that names the file and the mend."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; give the path of a .safetensors or .pt file")
    with _translated(path):
        if path.suffix in PICKLED:
            return WeightsFile(path, {}, {key: _entry(tensor) for key, tensor in _pickled(path).items()})
        with safe_open(path, "pt") as file:
            entries = {key: _safetensors_entry(file.get_slice(key)) for key in file.keys()}  # noqa: SIM118 (no dict)
            return WeightsFile(path, dict(file.metadata() or {}), entries)


def _entry(tensor: Tensor) -> Entry:
    return Entry(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.nbytes)


def _safetensors_entry(part) -> Entry:
    shape, name = tuple(part.get_shape()), part.get_dtype()
    dtype = _DTYPES.get(name)
    size = dtype.itemsize if dtype else 1  # the eight-bit floats, which are named as the file names them
    return Entry(shape, str(dtype).removeprefix("torch.") if dtype else name, size * torch.Size(shape).numel())


@contextmanager
def _opened(path: Path) -> Iterator[Callable[[str], Tensor]]:
    """Yields a function from a key to its tensor, which lies in the mapped file."""
    if path.suffix in PICKLED:
        yield _pickled(path).__getitem__
    else:
        with safe_open(path, "pt") as file:
            yield file.get_tensor


def _pickled(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        state = torch.load(path, map_location="cpu", weights_only=True)  # written before torch 1.6
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: holds no flat dictionary of tensors; give a file with the model's state dict alone")
    return state


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """What readers raise about a damaged or dangerous file, as one InputError."""
    try:
        yield
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path}: not a readable weights file ({first_line(error)}); {MEND}") from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
