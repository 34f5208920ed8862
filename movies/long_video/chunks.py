"""What one chunk alone gives, on disk until the chunks are merged, so that a run that was killed goes on from there."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.files import replacing_file
from movies.geometry import unproject


@dataclass(frozen=True)
class Estimate:
    """What the camera network says of a chunk, as far as `network_world` asks."""

    depth: Tensor  # [1, V, H, W]
    cameras: Cameras  # [1, V]

    def save(self, path: Path) -> None:
        save_tensors(path, depth=self.depth, c2w=self.cameras.c2w, fxfycxcy=self.cameras.fxfycxcy)

    @staticmethod
    def load(path: Path, device: torch.device) -> "Estimate":
        held = load_tensors(path, device)
        return Estimate(held["depth"], Cameras(held["c2w"], held["fxfycxcy"]))


@dataclass(frozen=True)
class Geometry:
    """Depth and cameras of a chunk in the chunk's world, which is all that a joint asks of it."""

    frames: Tensor  # [V] int64 positions among the frames of the clip
    depth: Tensor  # [V, H, W]
    confidence: Tensor  # [V, H, W]
    cameras: Cameras  # [V]
    world: Tensor = field(default_factory=lambda: torch.zeros(0))  # [V, H, W, 3] points, [0] where depth tells them

    def points(self, views: Tensor) -> Tensor:  # [O] -> [O, H, W, 3]
        if len(self.world):
            return self.world[views]
        cameras = self.cameras[views]
        return unproject(self.depth[views], cameras.fxfycxcy, cameras.c2w)

    def save(self, path: Path) -> None:
        cameras = {"c2w": self.cameras.c2w, "fxfycxcy": self.cameras.fxfycxcy}
        own = {"world": self.world} if len(self.world) else {}
        save_tensors(path, frames=self.frames, depth=self.depth, confidence=self.confidence, **cameras, **own)

    @staticmethod
    def load(path: Path) -> "Geometry":
        held = load_tensors(path)
        cameras = Cameras(held["c2w"], held["fxfycxcy"])
        return Geometry(held["frames"], held["depth"], held["confidence"], cameras, held.get("world", torch.zeros(0)))


def shared(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:  # [V], [W] -> [O] positions in each
    """Where two chunks hold the same frames."""
    same = before[:, None] == after
    return same.nonzero().unbind(dim=1)


def save_tensors(path: Path, **tensors: Tensor) -> None:
    """Beside its place and renamed. Raises OSError where the disk refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing_file(path) as temporary:
        try:
            save_file({name: x.detach().cpu().clone().contiguous() for name, x in tensors.items()}, temporary)
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(f"{path}: cannot be written ({error})") from error


def load_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path, device=str(device))
