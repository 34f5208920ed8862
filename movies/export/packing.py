"""What several formats share: a scene's Gaussians at one time as numpy columns, and packed rotations."""

from typing import NamedTuple

import numpy as np
import torch

from movies.gaussians import Gaussians
from movies.scene import Scene4D

SH_C0 = 0.28209479177387814  # the constant spherical harmonic: colour = 0.5 + SH_C0 * f_dc
# From OpenCV axes (+y down, +z forward) to those of glTF and spz (+y up, +z back): half a turn about x.
Y_UP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
MIN_SCALE, MIN_LOGIT = 1e-10, 1e-6  # keep the logarithms finite


class Splats(NamedTuple):
    """Gaussians of one moment as float32 arrays."""

    means: np.ndarray  # [N, 3]
    quats: np.ndarray  # [N, 4] wxyz, unit
    scales: np.ndarray  # [N, 3]
    opacities: np.ndarray  # [N]
    colors: np.ndarray  # [N, 3]


def splats_of(scene: Scene4D) -> Splats:
    """The Gaussians of a scene with a single stored time, static ones first."""
    return as_arrays(Gaussians.cat([scene.static, scene.moving[0]]))


def half_turn(s: Splats) -> Splats:
    """The same Gaussians in the axes of Y_UP; turned rotations are those of the old axes seen from the new."""
    signs = np.array([1, 1, -1, -1], np.float32)
    return s._replace(means=s.means * signs[1:], quats=s.quats * signs)


def as_arrays(g: Gaussians) -> Splats:  # [N]
    tensors = (g.means, g.quats, g.scales, g.opacities, g.colors)
    return Splats(*(x.detach().cpu().float().contiguous().numpy() for x in tensors))


def f_dc(colors: np.ndarray) -> np.ndarray:
    """Colours as coefficients of the constant spherical harmonic."""
    return (colors - 0.5) / SH_C0


def logit(opacities: np.ndarray) -> np.ndarray:
    clipped = np.clip(opacities.astype(np.float64), MIN_LOGIT, 1 - MIN_LOGIT)
    return np.log(clipped / (1 - clipped)).astype(np.float32)


def log_scales(scales: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(scales, MIN_SCALE))


def to_bytes(x: np.ndarray) -> np.ndarray:
    """[0, 1] to 0..255, rounded."""
    return np.clip(np.rint(x * 255), 0, 255).astype(np.uint8)


def smallest_three(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N, 4] unit -> [N], [N, 3]
    """Which component is largest, and the other three, in order, in units of sqrt(1/2) (so within [-1, 1]).

    The sign is chosen so that the largest is positive; it follows from the length being 1.
    """
    largest = np.abs(quats).argmax(axis=1)
    signs = np.where(np.take_along_axis(quats, largest[:, None], axis=1) < 0, -1, 1)
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    return largest, np.take_along_axis(quats * signs, others, axis=1) * np.sqrt(2)
