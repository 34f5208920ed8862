"""The heads of both networks: what their raw channels mean, and VGGT's iterative camera head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from movies.model.config import ModelConfig
from movies.model.dpt import DPTHead
from movies.model.layers import Attention, Block, LayerNorm, Linear, Mlp

NUM_SPLAT_CHANNELS = 12  # color 3, scale 3, rotation 4, opacity 1, confidence 1
NUM_CAMERA_ITERATIONS = 4


def depth_head(config: ModelConfig) -> DPTHead:
    """exp(z-depth) and confidence."""
    return DPTHead(config, outputs=2)


def point_head(config: ModelConfig) -> DPTHead:
    """World points (VGGT), through sign(y) expm1(|y|), and confidence."""
    return DPTHead(config, outputs=4)


def splat_head(config: ModelConfig) -> DPTHead:
    """Raw attributes of static splats; the shortcut sees the image."""
    return DPTHead(config, outputs=NUM_SPLAT_CHANNELS, shortcut_inputs=3)


def motion_head(config: ModelConfig) -> DPTHead:
    """Offset of a pixel's point to each target time, world units, and confidence."""
    return DPTHead(config, outputs=4, time_dim=config.time_dim)


def motion_splat_head(config: ModelConfig) -> DPTHead:
    """Raw attributes of moving splats at each target time; the shortcut sees the static ones."""
    return DPTHead(config, outputs=NUM_SPLAT_CHANNELS, shortcut_inputs=NUM_SPLAT_CHANNELS - 1, time_dim=config.time_dim)


def confidence(raw: Tensor) -> Tensor:  # [...] -> [...] > 1
    return 1 + raw.exp()


class CameraHead(nn.Module):
    """Pose encodings from the camera tokens, refined in four steps (VGGT, section 3.3), in float32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = 2 * config.embed_dim
        self.token_norm = LayerNorm(dim)
        self.trunk = nn.Sequential(
            *(
                Block(dim, Attention(dim, config.camera_num_heads), config.mlp_ratio)
                for _ in range(config.camera_trunk_depth)
            )
        )
        self.trunk_norm = LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, 9))
        self.embed_pose = nn.Linear(9, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), Linear(dim, 3 * dim))
        self.pose_branch = Mlp(dim, dim // 2, 9)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, V, 2D] camera tokens -> [4, B, V, 9]
        """Every iteration's encoding, last is best: translation, quaternion (any length), fov >= 0."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self._iterate(self.token_norm(tokens))

    def _iterate(self, tokens: Tensor) -> Tensor:
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        pose = tokens.new_zeros(*tokens.shape[:-1], 9)
        given = self.empty_pose_tokens.expand_as(pose)
        encodings = []
        for _ in range(NUM_CAMERA_ITERATIONS):
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(given)).chunk(3, dim=-1)
            x = self.trunk(gate * (normed * (1 + scale) + shift) + tokens)
            pose = pose + self.pose_branch(self.trunk_norm(x))
            encodings.append(torch.cat([pose[..., :7], F.relu(pose[..., 7:])], dim=-1))
            # The step before is a given, not a path for gradients; the sum itself stays differentiable.
            given = pose.detach()
        return torch.stack(encodings)
