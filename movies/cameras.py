"""Cameras: pinhole cameras with any leading dims, OpenCV axes, normalised intrinsics."""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.errors import InputError
from movies.geometry import plucker_rays, rigid_inverse
from movies.shapes import check_shape


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras with leading dims [...].

    `c2w` maps camera to world (OpenCV axes: +x right, +y down, +z forward). `fxfycxcy` is normalised by the image's
    size (fx/W, fy/H, cx/W, cy/H) and so survives a resize. Raises InputError for wrong shapes.
    """

    c2w: Tensor  # [..., 4, 4] float32
    fxfycxcy: Tensor  # [..., 4] float32

    def __post_init__(self) -> None:
        check_shape("c2w", self.c2w, (..., 4, 4))
        check_shape("fxfycxcy", self.fxfycxcy, (*self.c2w.shape[:-2], 4))

    @property
    def shape(self) -> torch.Size:
        """The leading dims."""
        return self.c2w.shape[:-2]

    @property
    def device(self) -> torch.device:
        return self.c2w.device

    @property
    def centers(self) -> Tensor:  # [..., 3]
        """Camera centres in the world."""
        return self.c2w[..., :3, 3]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> "Cameras":
        """Index the leading dims."""
        if isinstance(index, tuple) and Ellipsis in index:
            raise InputError("Cameras are indexed by their leading dims only, without `...`")
        return Cameras(self.c2w[index], self.fxfycxcy[index])

    def to(self, device: torch.device | str) -> "Cameras":
        return Cameras(self.c2w.to(device), self.fxfycxcy.to(device))

    def reshape(self, *shape: int) -> "Cameras":
        """The same cameras under other leading dims."""
        return Cameras(self.c2w.reshape(*shape, 4, 4), self.fxfycxcy.reshape(*shape, 4))

    def Ks(self, height: int, width: int) -> Tensor:  # [..., 3, 3]
        """Pixel intrinsics for an image of this size; pixel centres lie at +0.5."""
        fx, fy, cx, cy = self.fxfycxcy.unbind(-1)
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        rows = [fx * width, zero, cx * width, zero, fy * height, cy * height, zero, zero, one]
        return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))

    def viewmats(self) -> Tensor:  # [..., 4, 4]
        """World-to-camera matrices, the rasteriser's convention."""
        return rigid_inverse(self.c2w)

    def plucker(self, height: int, width: int) -> Tensor:  # [..., 6, H, W]
        """Pluecker rays [o x d, d] of all pixel centres."""
        return plucker_rays(self.c2w, self.fxfycxcy, height, width)

    def fov(self) -> Tensor:  # [..., 2] radians
        """Horizontal and vertical field of view of a centred principal point."""
        return 2 * torch.atan(0.5 / self.fxfycxcy[..., :2])

    def transformed(self, transform: Tensor) -> "Cameras":  # [..., 4, 4] rigid
        """The same cameras after the world has been moved by `transform`."""
        return Cameras(transform @ self.c2w, self.fxfycxcy)

    def relative_to(self, reference: "Cameras") -> "Cameras":
        """The same cameras in the frame of `reference` (its c2w becomes the identity); leading dims broadcast."""
        return self.transformed(rigid_inverse(reference.c2w))

    def shifted(self, offset: Tensor) -> "Cameras":  # [..., 3] world
        """The same cameras with their centres moved."""
        c2w = self.c2w.clone()
        c2w[..., :3, 3] += offset
        return Cameras(c2w, self.fxfycxcy)

    def rescaled(self, scale: Tensor | float) -> "Cameras":  # [...] or a number
        """The same cameras in a world whose lengths are multiplied by `scale`."""
        c2w = self.c2w.clone()
        scale = torch.as_tensor(scale, dtype=c2w.dtype, device=c2w.device)
        c2w[..., :3, 3] = c2w[..., :3, 3] * scale[..., None]
        return Cameras(c2w, self.fxfycxcy)

    def cropped(self, top: float, left: float, height: float, width: float) -> "Cameras":
        """Intrinsics of a crop given in fractions of the old image: both focal lengths and cx, cy change."""
        fx, fy, cx, cy = self.fxfycxcy.unbind(-1)
        moved = [fx / width, fy / height, (cx - left) / width, (cy - top) / height]
        return Cameras(self.c2w, torch.stack(moved, dim=-1))


@dataclass(frozen=True)
class CameraFile:
    """Cameras as a file holds them; `names` is () and `size` (0, 0) where it says nothing of frames or pixels."""

    cameras: Cameras  # [V]
    names: tuple[str, ...] = ()  # of the frames' pictures
    size: tuple[int, int] = (0, 0)  # (height, width) in pixels that the intrinsics were for
