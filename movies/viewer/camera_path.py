"""A camera path made of recorded views: cameras and moments, between which both are interpolated."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from movies.camera_files import load_cameras, save_cameras
from movies.cameras import Cameras
from movies.errors import InputError
from movies.files import replacing_file
from movies.shapes import check_shape
from movies.trajectories import interpolate
from movies.video import natural_key


@dataclass(frozen=True)
class CameraPath:
    """K views in order, each with its moment in [0, 1]; the same moment everywhere freezes time along the path."""

    cameras: Cameras  # [K]
    times: Tensor  # [K]

    def __post_init__(self) -> None:
        check_shape("times", self.times, tuple(self.cameras.shape))

    @staticmethod
    def empty() -> "CameraPath":
        return CameraPath(Cameras(torch.zeros(0, 4, 4), torch.zeros(0, 4)), torch.zeros(0))

    def __len__(self) -> int:
        return len(self.times)

    def added(self, camera: Cameras, time: float) -> "CameraPath":  # []
        """The path with one more view at its end."""
        c2w = torch.cat([self.cameras.c2w, camera.c2w[None].cpu()])
        fxfycxcy = torch.cat([self.cameras.fxfycxcy, camera.fxfycxcy[None].cpu()])
        return CameraPath(Cameras(c2w, fxfycxcy), torch.cat([self.times, torch.tensor([float(time)])]))

    def without(self, index: int) -> "CameraPath":
        """The path without the view at `index`."""
        kept = [i for i in range(len(self)) if i != index]
        return CameraPath(self.cameras[kept], self.times[kept])

    def sampled(self, num_frames: int) -> tuple[Cameras, Tensor]:  # -> [F], [F]
        """Cameras and moments of so many frames, as many between each two views. Raises InputError for no views."""
        if not len(self):
            raise InputError("the camera path holds no view yet; add one first")
        position = torch.linspace(0, len(self) - 1, num_frames)
        before = position.long().clamp(max=max(len(self) - 2, 0))
        after = (before + 1).clamp(max=len(self) - 1)
        return interpolate(self.cameras, num_frames), torch.lerp(
            self.times[before], self.times[after], position - before
        )

    def save(self, path: str | Path, size: tuple[int, int]) -> None:
        """Write a transforms.json (movies.camera_files) of images of `size` (height, width), each with its `time`."""
        with replacing_file(path) as temporary:
            save_cameras(self.cameras, temporary, size)
            content = json.loads(temporary.read_text())
            for frame, time in zip(content["frames"], self.times.tolist(), strict=True):
                frame["time"] = time
            temporary.write_text(json.dumps(content, indent=1))

    @staticmethod
    def load(path: str | Path) -> "CameraPath":
        """Read what `save` wrote, or any camera file; without moments in it the clip plays once along the path."""
        cameras = load_cameras(path)
        times = _times(Path(path))
        if len(times) != len(cameras) or not ((times >= 0) & (times <= 1)).all():
            times = torch.linspace(0, 1, len(cameras))
        return CameraPath(cameras, times)


def _times(path: Path) -> Tensor:  # [K], [0] where not every frame tells one
    """The frames' moments in the order in which `load_cameras` takes them."""
    if not path.is_file() or path.suffix.lower() != ".json":
        return torch.zeros(0)
    frames = json.loads(path.read_text())["frames"]
    if not all(isinstance(frame.get("time"), int | float) for frame in frames):
        return torch.zeros(0)
    if all(isinstance(frame.get("file_path"), str) for frame in frames):
        frames = sorted(frames, key=lambda frame: natural_key(frame["file_path"]))
    return torch.tensor([float(frame["time"]) for frame in frames])
