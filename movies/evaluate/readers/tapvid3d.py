"""TAPVid-3D: points followed in 3D through videos of three sources, one npz a video.

`<root>/{adt,drivetrack,pstudio}/<video>.npz` with `images_jpeg_bytes` [T], `queries_xyt` [N, 3] (pixels, frame),
`tracks_XYZ` [T, N, 3] in metres in the camera frame of each time, `visibility` [T, N], `fx_fy_cx_cy` [4] in pixels and
`extrinsics_w2c` [T, 4, 4], absent where the camera stands still (pstudio).
"""

import io
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Indices
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Tracks, Views
from movies.data.readers.files import inside, read_npz
from movies.data.readers.frames import checked_indices, frame_times, inverted, open_sequences, pixel_cameras
from movies.errors import InputError
from movies.evaluate.cases import first_seen
from movies.geometry import transform_points
from movies.video import read_image

SOURCES = ("adt", "drivetrack", "pstudio")
KEYS = ("images_jpeg_bytes", "queries_xyt", "tracks_XYZ", "visibility", "fx_fy_cx_cy")


def tapvid3d_sequences(root: str | Path, *, names: Iterable[str] | None = None) -> list:
    """Videos `adt/<video>` of all sources that are there. Raises InputError where there is none."""
    return open_sequences(TapVidSequence, root, names, _find)


def _find(root: Path) -> Iterator[str]:
    return (f"{source}/{file.stem}" for source in SOURCES for file in (root / source).glob("*.npz"))


@dataclass(frozen=True)
class TapVidSequence:
    """One video and its points."""

    root: Path
    name: str

    is_static = False
    label = "TAPVid-3D"
    expected = "adt/<video>.npz, drivetrack/<video>.npz or pstudio/<video>.npz"

    @property
    def num_frames(self) -> int:
        return len(_arrays(self)["images_jpeg_bytes"])

    def read(self, indices: Indices[int]) -> tuple[Views, Tracks]:
        """See Sequence. The world is the first frame's camera, or the given one of `extrinsics_w2c`."""
        chosen = checked_indices(self.name, indices, self.num_frames)
        arrays = _arrays(self)
        path = inside(self.root, f"{self.name}.npz")
        images = torch.stack([_decoded(path, arrays["images_jpeg_bytes"][i]) for i in chosen])
        cameras = self._cameras(images.shape[-2:])[chosen]
        points = torch.from_numpy(arrays["tracks_XYZ"][chosen].astype(np.float32))  # [V, P, 3] camera frames
        visible = torch.from_numpy(arrays["visibility"][chosen].astype(bool)) & points.isfinite().all(dim=-1)
        blank = torch.zeros(len(chosen), *images.shape[-2:])
        times = frame_times(range(self.num_frames), chosen)
        views = Views(images, cameras, times, blank, blank.bool())
        return views, Tracks(transform_points(cameras.c2w, points), visible)

    def queries(self, context: Indices[int]) -> Tensor:  # [P, 3] input frame, x, y
        """The file's own query of each point where its frame goes in, otherwise the first frame that sees it."""
        views, tracks = self.read(context)
        queries = first_seen(views.cameras, tracks)
        own = torch.from_numpy(_arrays(self)["queries_xyt"].astype(np.float32))
        places = {frame: k for k, frame in enumerate(context)}
        place = torch.tensor([places.get(round(t), -1) for t in own[:, 2].tolist()])
        height, width = views.size
        asked = torch.stack([place.float(), own[:, 0] / width, own[:, 1] / height], dim=-1)
        return torch.where((place >= 0)[:, None], asked, queries)

    def _cameras(self, size: tuple[int, int]) -> Cameras:  # [T]
        arrays = _arrays(self)
        w2c = arrays.get("extrinsics_w2c")
        w2c = np.tile(np.eye(4), (self.num_frames, 1, 1)) if w2c is None else w2c
        return pixel_cameras(inverted(w2c), np.tile(arrays["fx_fy_cx_cy"], (self.num_frames, 1)), size)


@lru_cache(maxsize=2)
def _arrays(sequence: TapVidSequence) -> dict[str, np.ndarray]:
    path = inside(sequence.root, f"{sequence.name}.npz")
    arrays = read_npz(path, *KEYS)
    if not sequence.name.startswith("pstudio/"):
        arrays |= read_npz(path, "extrinsics_w2c")
    frames, points = arrays["visibility"].shape
    wanted = {"images_jpeg_bytes": (frames,), "queries_xyt": (points, 3), "tracks_XYZ": (frames, points, 3)}
    for key, shape in wanted.items():
        if arrays[key].shape != shape:
            raise InputError(f"{path}: `{key}` has shape {list(arrays[key].shape)}, visibility asks for {list(shape)}")
    return arrays


def _decoded(path: Path, data: bytes) -> Tensor:  # [3, H, W]
    try:
        return read_image(io.BytesIO(bytes(data)))
    except InputError as error:
        raise InputError(f"{path}: a frame cannot be read as a JPEG picture; download it again") from error
