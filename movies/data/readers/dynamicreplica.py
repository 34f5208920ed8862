"""DynamicReplica as downloaded: `<split>/frame_annotations_<split>.jgz` and `<split>/<sequence>_source_left/...`.

The annotations (gzipped JSON) name every file and hold PyTorch3D cameras: row vectors, x left, y up, NDC intrinsics.
Depth is a 16-bit PNG whose bits are half floats; trajectories are one .pth of world points a frame, left view only.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from movies.clip import Tracks
from movies.data.readers.files import inside, jgz_entries, list_files, read_pth
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    inverted,
    matched,
    open_sequences,
    pixel_cameras,
    split_folder,
    valid_or_zero,
    with_last_row,
)
from movies.data.readers.tracks import seen_tracks
from movies.errors import InputError
from movies.video import read_gray16

AXES = np.diag([-1.0, -1.0, 1.0])  # PyTorch3D's camera axes to OpenCV's and back
SMALLEST = 1e-5  # metres; the dataset's own code counts less as not valid


@dataclass(frozen=True)
class Annotations:
    """What the annotations say of one view of one sequence, frame by frame, compactly: a split has 290,000 frames."""

    images: dict[int, str] = field(default_factory=dict)  # by frame number, relative to the annotations
    depths: dict[int, str] = field(default_factory=dict)
    trajectories: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # (height, width)
    viewpoints: dict[int, np.ndarray] = field(default_factory=dict)  # [16] R, T, focal lengths, principal point
    formats: set[str] = field(default_factory=set)  # of the intrinsics

    def add(self, entry: dict) -> None:
        number, viewpoint = int(entry["frame_number"]), entry["viewpoint"]
        self.images[number], self.sizes[number] = entry["image"]["path"], tuple(entry["image"]["size"])
        for files, key in ((self.depths, "depth"), (self.trajectories, "trajectories")):
            if (entry.get(key) or {}).get("path"):
                files[number] = entry[key]["path"]
        parts = (*viewpoint["R"], viewpoint["T"], viewpoint["focal_length"], viewpoint["principal_point"])
        self.viewpoints[number] = np.array([value for part in parts for value in part], dtype=np.float64).reshape(16)
        self.formats.add(viewpoint["intrinsics_format"])


@dataclass(frozen=True)
class DynamicReplicaSequence(FrameSequence):
    """One view of one scene, named by its folder."""

    split: str = "train"

    label = "DynamicReplica"
    expected = "<split>/frame_annotations_<split>.jgz beside the sequences' folders"

    @property
    def annotations(self) -> Annotations:
        file = self.folder.parent / f"frame_annotations_{self.split}.jgz"
        known = annotations_of(file)
        if self.folder.name not in known:
            raise InputError(f"{file}: names no sequence {self.folder.name}")
        return known[self.folder.name]

    @property
    def has_tracks(self) -> bool:
        return bool(self.annotations.trajectories)

    def frames(self) -> Frames:
        known = self.annotations
        images, depths = self._present(known.images), self._present(known.depths)
        numbers, images, depths = matched(images, known.viewpoints, depths)
        sizes = {known.sizes[n] for n in numbers}
        if len(sizes) > 1 or len(known.formats) > 1:
            raise InputError(f"{self.folder}: the annotations give several image sizes or intrinsics formats")
        size = sizes.pop() if sizes else (0, 0)
        viewpoints = np.array([known.viewpoints[n] for n in numbers]).reshape(-1, 16)
        w2c, fxfycxcy = opencv_cameras(viewpoints, *size, *known.formats)
        return Frames(images, pixel_cameras(inverted(w2c), fxfycxcy, size), depths, numbers, size)

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W]
        return valid_or_zero(read_gray16(frames.depths[index]).view(np.float16), smallest=SMALLEST)

    def read_tracks(self, frames: Frames, indices: list[int]) -> Tracks:
        wanted, trajectories = {frames.numbers[i] for i in indices}, self.annotations.trajectories
        paths = self._present({number: path for number, path in trajectories.items() if number in wanted})
        read = {number: _points(path) for number, path in paths.items()}
        if not read:
            return Tracks.empty(len(indices))
        if len({points.shape for points, _ in read.values()}) > 1:
            raise InputError(f"{self.folder}/trajectories: frames {sorted(read)} do not have the same tracks")
        points, visible = next(iter(read.values()))
        absent = torch.full_like(points, torch.nan), torch.zeros_like(visible)
        chosen = [read.get(frames.numbers[i], absent) for i in indices]
        points, visible = (torch.stack(parts) for parts in zip(*chosen, strict=True))
        return seen_tracks(points, visible, frames.cameras[indices])

    def _present(self, files: dict[int, str]) -> dict[int, Path]:
        """Those of the named files that lie on the disk; one listing a folder."""
        paths = {number: inside(self.folder.parent, relative) for number, relative in files.items()}
        there = {file for folder in {path.parent for path in paths.values()} for file in list_files(folder)}
        return {number: path for number, path in paths.items() if path in there}


def dynamicreplica_sequences(
    root: str | Path, *, split: str = "train", names: Iterable[str] | None = None, short_side: int = 0
) -> list[DynamicReplicaSequence]:
    """The left views of a split (train, valid, test) that lie on the disk. Raises InputError where there are none."""
    find = partial(_find, split=split)
    return open_sequences(DynamicReplicaSequence, root, names, find, short_side=short_side, split=split)


def _find(root: Path, split: str) -> Iterator[str]:
    folder = split_folder(root, split)
    there = {file.name for file in list_files(folder)}
    file = folder / f"frame_annotations_{split}.jgz"
    for name in annotations_of(file) if file.exists() else ():
        if name in there:
            yield (folder / name).relative_to(root).as_posix()


@lru_cache(maxsize=4)
def annotations_of(file: Path) -> dict[str, Annotations]:
    """The left views that a split's annotations describe, by the name of their folder."""
    found: dict[str, Annotations] = {}
    for entry in jgz_entries(file):
        try:
            if entry["camera_name"] == "left":
                found.setdefault(Path(entry["image"]["path"]).parts[0], Annotations()).add(entry)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{file}: an entry is not a DynamicReplica annotation ({error!r})") from error
    return found


def opencv_cameras(viewpoints: np.ndarray, height: int, width: int, intrinsics: str) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera [F, 4, 4] and fx fy cx cy in pixels [F, 4] of PyTorch3D viewpoints [F, 16]."""
    rotation, translation, focal, center = np.split(viewpoints, [9, 12, 14], axis=1)
    rotation = AXES @ rotation.reshape(-1, 3, 3).transpose(0, 2, 1)
    w2c = with_last_row(np.concatenate([rotation, (translation @ AXES)[..., None]], axis=2))
    half = np.array([width, height]) / 2
    units = {"ndc_isotropic": np.full(2, half.min()), "ndc_norm_image_bounds": half}
    if intrinsics not in units:
        raise InputError(f"intrinsics_format {intrinsics!r} is not one of {', '.join(units)}")
    return w2c, np.concatenate([focal * units[intrinsics], half - center * units[intrinsics]], axis=1)  # NDC: x left


def _points(path: Path) -> tuple[torch.Tensor, torch.Tensor]:  # [P, 3], [P]
    data = read_pth(path)
    try:
        points, visible = data["traj_3d_world"].float(), data["verts_inds_vis"].bool()
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: holds no tensors traj_3d_world and verts_inds_vis") from error
    if points.shape != (*visible.shape, 3):
        raise InputError(
            f"{path}: traj_3d_world {list(points.shape)} does not fit verts_inds_vis {list(visible.shape)}"
        )
    return points, visible
