"""Packed sequences: one HDF5 file for each, of any other reader, for disks on which many small files are slow.

`tools/pack_dataset.py` writes them. A file holds, for its F frames:
  c2w [F, 4, 4], fxfycxcy [F, 4], times [F]    float32
  pictures uint8 and ends int64 [F]            the image files' own bytes, one after another; or
  images [F, 3, H, W]                          uint8 steps of 1/255, float32 where they are no whole steps
  depth [F, H, W]                              float32, 0 where not valid; only where there is any
  points [F, P, 3], visible [F, P]             only where there are tracks
"""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Indices
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Tracks, Views
from movies.data.readers.files import inside, open_hdf5
from movies.data.readers.frames import FrameSequence, checked_indices, frames_of, open_sequences, resampled
from movies.errors import InputError
from movies.files import replacing_file
from movies.video import image_size, read_image_into, scaled_size

FRAMES_AT_ONCE = 16  # while packing: a whole sequence may not fit into memory
PACKING = {"compression": "gzip", "compression_opts": 4, "shuffle": True}


@dataclass(frozen=True)
class PackedSequence:
    """One packed file. A Sequence with the content of the one that it was made from."""

    root: Path
    name: str
    short_side: int = 0

    label = "packed"
    expected = "files <sequence>.h5 as tools/pack_dataset.py writes them"

    @property
    def path(self) -> Path:
        return inside(self.root, f"{self.name}.h5")

    @property
    def num_frames(self) -> int:
        return _contents(self.path)["c2w"][0]

    @property
    def is_static(self) -> bool:
        return _contents(self.path)["is_static"]

    @property
    def has_depth(self) -> bool:
        return "depth" in _contents(self.path)

    @property
    def has_tracks(self) -> bool:
        return "points" in _contents(self.path)

    def read(self, indices: Indices[int]) -> tuple[Views, Tracks]:
        """See Sequence."""
        chosen = checked_indices(self.name, indices, self.num_frames)
        with open_hdf5(self.path) as file:
            images = self._pictures(file, chosen) if "pictures" in file else _images(file, chosen)
            depth = _depth(file, chosen, tuple(images.shape[-2:]))
            cameras = Cameras(*(_rows(file, key, chosen) for key in ("c2w", "fxfycxcy")))
            mask = torch.from_numpy(depth.numpy() > 0)
            views = Views(images, cameras, _rows(file, "times", chosen), depth, mask)
            views = views.resized(*scaled_size(views.size, self.short_side))  # images that were no pictures
            if not self.has_tracks:
                return views, Tracks.empty(len(chosen))
            return views, Tracks(_rows(file, "points", chosen), _rows(file, "visible", chosen))

    def _pictures(self, file: Any, chosen: list[int]) -> Tensor:  # [V, 3, H, W]
        ends, content = np.concatenate([[0], file["ends"][:]]), file["pictures"]
        packed = [BytesIO(content[ends[i] : ends[i + 1]].tobytes()) for i in chosen]
        with self._told(chosen[0]):
            images = torch.empty(len(chosen), 3, *scaled_size(image_size(packed[0]), self.short_side))
        for i, image, picture in zip(chosen, images, packed, strict=True):
            with self._told(i):
                picture.seek(0)
                read_image_into(image, picture, self.short_side)
        return images

    @contextmanager
    def _told(self, index: int) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.path}: the picture of frame {index} cannot be read; pack it again") from error


@lru_cache(maxsize=128)
def _contents(path: Path) -> dict[str, Any]:
    """Shapes of the file's data sets, and whether its scene is static."""
    with open_hdf5(path) as file:
        missing = {"c2w", "fxfycxcy", "times"} - set(file)
        if missing or "is_static" not in file.attrs:
            raise InputError(f"{path}: not a packed sequence; tools/pack_dataset.py makes them")
        return {**{key: file[key].shape for key in file}, "is_static": bool(file.attrs["is_static"])}


def _images(file: Any, chosen: list[int]) -> Tensor:  # [V, 3, H, W]
    images = _rows(file, "images", chosen)
    return images / 255 if images.dtype == torch.uint8 else images


def _rows(file: Any, key: str, chosen: list[int]) -> Tensor:  # [V, ...]
    data = file[key]
    if data.chunks is None:  # small: at once
        return torch.from_numpy(data[()][chosen])
    rows = np.empty((len(chosen), *data.shape[1:]), data.dtype)
    for row, i in zip(rows, chosen, strict=True):
        data.read_direct(row, np.s_[i])
    return torch.from_numpy(rows)


def _depth(file: Any, chosen: list[int], size: tuple[int, int]) -> Tensor:  # [V, H, W]
    if "depth" not in file:
        return torch.zeros(len(chosen), *size)
    depth = _rows(file, "depth", chosen)
    if depth.shape[1:] == size:
        return depth
    return torch.from_numpy(np.stack([resampled(row, size) for row in depth.numpy()]))


def packed_sequences(
    root: str | Path, *, names: Iterable[str] | None = None, short_side: int = 0
) -> list[PackedSequence]:
    """All packed sequences below `root`. Raises InputError where there are none."""
    return open_sequences(PackedSequence, root, names, _find, short_side=short_side)


def _find(root: Path) -> Iterable[str]:
    return (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("[!.]*.h5"))


def pack_sequence(sequence: Any, path: str | Path) -> None:
    """Write what `sequence.read` gives into one file, beside its place and renamed.

    Raises InputError for a sequence that reads its pictures smaller than they are (pack all, read smaller), and for
    tracks that are not the same from frame to frame.
    """
    import h5py  # of the `data` extra

    if getattr(sequence, "short_side", 0):
        raise InputError(f"{sequence.name}: pack without `short_side`, and give it to the reader of the packed files")
    with replacing_file(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["is_static"] = sequence.is_static
        for first, last in _parts(sequence):
            views, tracks = sequence.read(range(first, last))
            if first == 0:
                _create(file, sequence, views, tracks)
            _fill(file, slice(first, last), views, tracks, sequence.name)


def _parts(sequence: Any) -> list[tuple[int, int]]:
    """Ranges of frames. Sequences not made of files choose their tracks for the frames read: all at once."""
    number = sequence.num_frames
    step = FRAMES_AT_ONCE if isinstance(sequence, FrameSequence) else number
    return [(first, min(first + step, number)) for first in range(0, number, step)]


def _create(file: Any, sequence: Any, views: Views, tracks: Tracks) -> None:
    """Empty data sets, the large ones a frame to a chunk, and the pictures."""
    number, (height, width), points = sequence.num_frames, views.size, len(tracks)
    shapes = {"c2w": ((4, 4), "f4"), "fxfycxcy": ((4,), "f4"), "times": ((), "f4")}
    if isinstance(sequence, FrameSequence) and type(sequence).read_images is FrameSequence.read_images:
        _store_pictures(file, frames_of(sequence).images)
    else:
        whole = torch.equal((views.images * 255).round() / 255, views.images)
        shapes["images"] = ((3, height, width), "u1" if whole else "f4")
    if sequence_has_depth(sequence, views):
        shapes["depth"] = ((height, width), "f4")
    if points:
        shapes |= {"points": ((points, 3), "f4"), "visible": ((points,), "?")}
    for key, (shape, dtype) in shapes.items():
        packing = {"chunks": (1, *shape), **PACKING} if np.prod(shape) > 16 else {}
        file.create_dataset(key, (number, *shape), dtype, **packing)


def sequence_has_depth(sequence: Any, views: Views) -> bool:
    """Whether any frame has depth: as the sequence says, else as the views read show."""
    return getattr(sequence, "has_depth", bool(views.depth_mask.any()))


def _store_pictures(file: Any, paths: tuple[Path, ...]) -> None:
    ends = np.cumsum([path.stat().st_size for path in paths])
    file["ends"] = ends
    pictures = file.create_dataset("pictures", (ends[-1],), "u1")
    for path, end in zip(paths, ends, strict=True):
        content = np.frombuffer(path.read_bytes(), np.uint8)
        pictures[end - len(content) : end] = content


def _fill(file: Any, rows: slice, views: Views, tracks: Tracks, name: str) -> None:
    values = {"c2w": views.cameras.c2w, "fxfycxcy": views.cameras.fxfycxcy, "times": views.times}
    values |= {"images": views.images, "depth": views.depth * views.depth_mask}
    values |= {"points": tracks.points, "visible": tracks.visible} if "points" in file else {}
    if "images" in file and file["images"].dtype == np.uint8:
        values["images"] = (views.images * 255).round().byte()
    for key in sorted(values.keys() & set(file), reverse=True):
        if file[key].shape[1:] != values[key].shape[1:]:
            raise InputError(f"{name}: {key} of frames {rows.start}..{rows.stop - 1} have another shape than before")
        file[key][rows] = values[key].numpy()
