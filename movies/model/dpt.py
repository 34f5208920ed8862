"""Dense prediction head (DPT, Ranftl et al. 2021, as VGGT uses it), decoding many times and frames at once.

A time-conditioned head modulates LN(x) by x * (1 + scale) + bias before each level's 1x1 projection. That map is
affine in the normalised tokens, so LN's own gain, the modulation and the projection fold into one matrix a time:
the tokens are normalised once for all heads and times, and all times of a level are one matrix product.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from movies.model.config import ModelConfig
from movies.model.embeddings import uv_embedding
from movies.model.layers import LayerNorm, linear

HIDDEN = 32  # channels before a head's last 1x1 convolution, as published
CHUNK_BYTES = 1 << 28  # what the full-resolution maps of one chunk of (time, frame) images may take


def normalise_tokens(levels: list[Tensor], num_special: int) -> tuple[Tensor, ...]:  # [B, V, P, 2D] -> [B, V, L, 2D]
    """LayerNorm without its gain, of the patch tokens of every level: what all heads start from."""
    dtype = product_dtype(levels[0])
    patches = (level[:, :, num_special:].float() for level in levels)
    return tuple(F.layer_norm(x, x.shape[-1:], eps=1e-5).to(dtype) for x in patches)


def product_dtype(weight: Tensor) -> torch.dtype:
    """The dtype that a matrix product with `weight` runs in: autocast's, or else its own."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def upsample(x: Tensor, height: int, width: int) -> Tensor:  # [N, C, h, w] -> [N, C, height, width]
    """Bilinear resize with aligned corners that keeps bf16 as bf16 (CPU autocast would go through float32)."""
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)


class ResidualConvUnit(nn.Module):
    """relu(x) + conv(relu(conv(relu(x)))): the skip is rectified too, as in the reference (its ReLU is in place)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, h, w] -> [N, C, h, w]
        x = F.relu(x)
        return x + self.conv2(F.relu(self.conv1(x)))


class FusionBlock(nn.Module):
    """Adds a skip to the coarser map, refines, enlarges: one step of RefineNet."""

    def __init__(self, channels: int, has_skip: bool) -> None:
        super().__init__()
        if has_skip:
            self.resConfUnit1 = ResidualConvUnit(channels)
        self.resConfUnit2 = ResidualConvUnit(channels)
        self.out_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:  # [N, C, h, w] -> [N, C, height, width]
        # A 1x1 convolution and a bilinear resize commute; before the resize it costs a quarter.
        return upsample(self.out_conv(self.resConfUnit2(x)), height, width)


class Scratch(nn.Module):
    """The convolutional part of the head, under the reference's name."""

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        features = config.dpt_features
        for i, channels in enumerate(config.dpt_out_channels, start=1):
            self.add_module(f"layer{i}_rn", nn.Conv2d(channels, features, 3, padding=1, bias=False))
            self.add_module(f"refinenet{i}", FusionBlock(features, has_skip=i < 4))
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, HIDDEN, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(HIDDEN, outputs, 1)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:  # [N, C_i, h_i, w_i] x 4 -> [N, F/2, 8h, 8w]
        x1, x2, x3, x4 = (getattr(self, f"layer{i}_rn")(x) for i, x in enumerate(maps, start=1))
        x = self.refinenet4(x4, *x3.shape[-2:])
        x = self.refinenet3(x + self.refinenet3.resConfUnit1(x3), *x2.shape[-2:])
        x = self.refinenet2(x + self.refinenet2.resConfUnit1(x2), *x1.shape[-2:])
        x = self.refinenet1(x + self.refinenet1.resConfUnit1(x1), 2 * x1.shape[-2], 2 * x1.shape[-1])
        return self.output_conv1(x)


class DPTHead(nn.Module):
    """Four token levels to `outputs` raw channels a pixel, in float32.

    With `time_dim` the head is conditioned on target times; with `shortcut_inputs` a small convolutional path from a
    full-resolution input of that many channels is added to the output. Both are 0 where absent.
    """

    def __init__(self, config: ModelConfig, outputs: int, shortcut_inputs: int = 0, time_dim: int = 0) -> None:
        super().__init__()
        dim = 2 * config.embed_dim
        c1, c2, _, c4 = config.dpt_out_channels
        self.patch_size = config.patch_size
        self.norm = LayerNorm(dim)
        self.projects = nn.ModuleList(nn.Conv2d(dim, c, 1) for c in config.dpt_out_channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(c1, c1, 4, stride=4),
                nn.ConvTranspose2d(c2, c2, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(c4, c4, 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(config, outputs)
        if shortcut_inputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(shortcut_inputs, HIDDEN, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(HIDDEN, outputs, 1)
            )
        if time_dim:
            self.time_embed = nn.Linear(time_dim, 2 * dim)
        self.checkpointing = False

    def forward(
        self,
        levels: tuple[Tensor, ...],  # [B, V, L, 2D] x 4, normalised
        grid: tuple[int, int],  # (h, w) with L = h * w
        times: Tensor,  # [B, T, time_dim] embedded target times, [1, 1, 0] without time
        image: Tensor,  # [B, V, H, W, shortcut_inputs], no channels without a shortcut
    ) -> Tensor:  # [B, T, V, H, W, outputs] float32
        gain, shift = self.modulation(times)
        shortcut = self.shortcut_map(image)
        sizes = (levels[0].shape[0], gain.shape[1], levels[0].shape[1])
        step = self.chunk_sizes(sizes, grid)

        def decode(b: slice, t: slice, v: slice) -> Tensor:
            own = b if gain.shape[0] > 1 else slice(None)
            return self.decode([x[b, v] for x in levels], grid, gain[own, t], shift[own, t], shortcut[b, v])

        if torch.is_grad_enabled():
            run = (lambda *s: checkpoint(decode, *s, use_reentrant=False)) if self.checkpointing else decode
            every = slice(None)
            return torch.cat([run(every, t, every) for t in _slices(sizes[1], step[1])], dim=1)
        out = None
        for b, t, v in product(*(_slices(size, part) for size, part in zip(sizes, step, strict=True))):
            part = decode(b, t, v)
            out = part.new_empty(*sizes, *part.shape[3:]) if out is None else out
            out[b, t, v] = part
        return out

    def chunk_sizes(self, sizes: tuple[int, int, int], grid: tuple[int, int]) -> tuple[int, int, int]:
        """How much of (B, T, V) to decode at once: full-resolution maps within CHUNK_BYTES, at least one image.

        With gradients the activations stay alive anyway, so only checkpointing makes a split over times useful.
        """
        num_batch, num_times, num_views = sizes
        pixels = grid[0] * grid[1] * self.patch_size**2
        # Alive at once: the enlarged features, the hidden channels before and after ReLU, and the output.
        channels = self.scratch.output_conv1.out_channels + 3 * HIDDEN
        budget = max(1, CHUNK_BYTES // (pixels * channels * product_dtype(self.norm.weight).itemsize))
        if torch.is_grad_enabled():
            whole = num_batch * num_views
            return num_batch, (max(1, budget // whole) if self.checkpointing else num_times), num_views
        views = min(num_views, budget)
        times = min(num_times, max(1, budget // views))
        return min(num_batch, max(1, budget // (views * times))), times, views

    def modulation(self, times: Tensor) -> tuple[Tensor, Tensor]:  # [B, T, 2D] each; [1, 1, 2D] without time
        """Gain and shift of the normalised tokens: LN's own, then x * (1 + scale) + bias of each time."""
        gain, shift = self.norm.weight.float()[None, None], self.norm.bias.float()[None, None]
        if times.shape[-1] == 0:
            return gain, shift
        with torch.autocast(times.device.type, enabled=False):
            scale, bias = F.linear(times, self.time_embed.weight.float(), self.time_embed.bias.float()).chunk(2, dim=-1)
        return gain * (1 + scale), shift * (1 + scale) + bias

    def shortcut_map(self, image: Tensor) -> Tensor:  # [B, V, H, W, C] -> [B, V, H, W, outputs] or [B, V, 1, 1, 1]
        """The shortcut's output, the same for all times; 0 where the head has none."""
        if image.shape[-1] == 0:
            return image.new_zeros(*image.shape[:2], 1, 1, 1)
        frames = image.flatten(0, 1).permute(0, 3, 1, 2)  # [B*V, C, H, W]
        # Frame by frame without gradients: the hidden maps are many times larger than what they give.
        parts = [frames] if torch.is_grad_enabled() else frames.split(1)
        maps = torch.cat([self.shortcut(part).float() for part in parts])
        return maps.permute(0, 2, 3, 1).unflatten(0, image.shape[:2])

    def decode(
        self, levels: list[Tensor], grid: tuple[int, int], gain: Tensor, shift: Tensor, shortcut: Tensor
    ) -> Tensor:
        """One chunk: levels [b, v, L, 2D], modulation [b, t, 2D], shortcut [b, v, H, W, o] -> [b, t, v, H, W, o]."""
        height, width = grid[0] * self.patch_size, grid[1] * self.patch_size
        maps = []
        for x, project, resize in zip(levels, self.projects, self.resize_layers, strict=True):
            projected = self.project(x, project, gain, shift, grid, width / height)
            lead = projected.shape[:3]
            # Channels stay innermost in memory: resizing runs ten times faster on CPU than over planes.
            maps.append(resize(projected.flatten(0, 2).unflatten(1, grid).permute(0, 3, 1, 2)))
        x = upsample(self.scratch(maps), height, width)
        x += uv_embedding(height, width, x.shape[1], width / height, x.dtype, x.device)
        raw = self.scratch.output_conv2(x).float().permute(0, 2, 3, 1)  # [b*t*v, H, W, o]
        return raw.unflatten(0, lead) + shortcut[:, None]

    def project(
        self, x: Tensor, conv: nn.Conv2d, gain: Tensor, shift: Tensor, grid: tuple[int, int], aspect: float
    ) -> Tensor:  # [b, v, L, 2D] -> [b, t, v, L, C_i]
        """Modulation, 1x1 projection and position embedding of one level, all times in one matrix product."""
        dtype = product_dtype(conv.weight)
        with torch.autocast(x.device.type, enabled=False):
            kernel = conv.weight.flatten(1).float()  # [C_i, 2D]
            weight = (kernel * gain[:, :, None]).flatten(1, 2).to(dtype)  # [b or 1, t*C_i, 2D]
            bias = conv.bias.float() + shift @ kernel.transpose(0, 1)  # [b, t, C_i]
            uv = uv_embedding(*grid, kernel.shape[0], aspect, torch.float32, x.device).flatten(1).transpose(0, 1)
            offset = (bias[:, None] + uv[:, None])[:, None].to(dtype)  # [b, 1, L, t, C_i]
            clips = x.to(dtype).split(x.shape[0] // weight.shape[0])
            y = torch.cat([linear(own, matrix) for own, matrix in zip(clips, weight, strict=True)])
            y = y.unflatten(-1, offset.shape[-2:]) + offset  # [b, v, L, t, C_i]
        return y.permute(0, 3, 1, 2, 4).contiguous()


def _slices(size: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, size, step)]
