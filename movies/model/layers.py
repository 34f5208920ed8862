"""Transformer layers shared by the encoder, the alternating-attention backbone and the camera head.

Under autocast only the matrix products and the attention run in bf16: the residual stream, every norm, and the
queries and keys until they are rotated stay float32.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ONEDNN = torch.backends.mkldnn.is_available()
ROWS, BLOCK = 512, 1 << 22  # of an attention matrix in bf16: its rows and its elements that are made at once


class LayerNorm(nn.LayerNorm):
    """LayerNorm that computes and answers in float32, whatever the autocast or the weights' dtype."""

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., D] float32
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # [..., K], [N, K], [N] -> [..., N]
    """`F.linear`, which in float32 on CPU goes to oneDNN where no gradient is wanted.

    torch sends such products to MKL, which takes twice as long on AMD's processors (tools/bench_model.py).
    """
    device = x.device.type
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if device != "cpu" or x.dtype != torch.float32 or wanted or torch.is_autocast_enabled(device) or not ONEDNN:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class Linear(nn.Linear):
    """A linear map that computes in its input's dtype, or autocast's, whatever its weights are held in."""

    def forward(self, x: Tensor) -> Tensor:  # [..., inputs] -> [..., outputs]
        if self.weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type):
            return linear(x, self.weight, self.bias)
        return linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class LayerScale(nn.Module):
    """A learned gain a channel on a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., D]
        return x * self.gamma


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, dim: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., outputs]
        return self.fc2(F.gelu(self.fc1(x)))


@lru_cache(maxsize=64)
def rope_table(
    height: int, width: int, num_special: int, num_views: int, head_dim: int, freq: float, device: torch.device
) -> Tensor:  # [2, V*P, 2, D/4]
    """Cosines and sines of 2-D RoPE for V frames of `num_special` tokens and height x width patches.

    Patch (row, column) sits at (row + 1, column + 1), special tokens at (0, 0). The first half of a head turns with
    the row, the second with the column; inside a half of size D' angle j is position * freq^(-2j/D').
    """
    with torch.inference_mode(False):  # a table first made under inference mode must also serve training
        half = head_dim // 2
        inv_freq = freq ** -(torch.arange(0, half, 2, dtype=torch.float32, device=device) / half)  # [D/4]
        rows = torch.arange(1, height + 1, device=device).repeat_interleave(width)
        columns = torch.arange(1, width + 1, device=device).repeat(height)
        positions = F.pad(torch.stack([rows, columns], dim=-1), (0, 0, num_special, 0))  # [P, 2]
        angles = positions[..., None].float() * inv_freq  # [P, 2, D/4]
        return torch.stack([angles.cos(), angles.sin()]).repeat(1, num_views, 1, 1)


def rotate(x: Tensor, table: Tensor) -> Tensor:  # [N, heads, L, D], [2, L, 2, D/4] -> [N, heads, L, D]
    """Apply `rope_table`: in each half of the head, (a, b) -> (a cos - b sin, b cos + a sin)."""
    a, b = x.unflatten(-1, (2, 2, -1)).unbind(-2)  # [N, heads, L, 2, D/4]
    cos, sin = table
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-2).flatten(-3)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [N, heads, L, D], [N, heads, K, D] twice -> as q
    """Scaled-dot-product attention; in bf16 on CPU written out, for torch's own takes twice as long there or more.

    With gradients the whole matrix of weights is made, while it is small, without them blocks that stay in the cache.
    """
    wanted = torch.is_grad_enabled()
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or (wanted and q.shape[-2] > 2048):
        return F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):
        q = q * q.shape[-1] ** -0.5
        return weigh(q, k, v) if wanted else attend_in_blocks(q, k, v)


def weigh(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [..., L, D], [..., K, D] twice -> [..., L, D]
    return torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [N, heads, L, D], [N, heads, K, D] twice -> as q
    """`weigh` for some heads and up to ROWS queries at a time, about BLOCK weights."""
    out = q.new_empty(q.shape)
    heads = max(1, BLOCK // max(1, min(ROWS, q.shape[-2]) * k.shape[-2]))
    parts = [x.flatten(0, 1).split(heads) for x in (q, k, v, out)]
    for block_q, block_k, block_v, block_out in zip(*parts, strict=True):  # [heads, L or K, D]
        for rows, answer in zip(block_q.split(ROWS, dim=1), block_out.split(ROWS, dim=1), strict=True):
            answer.copy_(weigh(rows, block_k, block_v))
    return out


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def prepare(self, q: Tensor, k: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor]:  # [N, heads, L, D/heads]
        """What happens to queries and keys before attention: nothing here."""
        return q, k

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:  # [N, L, D] -> [N, L, D]
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [3, N, heads, L, D/heads]
        q, k, v = qkv.unbind(0)
        q, k = self.prepare(q, k, rope)
        out = attend(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(-2))


class RotaryAttention(Attention):
    """Attention with a LayerNorm a head on queries and keys, then 2-D RoPE."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.q_norm = LayerNorm(dim // num_heads)
        self.k_norm = LayerNorm(dim // num_heads)

    def prepare(self, q: Tensor, k: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor]:
        return rotate(self.q_norm(q), rope).to(q.dtype), rotate(self.k_norm(k), rope).to(k.dtype)


class Block(nn.Module):
    """Pre-norm transformer block: x + g1 attn(LN x), then x + g2 mlp(LN x)."""

    def __init__(self, dim: int, attention: Attention, mlp_ratio: float, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=eps)
        self.attn = attention
        self.ls1 = LayerScale(dim)
        self.norm2 = LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)
        self.ls2 = LayerScale(dim)
        self.checkpointing = False

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:  # [N, L, D] -> [N, L, D]
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(self._forward, x, rope, use_reentrant=False)
        return self._forward(x, rope)

    def _forward(self, x: Tensor, rope: Tensor | None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rope))
        return x + self.ls2(self.mlp(self.norm2(x)))


def patch_linear(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # [N, C, H, W] -> [N, L, D]
    """A convolution whose kernel equals its stride, as one matrix product over the patches, in row-major order."""
    patch = weight.shape[-1]
    height, width = images.shape[-2] // patch, images.shape[-1] // patch
    patches = images.unflatten(-1, (width, patch)).unflatten(-3, (height, patch))  # [N, C, h, p, w, p]
    return linear(patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), weight.flatten(1), bias)


def own_precision(module: nn.Module) -> torch.autocast:
    """Autocast to bf16 for weights held in bf16, so that only products run in it; for others what is on already."""
    device = next(module.parameters()).device.type
    half = any(p.dtype == torch.bfloat16 for p in module.parameters())
    dtype = torch.bfloat16 if half else torch.get_autocast_dtype(device)
    return torch.autocast(device, dtype, enabled=half or torch.is_autocast_enabled(device))


def set_checkpointing(module: nn.Module, enabled: bool) -> None:
    """Recompute activations in the backward pass (less memory, about a third more time) in every part that can."""
    for part in module.modules():
        if hasattr(part, "checkpointing"):
            part.checkpointing = enabled
