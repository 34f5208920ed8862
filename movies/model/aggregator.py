"""The backbone: alternating attention inside frames and across all frames (VGGT, section 3.2)."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from movies.model.config import ModelConfig
from movies.model.layers import Block, RotaryAttention, rope_table


class Aggregator(nn.Module):
    """Camera and register tokens and `aa_depth` pairs of a frame block and a global block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.config = config
        # Index 0 belongs to the first frame, which fixes the world, index 1 to all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.num_register_tokens, dim))
        self.frame_blocks = nn.ModuleList(self._block() for _ in range(config.aa_depth))
        self.global_blocks = nn.ModuleList(self._block() for _ in range(config.aa_depth))

    def _block(self) -> Block:
        config = self.config
        return Block(config.embed_dim, RotaryAttention(config.embed_dim, config.num_heads), config.mlp_ratio)

    def special_tokens(self, num_batch: int, num_views: int) -> Tensor:  # [B, V, 1 + registers, D]
        """[camera, registers] of every frame."""
        tokens = torch.cat([self.camera_token, self.register_token], dim=2)  # [1, 2, 1 + registers, D]
        first, rest = tokens[:, :1], tokens[:, 1:].expand(-1, num_views - 1, -1, -1)
        return torch.cat([first, rest], dim=1).expand(num_batch, -1, -1, -1)

    def forward(
        self,
        patches: Tensor,  # [B, V, L, D]
        prefix: Tensor,  # [B, V, K, D] tokens that stand before the camera token; K may be 0
        grid: tuple[int, int],  # (h, w) with L = h * w
        keep: Collection[int],
    ) -> list[Tensor]:  # [B, V, K + 1 + registers + L, 2D] each
        """Run all blocks; answers the levels in `keep`, in order: cat(frame block's output, global block's output)."""
        num_batch, num_views = patches.shape[:2]
        x = torch.cat([prefix, self.special_tokens(num_batch, num_views), patches], dim=2)  # [B, V, P, D]
        num_tokens = x.shape[2]
        head_dim = x.shape[-1] // self.config.num_heads
        shape = (*grid, num_tokens - grid[0] * grid[1])
        frame_rope = rope_table(*shape, 1, head_dim, self.config.rope_freq, x.device)
        global_rope = rope_table(*shape, num_views, head_dim, self.config.rope_freq, x.device)

        levels = []
        for i, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            inside = frame_block(x.flatten(0, 1), frame_rope).unflatten(0, (num_batch, num_views))
            x = global_block(inside.flatten(1, 2), global_rope).unflatten(1, (num_views, num_tokens))
            if i in keep:
                levels.append(torch.cat([inside, x], dim=-1))
        return levels


class ConditionedAggregator(Aggregator):
    """The backbone of MoVieS: every frame begins with a token of its time (unless static) and one of its pose."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.extra_embed = nn.Linear(9, config.embed_dim)
        if not config.static:
            self.time_embed = nn.Linear(config.time_dim, config.embed_dim)

    def prefix(self, times: Tensor, poses: Tensor) -> Tensor:  # [B, V, time_dim], [B, V, 9] -> [B, V, 2 or 1, D]
        """[time, pose] tokens of embedded times and encoded poses; the pose alone where static."""
        if self.config.static:
            return self.extra_embed(poses)[:, :, None]
        return torch.stack([self.time_embed(times), self.extra_embed(poses)], dim=2)
