"""The decoder: every query looks at the scene's tokens, never at another query, so answers do not depend on company."""

import torch
from torch import Tensor, nn

from movies.d4rt.config import D4RTConfig
from movies.d4rt.encoder import wave_table
from movies.d4rt.queries import Queries, QueryAnswers, SceneTokens, cut_patches
from movies.model.layers import Block, LayerNorm, Linear, Mlp, attend

OUTPUTS = 13  # position 3, image position 2, visibility 1, displacement 3, normal 3, confidence 1
Memory = tuple[Tensor, Tensor]  # keys and values [B, heads, L, D/heads] of one layer


class CrossAttention(nn.Module):
    """Attention of queries to tokens whose keys and values are made once for all queries."""

    def __init__(self, dim: int, memory_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = Linear(dim, dim)
        self.kv = Linear(memory_dim, 2 * dim)
        self.proj = Linear(dim, dim)

    def remember(self, features: Tensor) -> Memory:  # [B, L, C]
        """Keys and values of the tokens."""
        k, v = self.kv(features).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v

    def forward(self, x: Tensor, memory: Memory) -> Tensor:  # [B, N, D] -> [B, N, D]
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, N, D/heads]
        return self.proj(attend(q, *memory).transpose(1, 2).flatten(-2))


class QueryEmbed(nn.Module):
    """The sum of what a query is: its position, its three times, the colours around it. Computed in float32."""

    def __init__(self, config: D4RTConfig) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.rgb_patch, self.num_frequencies = config.rgb_patch, config.num_frequencies
        self.position = nn.Linear(4 * config.num_frequencies, dim)
        for name in ("source", "target", "camera"):
            self.register_parameter(name, nn.Parameter(wave_table(config.num_frames, dim)))
        if config.rgb_patch:
            self.patch = Mlp(3 * config.rgb_patch**2, dim, dim)

    def forward(self, queries: Queries, frames: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, N, D]
        x = self.position(fourier(queries.uv, self.num_frequencies))
        x = x + self.source[queries.source] + self.target[queries.target] + self.camera[queries.camera]
        if self.rgb_patch:
            x = x + self.patch(cut_patches(frames, queries, self.rgb_patch).flatten(2) - 0.5)
        return x


def fourier(uv: Tensor, num_frequencies: int) -> Tensor:  # [..., 2] -> [..., 4 * num_frequencies]
    """Sines and cosines of pi 2^k u and pi 2^k v."""
    angles = uv[..., None] * (torch.pi * 2.0 ** torch.arange(num_frequencies, device=uv.device))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class QueryDecoder(nn.Module):
    """Blocks of cross-attention and a perceptron, then linear outputs."""

    def __init__(self, config: D4RTConfig) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.embed = QueryEmbed(config)
        attentions = (CrossAttention(dim, config.embed_dim, config.decoder_heads) for _ in range(config.decoder_depth))
        self.blocks = nn.ModuleList(Block(dim, attention, 4.0, 1e-6) for attention in attentions)
        self.norm = LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, OUTPUTS)
        with torch.no_grad():  # points begin at depth 1 in the picture's middle, so no step is spent on finding that
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(torch.tensor([0, 0, 1, 0.5, 0.5, *[0] * 8]))

    def remember(self, features: Tensor) -> list[Memory]:  # [B, L, C]
        """Every layer's keys and values, made once and used by any number of queries."""
        return [block.attn.remember(features) for block in self.blocks]

    def forward(self, queries: Queries, tokens: SceneTokens, memory: list[Memory]) -> QueryAnswers:
        device = queries.uv.device.type
        with torch.autocast(device, enabled=False):  # a position in bf16 is off by a pixel in 256
            x = self.embed(queries, tokens.frames)
        for block, layer in zip(self.blocks, memory, strict=True):
            x = block(x, layer)
        with torch.autocast(device, enabled=False):
            return QueryAnswers.from_raw(self.head(self.norm(x)))
