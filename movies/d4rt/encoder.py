"""The encoder: a video vision transformer whose blocks look inside one slice of time and over the whole video in turn.

Tokens are tubelets of 2x16x16 pixels as in VideoMAE, whose weights fit; every slice begins with a token of the
picture's aspect ratio, which the resize to a square would hide.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from movies.d4rt.config import D4RTConfig
from movies.model.config import ModelConfig
from movies.model.layers import Attention, Block, LayerNorm, RotaryAttention, linear, rope_table
from movies.model.vit import image_statistics

ROPE_FREQ = ModelConfig.rope_freq  # VGGT's


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


class Stem(nn.Module):
    """Blocks of an image encoder, frame by frame, with its own positions and last norm."""

    def __init__(self, config: D4RTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.pos_embed = nn.Parameter(grid_table(1, config.grid, dim)[0])  # [h*w, D]
        blocks = (
            Block(dim, Attention(dim, config.num_heads), config.mlp_ratio, 1e-6) for _ in range(config.stem_depth)
        )
        self.blocks = nn.ModuleList(blocks)
        self.norm = LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:  # [N, h*w, D] -> [N, h*w, D]
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class VideoEncoder(nn.Module):
    """Square frames to the global scene representation: block 0 looks inside slices, block 1 over all, and so on.

    Blocks that rotate their queries and keys need no positions inside; theirs are added at the end, for the queries.
    """

    def __init__(self, config: D4RTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.config = config
        self.patch_embed = TubeletEmbed(config.tubelet, config.patch_size, dim)
        if config.stem_depth:
            self.stem = Stem(config)
        self.pos_embed = nn.Parameter(grid_table(config.num_slices, config.grid, dim))  # [S, h*w, D]
        self.aspect_embed = nn.Linear(1, dim)
        self.blocks = nn.ModuleList(self._block() for _ in range(config.depth))
        self.norm = LayerNorm(dim, eps=1e-6)

    def _block(self) -> Block:
        dim, heads, ratio = self.config.embed_dim, self.config.num_heads, self.config.mlp_ratio
        if self.config.rotary:
            return Block(dim, RotaryAttention(dim, heads), ratio)
        return Block(dim, Attention(dim, heads), ratio, 1e-6)

    def forward(self, video: Tensor, aspect: Tensor) -> Tensor:  # [B, T, 3, H, W], [B] -> [B, L, D] float32
        """An odd last frame is doubled to fill its tubelet."""
        missing = -video.shape[1] % self.config.tubelet
        video = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
        mean, std = image_statistics(video.device)
        x = self.patch_embed((video - mean) / std)  # [B, S, h*w, D]
        if self.config.stem_depth:
            x = self.stem(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        positions = F.pad(self.pos_embed[: x.shape[1]], (0, 0, 1, 0))  # [S, 1 + h*w, D]
        token = self.aspect_embed(aspect.log()[:, None])[:, None, None].expand(-1, x.shape[1], 1, -1)
        x = torch.cat([token.to(x.dtype), x], dim=2)  # [B, S, 1 + h*w, D]
        if not self.config.rotary:
            x = x + positions
        x = self.norm(self.alternate(x))
        return (x + positions if self.config.rotary else x).flatten(1, 2)

    def alternate(self, x: Tensor) -> Tensor:  # [B, S, P, D] -> [B, S, P, D]
        """All blocks, in turn over the tokens of a slice and over all tokens."""
        shape, lead = x.shape, ((0, 1), (1, 2))
        for i, block in enumerate(self.blocks):
            x = block(x.flatten(*lead[i % 2]), self._rope(1 if i % 2 == 0 else shape[1], x.device)).reshape(shape)
        return x

    def _rope(self, num_slices: int, device: torch.device) -> Tensor | None:
        if not self.config.rotary:
            return None
        grid, head_dim = self.config.grid, self.config.embed_dim // self.config.num_heads
        return rope_table(grid, grid, 1, num_slices, head_dim, ROPE_FREQ, device)


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
