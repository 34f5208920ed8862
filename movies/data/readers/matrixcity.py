"""MatrixCity: a rendered city from the air (1920x1080) and the street (1000x1000); static.

`<root>/<city>/{aerial,street}/<split>/<block>/transforms.json`; pictures 0000.png beside it or in another folder named
like the block; depth 0000.exr below `<city>_depth_float32` (spelt `flaot32` for the big city) or `<city>_depth`, in
`<block>_depth`, itself doubled or not. Rotations are stored times 0.01, camera-to-world in OpenGL axes, positions are
metres; the split `pose` is the paper's, with plain rotations and positions in units of 100 m. Depth is centimetres
along z. Source: city-super/MatrixCity, README.md and scripts/.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from movies.data.readers.files import inside, list_files, numbered, read_exr, read_json
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    first_size,
    matched,
    open_sequences,
    pixel_cameras,
    valid_or_zero,
)
from movies.errors import InputError

FARTHEST_HALF = 655.04  # metres: the largest half float, which stands for the sky and all beyond
FARTHEST_FLOAT = 10_000.0  # metres: the sky's value in the float32 files is not documented, but far
_TRANSFORMS = ("transforms.json", "transforms_origin.json", "transforms_train.json")  # the first without useless views
_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def matrixcity_sequences(
    root: str | Path, *, split: str = "train", names: Iterable[str] | None = None, short_side: int = 0
) -> list:
    """Blocks `<city>/<aerial or street>/<split>/<block>`; `split` is train, train_dense, test or pose.

    Raises InputError where there is none.
    """

    def find(path: Path) -> Iterator[str]:
        for city in sorted(path.iterdir()):
            if "_depth" not in city.name:
                for folder in city.glob(f"*/{split}/*/"):
                    if any((folder / name).exists() for name in _TRANSFORMS):
                        yield folder.relative_to(path).as_posix()

    return open_sequences(MatrixCitySequence, root, names, find, short_side=short_side)


@dataclass(frozen=True)
class MatrixCitySequence(FrameSequence):
    """One block, its frames in the order of their numbers."""

    is_static = True
    label = "MatrixCity"
    expected = "<city>/<aerial or street>/<split>/<block>/transforms.json"

    def frames(self) -> Frames:
        path = next((p for p in (self.folder / name for name in _TRANSFORMS) if p.exists()), None)
        if path is None:
            raise InputError(f"{self.folder}: none of {', '.join(_TRANSFORMS)} is there")
        content = read_json(path)
        try:
            angle, c2w = float(content["camera_angle_x"]), _poses(content["frames"])
            where = {_number(frame): self._image_folder(frame) for frame in content["frames"]}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a MatrixCity camera file ({type(error).__name__}: {error})") from error
        images, depths = {}, {}
        for folder in set(where.values()):
            mine = {number for number, place in where.items() if place == folder}
            images |= {n: file for n, file in self._listed(folder).items() if n in mine}
            depths |= {n: file for n, file in self._listed_depths(folder).items() if n in mine}
        numbers, images, depths = matched(images, c2w, depths)
        size = first_size(images)
        chosen = np.array([c2w[n] for n in numbers]).reshape(-1, 4, 4)
        return Frames(
            images, pixel_cameras(chosen, _intrinsics(angle, size, len(numbers)), size), depths, numbers, size
        )

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W]
        path = frames.depths[index]
        farthest = FARTHEST_FLOAT if _is_float32(path.relative_to(self.root).parts[0]) else FARTHEST_HALF
        return valid_or_zero(read_exr(path) / 100, farthest)

    def _image_folder(self, frame: dict) -> str:
        """The block's folder, inside the root, in which a frame's picture lies."""
        if "file_path" not in frame:
            return self.name
        return inside(self.root, Path(self.name, frame["file_path"]).parent).relative_to(self.root).as_posix()

    def _listed(self, folder: str) -> dict[int, Path]:
        block = self.root / folder
        return numbered(list_files(block, ".png", ".jpg")) or numbered(list_files(block / block.name, ".png", ".jpg"))

    def _listed_depths(self, folder: str) -> dict[int, Path]:
        city, *between, block = Path(folder).parts
        for top in (f"{city}_depth_float32", f"{city}_depth_flaot32", f"{city}_depth"):
            place = self.root.joinpath(top, *between, f"{block}_depth")
            found = list_files(place, ".exr") or list_files(place / place.name, ".exr")
            if found:
                return numbered(found)
        return {}


def _is_float32(top: str) -> bool:
    return top.endswith(("float32", "flaot32"))


def _number(frame: dict) -> int:
    return int(frame["frame_index"]) if "frame_index" in frame else int(Path(frame["file_path"]).stem)


def _poses(frames: list[dict]) -> dict[int, np.ndarray]:  # [4, 4] each, OpenCV camera axes, metres
    return {_number(frame): _c2w(frame) for frame in frames}


def _c2w(frame: dict) -> np.ndarray:  # [4, 4]
    if "rot_mat" in frame:
        matrix = np.array(frame["rot_mat"], dtype=np.float64).reshape(4, 4)
        matrix[:3, :3] *= 100
    else:
        matrix = np.array(frame["transform_matrix"], dtype=np.float64).reshape(4, 4)
        matrix[:3, 3] *= 100
    matrix[3] = [0, 0, 0, 1]  # stored as 0 0 0 0.01 in some files
    return matrix @ _FROM_OPENGL


def _intrinsics(angle: float, size: tuple[int, int], count: int) -> np.ndarray:  # [count, 4] pixels
    height, width = size
    focal = 0.5 * width / np.tan(0.5 * angle)
    return np.tile([focal, focal, width / 2, height / 2], (count, 1))
