"""Rigid transforms, quaternions, projection and rays: every convention of the project, written once.

Camera axes are OpenCV's (+x right, +y down, +z forward). Intrinsics are normalised `fxfycxcy` = (fx/W, fy/H, cx/W,
cy/H). The centre of pixel (row i, column j) is at ((j + 0.5) / W, (i + 0.5) / H), in projection and unprojection
alike. Depth is z-depth. Quaternions are wxyz.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rigid_inverse(transform: Tensor) -> Tensor:  # [..., 4, 4] -> [..., 4, 4]
    """Inverse of rotation-and-translation matrices, exact to rounding: [R|t] -> [R'|-R't]."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    inverse = transform.clone()
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ transform[..., :3, 3:])[..., 0]
    return inverse


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:  # [..., 3, 3], [..., 3] -> [..., 4, 4]
    """Assemble 4x4 matrices from rotations and translations."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)


def transform_points(transform: Tensor, points: Tensor) -> Tensor:  # [..., 4, 4], [..., P, 3] -> [..., P, 3]
    """Apply 4x4 matrices to points; the leading dims broadcast."""
    return points @ transform[..., :3, :3].transpose(-1, -2) + transform[..., None, :3, 3]


def quaternion_to_matrix(quats: Tensor) -> Tensor:  # [..., 4] wxyz -> [..., 3, 3]
    """Rotation matrices of quaternions of any length but zero."""
    w, x, y, z = F.normalize(quats, dim=-1, eps=1e-12).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(rotation: Tensor) -> Tensor:  # [..., 3, 3] -> [..., 4] wxyz, w >= 0
    """Unit quaternions of rotation matrices (Shepperd: the best conditioned of four formulas is taken)."""
    m = rotation
    d0, d1, d2 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = torch.stack([1 + d0 + d1 + d2, 1 + d0 - d1 - d2, 1 - d0 + d1 - d2, 1 - d0 - d1 + d2], dim=-1)
    best = squares.argmax(dim=-1)  # [...]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    s0, s1, s2, s3 = squares.unbind(-1)
    candidates = torch.stack(
        [
            torch.stack([s0, wx, wy, wz], dim=-1),
            torch.stack([wx, s1, xy, xz], dim=-1),
            torch.stack([wy, xy, s2, yz], dim=-1),
            torch.stack([wz, xz, yz, s3], dim=-1),
        ],
        dim=-2,
    )  # [..., 4, 4]
    picked = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    quats = F.normalize(picked, dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:  # [..., 4], [..., 4] wxyz -> [..., 4]
    """Hamilton product: the rotation b followed by a."""
    w1, x1, y1, z1 = a.unbind(-1)
    w2, x2, y2, z2 = b.unbind(-1)
    return torch.stack(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ],
        dim=-1,
    )


def quaternion_lerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:  # [..., 4], [..., 4], [..., 1] -> [..., 4]
    """Normalised linear interpolation along the shorter arc; weight 0 gives a, 1 gives b."""
    b = torch.where((a * b).sum(-1, keepdim=True) < 0, -b, b)
    return F.normalize(a + weight * (b - a), dim=-1, eps=1e-12)


def rotation_angle(a: Tensor, b: Tensor) -> Tensor:  # [..., 3, 3], [..., 3, 3] -> [...] degrees
    """Angle between two rotations; atan2 of sine and cosine keeps small angles exact where acos does not."""
    delta = a.transpose(-1, -2) @ b
    skew = delta - delta.transpose(-1, -2)
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1).norm(dim=-1) / 2
    cosine = (delta.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(torch.atan2(sine, cosine))


def pixel_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:  # [H, W, 2]
    """Normalised (x, y) of pixel centres: ((j + 0.5) / W, (i + 0.5) / H)."""
    y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def pixel_rays(fxfycxcy: Tensor, height: int, width: int) -> Tensor:  # [..., 4] -> [..., H, W, 3]
    """Camera-space ray of every pixel centre with z = 1 (not normalised): K^-1 [x, y, 1]."""
    grid = pixel_grid(height, width, fxfycxcy.device).to(fxfycxcy.dtype)
    xy = (grid - fxfycxcy[..., None, None, 2:]) / fxfycxcy[..., None, None, :2]
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def unproject(depth: Tensor, fxfycxcy: Tensor, c2w: Tensor) -> Tensor:  # [..., H, W], [..., 4], [..., 4, 4]
    """World points [..., H, W, 3] of z-depth maps: c2w (depth K^-1 [x, y, 1]) at pixel centres."""
    points = pixel_rays(fxfycxcy, *depth.shape[-2:]) * depth[..., None]
    return transform_points(c2w, points.flatten(-3, -2)).unflatten(-2, depth.shape[-2:])


def project(
    points: Tensor, fxfycxcy: Tensor, c2w: Tensor
) -> tuple[Tensor, Tensor]:  # [..., P, 3], [..., 4], [..., 4, 4]
    """Normalised image positions [..., P, 2] and z-depths [..., P] of world points.

    Points on or behind the camera plane (z <= 1e-6) keep their z; their position is meaningless and must be masked.
    """
    camera_points = transform_points(rigid_inverse(c2w), points)
    z = camera_points[..., 2]
    xy = camera_points[..., :2] / torch.where(z > 1e-6, z, torch.ones_like(z))[..., None]
    return xy * fxfycxcy[..., None, :2] + fxfycxcy[..., None, 2:], z


def plucker_rays(c2w: Tensor, fxfycxcy: Tensor, height: int, width: int) -> Tensor:  # -> [..., 6, H, W]
    """Pluecker coordinates [o x d, d] of every pixel's ray, moment first, d a unit vector (MoVieS, input embedding)."""
    directions = F.normalize(pixel_rays(fxfycxcy, height, width), dim=-1)  # [..., H, W, 3]
    directions = directions @ c2w[..., None, :3, :3].transpose(-1, -2)
    moments = torch.linalg.cross(c2w[..., None, None, :3, 3].expand_as(directions), directions)
    return torch.cat([moments, directions], dim=-1).movedim(-1, -3)


def look_at(eye: Tensor, target: Tensor, down: Tensor) -> Tensor:  # [..., 3] each -> c2w [..., 4, 4]
    """Camera at `eye` looking at `target`, with image-down along `down` as nearly as it can be."""
    forward = F.normalize(target - eye, dim=-1)
    right = F.normalize(torch.linalg.cross(down.expand_as(forward), forward), dim=-1)
    return rigid(torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-1), eye)
