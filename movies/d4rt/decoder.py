"""The decoder: every query looks at the scene's tokens, never at another query, so answers do not depend on company."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from movies.d4rt.config import D4RTConfig
from movies.d4rt.encoder import wave_channels, waves
from movies.d4rt.queries import OUTPUTS, Queries, SceneTokens, cut_patches
from movies.model.layers import Block, LayerNorm, Linear, Mlp, attend

Memory = tuple[Tensor, Tensor]  # keys and values [B, heads, L, D/heads] of one layer


class CrossAttention(nn.Module):
    """Attention of queries to tokens whose keys and values are made once for all queries."""

    def __init__(self, dim: int, memory_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = Linear(dim, dim)
        self.kv = Linear(memory_dim, 2 * dim)
        self.proj = Linear(dim, dim)
        if dim == memory_dim:  # what is alike attracts from the first step
            with torch.no_grad():
                self.kv.weight[:dim].copy_(self.q.weight)

    def remember(self, features: Tensor) -> Memory:  # [B, L, C]
        """Keys and values of the tokens."""
        k, v = self.kv(features).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v

    def forward(self, x: Tensor, memory: Memory) -> Tensor:  # [B, N, D] -> [B, N, D]
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, N, D/heads]
        return self.proj(attend(q, *memory).transpose(1, 2).flatten(-2))


class QueryEmbed(nn.Module):
    """The sum of what a query is: its position, its three times, the colours around it. Computed in float32.

    It begins as the position embedding of the token that holds (u, v) in the source frame: where the query looks
    first, once keys and queries begin as one map.
    """

    def __init__(self, config: D4RTConfig) -> None:
        super().__init__()
        dim, self.config = config.decoder_dim, config
        third = wave_channels(dim)
        self.position = nn.Linear(2 * third, dim)
        frames = (torch.arange(config.num_frames) + 0.5) / config.tubelet - 0.5
        self.source = nn.Parameter(F.pad(waves(frames, third), (0, dim - third)))
        self.target = nn.Parameter(0.2 * torch.randn(config.num_frames, dim))
        self.camera = nn.Parameter(0.2 * torch.randn(config.num_frames, dim))
        with torch.no_grad():
            self.position.weight.copy_(torch.eye(dim)[:, third : 3 * third])
        if config.rgb_patch:
            self.patch = Mlp(3 * config.rgb_patch**2, dim, dim)

    def forward(self, queries: Queries, frames: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, N, D]
        config = self.config
        place = queries.uv.flip(-1) * config.grid - 0.5  # (row, column) in tokens
        x = self.position(waves(place, wave_channels(config.decoder_dim)).flatten(-2))
        x = x + self.source[queries.source] + self.target[queries.target] + self.camera[queries.camera]
        if config.rgb_patch:
            x = x + self.patch(cut_patches(frames, queries, config.rgb_patch).flatten(2) - 0.5)
        return x


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
        with torch.no_grad():  # answers begin as the still point on the query's ray, so no step is spent on that
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def remember(self, features: Tensor) -> list[Memory]:  # [B, L, C]
        """Every layer's keys and values, made once and used by any number of queries."""
        return [block.attn.remember(features) for block in self.blocks]

    def forward(self, queries: Queries, tokens: SceneTokens, memory: list[Memory]) -> Tensor:  # [B, N, 13]
        """What `QueryAnswers.from_raw` reads."""
        device = queries.uv.device.type
        with torch.autocast(device, enabled=False):  # a position in bf16 is off by a pixel in 256
            x = self.embed(queries, tokens.frames)
        for block, layer in zip(self.blocks, memory, strict=True):
            x = block(x, layer)
        with torch.autocast(device, enabled=False):
            return self.head(self.norm(x))
