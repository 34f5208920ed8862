"""Cameras against cameras."""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.errors import InputError
from movies.geometry import rigid_inverse, rotation_angle


def rotation_error(c2w: Tensor, target: Tensor) -> Tensor:  # [..., 4, 4] each -> [...] degrees
    """Angle between the rotations of two cameras."""
    return rotation_angle(c2w[..., :3, :3], target[..., :3, :3])


def translation_error(c2w: Tensor, target: Tensor) -> Tensor:  # [..., 4, 4] each -> [...]
    """Distance between the centres of two cameras, in the world's unit."""
    return (c2w[..., :3, 3] - target[..., :3, 3]).norm(dim=-1)


def translation_angle(c2w: Tensor, target: Tensor) -> Tensor:  # [..., 4, 4] each -> [...] degrees
    """Angle between the directions from the origin to two camera centres: an error that does not depend on scale."""
    a, b = c2w[..., :3, 3], target[..., :3, 3]
    cross = torch.linalg.cross(a, b).norm(dim=-1)
    return torch.rad2deg(torch.atan2(cross, (a * b).sum(dim=-1)))


def trajectory_error(c2w: Tensor, target: Tensor) -> Tensor:  # [V, 4, 4] each -> []
    """ATE: root mean square distance of camera centres after the best Sim(3), in the truth's unit.

    Raises InputError for fewer than 3 cameras, and for a prediction that stands still.
    """
    return _fit(c2w, target)[1]


@dataclass(frozen=True)
class RelativePoseError:
    """From each frame to the next, root mean squares: RPE-T and RPE-R."""

    translation: Tensor  # [] in the truth's unit
    rotation: Tensor  # [] degrees


def relative_pose_error(c2w: Tensor, target: Tensor) -> RelativePoseError:  # [V, 4, 4] each
    """Error of the motion from frame to frame, at the scale of the best Sim(3) of the centres (evo, delta 1 frame).

    The rest of the Sim(3) is the same for both frames of a step and drops out.
    """
    steps, true_steps = (rigid_inverse(m[:-1]) @ m[1:] for m in (c2w.double(), target.double()))  # [V - 1, 4, 4]
    steps[:, :3, 3] *= _fit(c2w, target)[0]
    wrong = rigid_inverse(true_steps) @ steps
    angles = rotation_angle(true_steps[:, :3, :3], steps[:, :3, :3])
    parts = (x.square().mean().sqrt().to(c2w.dtype) for x in (wrong[:, :3, 3].norm(dim=-1), angles))
    return RelativePoseError(*parts)


def _fit(c2w: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # [V, 4, 4] each -> [], []
    """Scale of the best Sim(3) of camera centres, and the root mean square that it leaves (Umeyama 1991, eq. 41).

    Both follow from the covariance alone. So a camera that drives straight on can be scored: the turn about its line,
    which nothing determines, does not matter.
    """
    if len(c2w) < 3:
        raise InputError(f"a trajectory needs at least 3 cameras, got {len(c2w)}")
    x, y = (m[:, :3, 3].double() - m[:, :3, 3].double().mean(dim=0) for m in (c2w, target))
    variance, true_variance = x.square().sum(dim=-1).mean(), y.square().sum(dim=-1).mean()
    if not variance > 0:
        raise InputError("the predicted cameras all stand in one place: there is no scale to fit")
    covariance = y.T @ x / len(x)
    singular = torch.linalg.svdvals(covariance)
    if torch.linalg.det(covariance) < 0:
        singular[2] = -singular[2]  # a reflection would fit better, but no camera can be reflected
    scale = singular.sum() / variance
    left = true_variance - singular.sum().square() / variance
    return scale.to(c2w.dtype), left.clamp(min=0).sqrt().to(c2w.dtype)
