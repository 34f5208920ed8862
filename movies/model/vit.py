"""The image encoder: DINOv2's vision transformer with register tokens (Oquab et al. 2023, Darcet et al. 2024)."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from movies.model.config import ModelConfig
from movies.model.layers import Attention, Block, LayerNorm, patch_linear

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@lru_cache(maxsize=8)
def image_statistics(device: torch.device) -> Tensor:  # [2, 3, 1, 1]
    """Mean and standard deviation of ImageNet's colours; kept on the device, so no call copies them there."""
    with torch.inference_mode(False):  # a table first made under inference mode must also serve training
        return torch.tensor([IMAGENET_MEAN, IMAGENET_STD], device=device)[:, :, None, None]


class PatchEmbed(nn.Module):
    """One linear map a patch, stored as the convolution that it is."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, H, W] -> [N, L, D]
        return patch_linear(images, self.proj.weight, self.proj.bias)


class VisionTransformer(nn.Module):
    """DINOv2 encoder; answers the patch tokens after its last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.patch_embed = PatchEmbed(config.patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, dim))
        # DINOv2's encoder always has four registers, whatever the backbone's number.
        self.register_tokens = nn.Parameter(torch.zeros(1, 4, dim))
        blocks = (
            Block(dim, Attention(dim, config.vit_num_heads), config.mlp_ratio, 1e-6) for _ in range(config.vit_depth)
        )
        self.blocks = nn.ModuleList(blocks)
        self.norm = LayerNorm(dim, eps=1e-6)
        self.grid = config.grid

    def positions(self, height: int, width: int) -> Tensor:  # [1, h*w, D] float32
        """The position grid, resized to height x width patches (bicubic, antialiased) where it differs."""
        grid = self.pos_embed[:, 1:].float()
        if (height, width) == (self.grid, self.grid):
            return grid
        square = grid.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)  # [1, D, grid, grid]
        resized = F.interpolate(square, size=(height, width), mode="bicubic", antialias=True)
        return resized.permute(0, 2, 3, 1).flatten(1, 2)

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, H, W] in [0, 1] -> [N, L, D]
        num_images = images.shape[0]
        patch = self.patch_embed.proj.weight.shape[-1]
        mean, std = image_statistics(images.device)
        x = self.patch_embed((images - mean) / std)
        x = x + self.positions(images.shape[-2] // patch, images.shape[-1] // patch)

        cls = (self.cls_token + self.pos_embed[:, :1]).expand(num_images, -1, -1)
        registers = self.register_tokens.expand(num_images, -1, -1)
        x = torch.cat([cls, registers, x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 1 + registers.shape[1] :])
