"""DyCheck's iPhone sequences: a hand-held camera in, two fixed ones held back, with masks of what the first has seen.

`<root>/<sequence>/` holds `camera/<id>.json`, `rgb/<factor>x/<id>.png`, `depth/<factor>x/<id>.npy`,
`covisible/<factor>x/val/<id>.png`, `splits/{train,val}.json` and `scene.json`; `<id>` is <camera>_<frame>. Cameras are
told for the 1x images: `orientation` is the world-to-camera rotation, `position` the centre. Positions are taken
relative to the scene's `center` and times its `scale`, and so is depth, which is in metres (the documentation says
millimetres, the code that writes it metres).
"""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Indices
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.data.readers.files import inside, read_json, read_npy
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    checked_indices,
    first_size,
    frames_of,
    normalised_cameras,
    open_sequences,
    valid_or_zero,
    with_last_row,
)
from movies.errors import InputError
from movies.evaluate.cases import Windows
from movies.video import read_mask

DISTORTIONS = ("skew", "radial_distortion", "tangential_distortion", "tangential")


def dycheck_sequences(root: str | Path, *, factor: int = 2, names: Iterable[str] | None = None) -> list:
    """Sequences with held-out cameras, their pictures made smaller by `factor`. Raises InputError where none is."""
    return open_sequences(DyCheckSequence, root, names, _find, factor=factor)


def _find(root: Path) -> Iterator[str]:
    return (path.parent.parent.name for path in root.glob("*/splits/val.json"))


@dataclass(frozen=True)
class DyCheckSequence(FrameSequence):
    """All frames of all cameras of one sequence, by time and then by camera."""

    factor: int = 2

    label = "DyCheck iPhone"
    expected = "<sequence>/splits/val.json, camera, rgb, covisible"

    def frames(self) -> Frames:
        rows = _rows(self)
        images = [self._place("rgb", name, ".png") for name, _, _ in rows]
        depths = [self._place("depth", name, ".npy") for name, _, _ in rows]
        center, scale = self._scene()
        parts = [_camera(self.folder / "camera" / f"{name}.json") for name, _, _ in rows]
        c2w = np.stack([matrix for matrix, _ in parts])
        c2w[:, :3, 3] = (c2w[:, :3, 3] - center) * scale
        cameras = normalised_cameras(c2w, np.stack([intrinsics for _, intrinsics in parts]))
        numbers = tuple(time for _, time, _ in rows)
        known = tuple(path if path.exists() else None for path in depths)
        return Frames(tuple(images), cameras, known, numbers, first_size(images))

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W]
        depth = read_npy(frames.depths[index])
        depth = depth[..., 0] if depth.ndim == 3 else depth
        return valid_or_zero(depth * self._scene()[1])

    def windows(self) -> Windows:
        rows = _rows(self)
        inputs = [i for i, (_, _, split) in enumerate(rows) if split == "train"]
        targets = [i for i, (_, _, split) in enumerate(rows) if split == "val"]
        return Windows(inputs, targets, list(frames_of(self).numbers))

    def read_masks(self, indices: Indices[int]) -> Tensor:  # [K, H, W] bool: seen in enough of the input frames
        rows = _rows(self)
        names = [rows[i][0] for i in checked_indices(self.name, indices, len(rows))]
        masks = [read_mask(inside(self.folder, f"covisible/{self.factor}x/val/{name}.png")) for name in names]
        return torch.from_numpy(np.stack(masks))

    def _place(self, kind: str, name: str, suffix: str) -> Path:
        return inside(self.folder, f"{kind}/{self.factor}x/{name}{suffix}")

    def _scene(self) -> tuple[np.ndarray, float]:
        path = self.folder / "scene.json"
        center, scale = _values(path, read_json(path), "center", "scale")
        return np.array(center, dtype=np.float64), float(scale)


@lru_cache(maxsize=32)
def _rows(sequence: DyCheckSequence) -> list[tuple[str, int, str]]:
    """Name, time and split of every frame, in order."""
    rows = []
    for split in ("train", "val"):
        path = sequence.folder / "splits" / f"{split}.json"
        names, times = _values(path, read_json(path), "frame_names", "time_ids")
        rows += [(name, int(time), split) for name, time in zip(names, times, strict=True)]
    return sorted(rows, key=lambda row: (row[1], row[0]))


def _camera(path: Path) -> tuple[np.ndarray, np.ndarray]:  # c2w [4, 4], fxfycxcy [4] normalised
    camera = read_json(path)
    warped = [key for key in DISTORTIONS if np.any(camera.get(key, 0))]
    if warped:
        raise InputError(f"{path}: {warped[0]} is not zero; undistort the images first")
    keys = ("orientation", "position", "focal_length", "principal_point", "image_size")
    orientation, position, focal, (x, y), (width, height) = _values(path, camera, *keys)
    rotation = np.array(orientation, dtype=np.float64).T  # stored world-to-camera
    c2w = with_last_row(np.concatenate([rotation, np.array(position)[:, None]], axis=1)[None])[0]
    aspect = camera.get("pixel_aspect_ratio", 1.0)
    return c2w, np.array([focal / width, focal * aspect / height, x / width, y / height])


def _values(path: Path, content: dict, *keys: str) -> list:
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(f"{path}: holds no {missing[0]!r}; it has {', '.join(content)}")
    return [content[key] for key in keys]
