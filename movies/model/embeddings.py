"""What the networks are told besides pixels: rays, poses, times and image positions. All of it in float32."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from movies.cameras import Cameras
from movies.geometry import matrix_to_quaternion, quaternion_to_matrix, rigid, rigid_inverse
from movies.model.layers import patch_linear


def pose_encoding(cameras: Cameras) -> Tensor:  # [..., 9]
    """VGGT's pose encoding [translation and quaternion xyzw (w >= 0) of world-to-camera, fov_h, fov_w]."""
    w2c = cameras.viewmats()
    quats = matrix_to_quaternion(w2c[..., :3, :3]).roll(-1, dims=-1)  # wxyz -> xyzw
    fov_h_w = 2 * torch.atan(0.5 / cameras.fxfycxcy[..., :2].flip(-1))
    return torch.cat([w2c[..., :3, 3], quats, fov_h_w], dim=-1)


def cameras_from_encoding(encoding: Tensor) -> Cameras:  # [..., 9] -> Cameras [...]
    """Inverse of `pose_encoding`, with a centred principal point; the quaternion may have any length."""
    rotation = quaternion_to_matrix(encoding[..., 3:7].roll(1, dims=-1))  # xyzw -> wxyz
    fx_fy = 0.5 / torch.tan(encoding[..., 7:].flip(-1) / 2)
    c2w = rigid_inverse(rigid(rotation, encoding[..., :3]))
    return Cameras(c2w, torch.cat([fx_fy, torch.full_like(fx_fy, 0.5)], dim=-1))


def time_embedding(times: Tensor, dim: int) -> Tensor:  # [...] -> [..., dim]
    """cat[sin(t 2^k), cos(t 2^k)], k < dim/2, with t in [0, 1] and no factor pi (MoVieS, time encoding)."""
    angles = times.float()[..., None] * 2.0 ** torch.arange(dim // 2, device=times.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@lru_cache(maxsize=64)
def uv_embedding(
    height: int, width: int, dim: int, aspect: float, dtype: torch.dtype, device: torch.device
) -> Tensor:  # [dim, H, W]
    """0.1 x the sin-cos embedding of image positions that DPT heads add to their feature maps.

    Positions span a rectangle of `aspect` = image W/H and unit half diagonal; channels [sin x, cos x, sin y, cos y]
    with dim/4 frequencies 100^(-4j/dim) each, computed in float64. Channels lie innermost in memory, as in the heads.
    """
    with torch.inference_mode(False):  # a table first made under inference mode must also serve training
        diagonal = math.sqrt(aspect**2 + 1)
        axes = []
        for size, span in ((width, aspect / diagonal), (height, 1 / diagonal)):
            edge = span * (size - 1) / size
            positions = torch.linspace(-edge, edge, size, dtype=torch.float32).double()
            omega = 100.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
            angles = positions[:, None] * omega  # [size, dim/4]
            axes.append(torch.cat([angles.sin(), angles.cos()], dim=-1).float())
        x, y = axes
        both = torch.cat([x[None].expand(height, -1, -1), y[:, None].expand(-1, width, -1)], dim=-1)  # [H, W, dim]
        return (0.1 * both).to(device=device, dtype=dtype).permute(2, 0, 1)


class PluckerEmbed(nn.Module):
    """A linear map of the Pluecker rays of every patch, stored as a 3-D convolution over (view, row, column)."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.net = nn.Conv3d(6, dim, (1, patch_size, patch_size), stride=(1, patch_size, patch_size))

    def forward(self, rays: Tensor) -> Tensor:  # [B, V, 6, H, W] -> [B, V, L, D]
        return patch_linear(rays.flatten(0, 1), self.net.weight, self.net.bias).unflatten(0, rays.shape[:2])


class JointNorm(nn.GroupNorm):
    """GroupNorm with one group over views, patches and channels together: a frame's rays depend on the others'."""

    def __init__(self, dim: int) -> None:
        super().__init__(1, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, V, L, D] -> [B, V, L, D] float32
        normed = F.layer_norm(x.float(), x.shape[1:], eps=self.eps)
        return normed * self.weight + self.bias
