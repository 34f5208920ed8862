"""Virtual KITTI 2: five driving scenes in ten kinds of weather and turn, 1242x375, moving cars without their motion.

`<root>/Scene01/clone/frames/{rgb,depth}/Camera_0/{rgb_00000.jpg,depth_00000.png}` and `{intrinsic,extrinsic}.txt`, all
below one root or each archive below its own `vkitti_2.0.3_{rgb,depth,textgt}`. Depth is 16-bit centimetres along z,
65535 is the sky; extrinsics are world-to-camera in OpenCV axes; intrinsics count pixel centres from 0.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from movies.data.readers.files import list_files, numbered, read_table
from movies.data.readers.frames import (
    Frames,
    FrameSequence,
    first_size,
    inverted,
    matched,
    open_sequences,
    pixel_cameras,
)
from movies.errors import InputError
from movies.video import read_gray16

SKY = 65535  # centimetres, the largest 16-bit number


def vkitti2_sequences(root: str | Path, *, names: Iterable[str] | None = None, short_side: int = 0) -> list:
    """Sequences `Scene01/clone/Camera_0` of both cameras. Raises InputError where there is none."""
    return open_sequences(VirtualKittiSequence, root, names, _find, short_side=short_side)


def _find(root: Path) -> Iterator[str]:
    for top in _tops(root, "rgb"):
        for folder in top.glob("Scene*/*/frames/rgb/Camera_*"):
            scene, variation, _, _, camera = folder.relative_to(top).parts
            yield f"{scene}/{variation}/{camera}"


def _tops(root: Path, archive: str) -> list[Path]:
    """Where Scene01 ... may lie: the root, or the folder of one archive in it."""
    return [root, *sorted(root.glob(f"vkitti*_{archive}"))]


@dataclass(frozen=True)
class VirtualKittiSequence(FrameSequence):
    """One camera's drive; its `name` is <scene>/<variation>/<camera>."""

    label = "Virtual KITTI 2"
    expected = "Scene01/clone/frames/rgb/Camera_0, merged or in vkitti_2.0.3_rgb"

    def frames(self) -> Frames:
        scene, variation, camera = self._parts()
        base = f"{scene}/{variation}"
        images = numbered(list_files(self._place("rgb", f"{base}/frames/rgb/{camera}"), ".jpg", ".png"))
        depths = numbered(list_files(self._place("depth", f"{base}/frames/depth/{camera}"), ".png"))
        extrinsic = _rows(self._place("textgt", f"{base}/extrinsic.txt"), 16, camera)
        intrinsic = _rows(self._place("textgt", f"{base}/intrinsic.txt"), 4, camera)
        numbers, images, depths = matched(images, extrinsic.keys() & intrinsic.keys(), depths)
        w2c = np.array([extrinsic[n] for n in numbers]).reshape(-1, 4, 4)
        fxfycxcy = np.array([intrinsic[n] for n in numbers]).reshape(-1, 4)
        fxfycxcy = fxfycxcy + [0, 0, 0.5, 0.5]  # 620.5 = (1242 - 1) / 2: their first pixel's centre is 0
        size = first_size(images)
        return Frames(images, pixel_cameras(inverted(w2c), fxfycxcy, size), depths, numbers, size)

    def read_depth(self, frames: Frames, index: int) -> np.ndarray:  # [H, W]
        centimetres = read_gray16(frames.depths[index])
        depth = centimetres / np.float32(100)
        depth *= centimetres != SKY
        return depth

    def _parts(self) -> list[str]:
        parts = self.name.split("/")
        if len(parts) != 3:
            raise InputError(f"{self.root}: sequences are named <scene>/<variation>/<camera>, got {self.name!r}")
        return parts

    def _place(self, archive: str, relative: str) -> Path:
        places = [top / relative for top in _tops(self.root, archive)]
        return next((place for place in places if place.exists()), places[0])


def _rows(path: Path, count: int, camera: str) -> dict[int, np.ndarray]:
    """`count` numbers of each frame of one camera, out of lines `frame cameraID ...` of both."""
    table = read_table(path, 2 + count, header_lines=1)
    mine = table[table[:, 1] == int(camera.removeprefix("Camera_"))]
    return {int(row[0]): row[2:] for row in mine}
