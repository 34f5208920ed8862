"""MoVieS: posed frames to Gaussians that move (Lin et al. 2025), encoded once and decoded at any times."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from movies.cameras import Cameras
from movies.model.aggregator import ConditionedAggregator
from movies.model.config import ModelConfig
from movies.model.dpt import normalise_tokens
from movies.model.embeddings import JointNorm, PluckerEmbed, pose_encoding, time_embedding
from movies.model.heads import (
    NUM_SPLAT_CHANNELS,
    confidence,
    depth_head,
    motion_head,
    motion_splat_head,
    splat_head,
)
from movies.model.initialise import init_from_vggt, init_movies
from movies.model.layers import own_precision, set_checkpointing
from movies.model.vggt import VGGT, check_images
from movies.model.vit import VisionTransformer
from movies.model.weights import find_weights
from movies.shapes import check_shape
from movies.splats import MAX_DEPTH, MIN_DEPTH, DynamicSplats


@dataclass(frozen=True)
class Tokens:
    """What `encode` hands to `decode`: four levels of normalised patch tokens, and the inputs they came from."""

    levels: tuple[Tensor, ...]  # [B, V, L, 2D] x 4
    images: Tensor  # [B, V, 3, H, W] in [0, 1]
    cameras: Cameras  # [B, V]
    times: Tensor  # [B, V]


class MoVieS(nn.Module):
    """Random weights that training can start from; `from_pretrained` and `from_vggt` bring others.

    Cameras, times, depth and everything geometric stay float32 under autocast. `round_times` is a property of
    weights that were trained with times rounded to bf16, as the published ones were: times are then rounded so. With
    a static config nothing moves, whatever the times.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.round_times = False
        self.plucker_embed = PluckerEmbed(config.patch_size, config.embed_dim)
        self.plucker_ln = JointNorm(config.embed_dim)
        self.encoder = VisionTransformer(config)
        self.backbone = ConditionedAggregator(config)
        self.depth_head = depth_head(config)
        self.splat_head = splat_head(config)
        if not config.static:
            self.motion_head = motion_head(config)
            self.motion_splat_head = motion_splat_head(config)
        init_movies(self)

    @staticmethod
    def from_pretrained(name: str | Path, dtype: torch.dtype = torch.float32) -> "MoVieS":
        """The bundled "tiny", a file, a folder or a hub repository, in eval mode on the CPU.

        In bf16 half the memory is taken, and products and convolutions run in bf16. Raises InputError where nothing
        of that name is found, or where it does not fill the network.
        """
        return find_weights("MoVieS", name).load(MoVieS, dtype)

    @staticmethod
    def from_vggt(vggt: VGGT) -> "MoVieS":
        """Encoder, backbone, depth and motion heads from VGGT's weights; motion starts at zero."""
        model = MoVieS(vggt.config)
        init_from_vggt(model, vggt)
        return model

    def set_checkpointing(self, enabled: bool) -> None:
        """Trade time for memory in training."""
        set_checkpointing(self, enabled)

    def embed_times(self, times: Tensor) -> Tensor:  # [...] -> [..., time_dim]
        if self.round_times:
            times = times.bfloat16()
        return time_embedding(times, self.config.time_dim)

    def condition(self, cameras: Cameras, times: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Ray embedding [B, V, L, D] and [time, pose] tokens [B, V, K, D], in float32 whatever the autocast."""
        with torch.autocast(times.device.type, enabled=False):
            rays = self.plucker_ln(self.plucker_embed(cameras.plucker(height, width)))
            return rays, self.backbone.prefix(self.embed_times(times), pose_encoding(cameras))

    def encode(self, images: Tensor, cameras: Cameras, times: Tensor) -> Tokens:  # [B, V, 3, H, W], [B, V], [B, V]
        """Read the context frames; what does not depend on a target time is computed here, once.

        Images in [0, 1], H and W multiples of the patch size; times in [0, 1]. Raises InputError for wrong shapes.
        """
        check_images(images, self.config.patch_size)
        num_batch, num_views, _, height, width = images.shape
        check_shape("cameras.c2w", cameras.c2w, (num_batch, num_views, 4, 4))
        check_shape("times", times, (num_batch, num_views))

        with own_precision(self):
            rays, prefix = self.condition(cameras, times, height, width)
            patches = self.encoder(images.flatten(0, 1)).unflatten(0, (num_batch, num_views)) + rays
            grid = (height // self.config.patch_size, width // self.config.patch_size)
            levels = self.backbone(patches, prefix, grid, self.config.dpt_layer_idx)
            num_special = prefix.shape[2] + 1 + self.config.num_register_tokens
            return Tokens(normalise_tokens(levels, num_special), images, cameras, times)

    def decode(self, tokens: Tokens, times: Tensor) -> DynamicSplats:  # [B, T] in [0, 1]
        """Predict the splats at target times, all times together and in chunks of bounded memory."""
        images = tokens.images.permute(0, 1, 3, 4, 2)  # [B, V, H, W, 3]
        num_batch, _, height, width, _ = images.shape
        check_shape("times", times, (num_batch, None))
        grid = (height // self.config.patch_size, width // self.config.patch_size)
        timeless, no_image = times.new_zeros(1, 1, 0), images[..., :1, :1, :0]

        with own_precision(self):
            depth = self.depth_head(tokens.levels, grid, timeless, no_image)[:, 0]  # [B, V, H, W, 2]
            splats = self.splat_head(tokens.levels, grid, timeless, images)[:, 0, ..., :-1]  # [B, V, H, W, 11]
            motion, moving_splats = self._decode_motion(tokens.levels, grid, times, splats)
        offset = motion[..., :3]
        return DynamicSplats(
            depth=depth[..., 0].exp().clamp(MIN_DEPTH, MAX_DEPTH),
            depth_confidence=confidence(depth[..., 1]),
            motion=offset,
            motion_confidence=confidence(motion[..., 3]),
            moving=offset.detach().norm(dim=-1) >= self.config.motion_threshold,
            raw_splats=splats,
            raw_motion_splats=moving_splats[..., :-1],
            cameras=tokens.cameras,
            view_times=tokens.times,
            times=times,
        )

    def _decode_motion(
        self, levels: tuple[Tensor, ...], grid: tuple[int, int], times: Tensor, splats: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Raw motion [B, T, V, H, W, 4] and raw moving splats [B, T, V, H, W, 12] of static ones [B, V, H, W, 11]."""
        if self.config.static:
            still = splats.new_zeros(1).expand(*times.shape, *splats.shape[1:4], NUM_SPLAT_CHANNELS)
            return still[..., :4], still
        embedded = self.embed_times(times)
        motion = self.motion_head(levels, grid, embedded, splats[..., :1, :1, :0])
        return motion, self.motion_splat_head(levels, grid, embedded, splats)

    def forward(self, images: Tensor, cameras: Cameras, times: Tensor, target_times: Tensor) -> DynamicSplats:
        """`encode`, then `decode`."""
        return self.decode(self.encode(images, cameras, times), target_times)
