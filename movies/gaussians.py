"""Gaussians: activated 3D Gaussian splats with any leading dims, in gsplat's vocabulary."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from movies.shapes import check_shape


@dataclass(frozen=True)
class Gaussians:
    """Activated Gaussians with leading dims [...] and N splats.

    Means and scales are in world units (scales are standard deviations), quaternions wxyz (any length but zero),
    opacities and plain RGB colours in [0, 1]. Raises InputError for wrong shapes.
    """

    means: Tensor  # [..., N, 3]
    quats: Tensor  # [..., N, 4]
    scales: Tensor  # [..., N, 3]
    opacities: Tensor  # [..., N]
    colors: Tensor  # [..., N, 3]

    def __post_init__(self) -> None:
        check_shape("means", self.means, (..., None, 3))
        lead = self.means.shape[:-1]
        for name, size in (("quats", (4,)), ("scales", (3,)), ("opacities", ()), ("colors", (3,))):
            check_shape(name, getattr(self, name), (*lead, *size))

    @property
    def shape(self) -> torch.Size:
        """The leading dims, without N."""
        return self.means.shape[:-2]

    @property
    def device(self) -> torch.device:
        return self.means.device

    def __len__(self) -> int:
        """The number of Gaussians N."""
        return self.means.shape[-2]

    def map(self, function) -> "Gaussians":
        """Apply `function` to every tensor."""
        return Gaussians(*(function(getattr(self, field.name)) for field in fields(self)))

    def __getitem__(self, index) -> "Gaussians":
        """Index the leading dims; see `select` for the Gaussians themselves."""
        return self.map(lambda tensor: tensor[index])

    def select(self, index: Tensor) -> "Gaussians":  # bool [N] or int [K]
        """The Gaussians at `index` (a mask or positions along N) in every leading dim."""
        lead = (slice(None),) * len(self.shape)
        return self.map(lambda tensor: tensor[(*lead, index)])

    def to(self, device: torch.device | str) -> "Gaussians":
        return self.map(lambda tensor: tensor.to(device))

    def detach(self) -> "Gaussians":
        return self.map(Tensor.detach)

    @staticmethod
    def cat(parts: list["Gaussians"]) -> "Gaussians":
        """Join along N; the leading dims must agree."""
        dim = len(parts[0].shape)
        return Gaussians(*(torch.cat([getattr(p, f.name) for p in parts], dim=dim) for f in fields(Gaussians)))

    @staticmethod
    def stack(parts: list["Gaussians"]) -> "Gaussians":
        """Join along a new first leading dim; all shapes must agree."""
        return Gaussians(*(torch.stack([getattr(p, f.name) for p in parts]) for f in fields(Gaussians)))

    @staticmethod
    def empty(*lead: int, device: torch.device | None = None) -> "Gaussians":
        """No Gaussians, under the leading dims `lead`."""
        sizes = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "colors": (3,)}
        return Gaussians(*(torch.zeros(*lead, 0, *size, device=device) for size in sizes.values()))
