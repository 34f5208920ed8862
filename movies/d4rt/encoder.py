"""The encoder: a video vision transformer whose blocks look inside one slice of time and over the whole video in turn.

Tokens are tubelets of 2x16x16 pixels as in VideoMAE, whose weights fit; every slice begins with a token of the
picture's aspect ratio, which the resize to a square would hide.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from movies.d4rt.config import D4RTConfig
from movies.model.layers import Attention, Block, LayerNorm, linear
from movies.model.vit import image_statistics


class TubeletEmbed(nn.Module):
    """One linear map a tubelet, stored as the 3-D convolution that it is."""

    def __init__(self, tubelet: int, patch_size: int, dim: int) -> None:
        super().__init__()
        kernel = (tubelet, patch_size, patch_size)
        self.proj = nn.Conv3d(3, dim, kernel, stride=kernel)

    def forward(self, video: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, S, h*w, D]
        _, _, frames, patch, _ = self.proj.weight.shape
        height, width = video.shape[-2] // patch, video.shape[-1] // patch
        tubes = video.unflatten(-1, (width, patch)).unflatten(-3, (height, patch)).unflatten(1, (-1, frames))
        # [B, S, f, 3, h, p, w, p] -> [B, S, h, w, 3, f, p, p], the kernel's order
        tubes = tubes.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(2, 3)
        return linear(tubes, self.proj.weight.flatten(1), self.proj.bias)


class VideoEncoder(nn.Module):
    """Square frames to the global scene representation: block 0 looks inside slices, block 1 over all, and so on."""

    def __init__(self, config: D4RTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.tubelet = config.tubelet
        self.patch_embed = TubeletEmbed(config.tubelet, config.patch_size, dim)
        self.pos_embed = nn.Parameter(grid_table(config.num_slices, config.grid, dim))  # [S, h*w, D]
        self.aspect_embed = nn.Linear(1, dim)
        blocks = (Block(dim, Attention(dim, config.num_heads), config.mlp_ratio, 1e-6) for _ in range(config.depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = LayerNorm(dim, eps=1e-6)

    def forward(self, video: Tensor, aspect: Tensor) -> Tensor:  # [B, T, 3, H, W], [B] -> [B, L, D] float32
        """An odd last frame is doubled to fill its tubelet."""
        missing = -video.shape[1] % self.tubelet
        video = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
        mean, std = image_statistics(video.device)
        x = self.patch_embed((video - mean) / std)  # [B, S, h*w, D]
        num_slices = x.shape[1]
        x = x + self.pos_embed[:num_slices]
        token = self.aspect_embed(aspect.log()[:, None])[:, None, None].expand(-1, num_slices, 1, -1)
        x = torch.cat([token.to(x.dtype), x], dim=2)  # [B, S, 1 + h*w, D]
        shape = x.shape[:3]
        for i, block in enumerate(self.blocks):
            lead = (shape[0] * shape[1], shape[2]) if i % 2 == 0 else (shape[0], shape[1] * shape[2])
            x = block(x.reshape(*lead, -1))
        return self.norm(x.reshape(shape[0], -1, x.shape[-1]))


def grid_table(num_slices: int, grid: int, dim: int) -> Tensor:  # [S, h*w, D]
    """Waves of (slice, row, column), a third of the channels each: where learning starts from."""
    third = wave_channels(dim)
    slices, places = waves(torch.arange(num_slices), third), waves(torch.arange(grid), third)
    shape = (num_slices, grid, grid, third)
    parts = (slices[:, None, None].expand(shape), places[None, :, None].expand(shape), places.expand(shape))
    table = torch.cat(parts, dim=-1).flatten(1, 2)
    return F.pad(table, (0, dim - 3 * third))


def wave_channels(dim: int) -> int:
    """Of each of three coordinates in `dim` channels; even."""
    return dim // 6 * 2


def waves(positions: Tensor, channels: int) -> Tensor:  # [...] -> [..., channels]
    """[sin, cos] of positions in units of a token, under frequencies from 3 down to nearly 0.1."""
    steps = torch.arange(channels // 2, device=positions.device) / (channels // 2)
    angles = positions[..., None] * (3.0 * 30.0**-steps)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
