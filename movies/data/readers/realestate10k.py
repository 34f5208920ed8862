"""RealEstate10K: cameras of 80,000 filmed house tours; frames are fetched by each user, depth estimated.

`<root>/<split>/<clip>.txt` holds the video's address, then for each frame `timestamp fx fy cx cy 0 0` and a 3x4
world-to-camera matrix; intrinsics are fractions of the image, positions have no unit. Frames lie in
`<frames>/[<split>/]<clip>/<timestamp>.png` or .jpg; timestamps without a picture are left out.

Depth is optional, one file `<depths>/[<split>/]<clip>.h5` a clip (tools/align_re10k.py writes it):
  timestamps  int64 [F]        which frames
  depth       float [F, h, w]  z-depth of these frames at any resolution of the images' aspect, 0 where not known
  scale       float []         the camera positions of the text file times this are in the depth's unit
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from movies.data.readers.files import inside, list_files, numbered, open_hdf5, read_hdf5, read_table
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    first_size,
    inverted,
    matched,
    normalised_cameras,
    open_sequences,
    resampled,
    valid_or_zero,
    with_last_row,
)
from movies.errors import InputError


def realestate10k_sequences(
    root: str | Path,
    *,
    split: str = "train",
    frames: str = "frames",
    depths: str = "",
    names: Iterable[str] | None = None,
    short_side: int = 0,
) -> list:
    """Clips of a split whose frames have been fetched. `frames` and `depths` are folders, inside `root` or absolute.

    `names` are clips (16 hex digits). Raises InputError where there is none.
    """

    def find(path: Path) -> Iterator[str]:
        fetched = {folder.name for place in _places(path / frames, split) for folder in place.iterdir()}
        listed = {file.stem for file in list_files(path / split, ".txt")}
        return iter(listed & fetched)

    options = {"split": split, "frames_folder": str(frames), "depths_folder": str(depths), "short_side": short_side}
    return open_sequences(RealEstateSequence, root, names, find, **options)


def _places(folder: Path, split: str) -> list[Path]:
    """The folder of a split, if there is one, and the folder itself."""
    return [place for place in (folder / split, folder) if place.is_dir()]


@dataclass(frozen=True)
class RealEstateSequence(FrameSequence):
    """One clip. Without a depth file its unit is that of structure from motion, another one for each clip."""

    split: str = "train"
    frames_folder: str = "frames"
    depths_folder: str = ""

    is_static = True
    label = "RealEstate10K"
    expected = "<split>/<clip>.txt, and its pictures in the folder that the option `frames` names"

    def frames(self) -> Frames:
        table = read_table(inside(self.root, f"{self.split}/{self.name}.txt"), 19, header_lines=1)
        rows = {int(row[0]): row for row in table}
        folder = self._place(self.frames_folder, self.name)
        images = numbered(list_files(folder, ".png", ".jpg", ".jpeg")) if folder else {}
        depths, scale = self._depths()
        numbers, images, depths = matched(images, rows, depths)
        chosen = np.array([rows[n] for n in numbers]).reshape(-1, 19)
        c2w = inverted(with_last_row(chosen[:, 7:].reshape(-1, 3, 4)))
        c2w[:, :3, 3] *= scale
        return Frames(images, normalised_cameras(c2w, chosen[:, 1:5]), depths, numbers, first_size(images))

    def read_depths(self, frames: Frames, indices: list[int]) -> Iterator[np.ndarray | None]:
        """All out of the clip's one file, opened once."""
        path = next((path for path in frames.depths if path), None)
        if path is None:
            yield from (None for _ in indices)
            return
        rows = _depth_rows(path)
        with open_hdf5(path) as file:
            for i in indices:
                row = rows.get(frames.numbers[i])
                yield None if row is None else _of_images(file["depth"][row], frames.size, path)

    def _depths(self) -> tuple[dict[int, Path], float]:
        """The depth file for each timestamp in it, and the factor for the camera positions."""
        path = self._place(self.depths_folder, f"{self.name}.h5") if self.depths_folder else None
        if path is None:
            return {}, 1.0
        scale = float(read_hdf5(path, "scale"))
        if not 0 < scale < np.inf:
            raise InputError(f"{path}: `scale` must be positive, got {scale}")
        return dict.fromkeys(_depth_rows(path), path), scale

    def _place(self, folder: str, relative: str) -> Path | None:
        places = [inside(place, relative) for place in _places(Path(self.root) / folder, self.split)]
        return next((place for place in places if place.exists()), None)


def _of_images(depth: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:  # [h, w] -> [H, W]
    height, width = size
    if depth.ndim != 2 or abs(depth.shape[1] * height / (depth.shape[0] * width) - 1) > 0.02:
        raise InputError(f"{path}: depth of shape {list(depth.shape)} for images of {width}x{height} pixels")
    return resampled(valid_or_zero(depth), size)


@lru_cache(maxsize=128)
def _depth_rows(path: Path) -> dict[int, int]:
    """Which row of a depth file belongs to a timestamp."""
    with open_hdf5(path) as file:
        missing = [key for key in ("timestamps", "depth", "scale") if key not in file]
        if missing:
            raise InputError(f"{path}: holds no data set {missing[0]!r}; it has {', '.join(file) or 'nothing'}")
        timestamps = file["timestamps"][:].tolist()
        if len(timestamps) != len(file["depth"]):
            raise InputError(f"{path}: {len(timestamps)} timestamps for {len(file['depth'])} depth maps")
    return {int(t): row for row, t in enumerate(timestamps)}
