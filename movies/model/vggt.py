"""VGGT: cameras, depth and points of unposed frames in one forward pass (Wang et al. 2025)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from movies.cameras import Cameras
from movies.errors import InputError
from movies.model.aggregator import Aggregator
from movies.model.config import ModelConfig
from movies.model.dpt import normalise_tokens
from movies.model.embeddings import cameras_from_encoding
from movies.model.heads import CameraHead, confidence, depth_head, point_head
from movies.model.initialise import init_from_movies, init_vggt
from movies.model.layers import own_precision, set_checkpointing
from movies.model.vit import VisionTransformer
from movies.model.weights import find_weights
from movies.shapes import check_shape


@dataclass(frozen=True)
class VGGTPrediction:
    """What VGGT says about B clips of V frames; the world is the first frame's camera, its scale is free."""

    depth: Tensor  # [B, V, H, W] z-depth > 0
    depth_confidence: Tensor  # [B, V, H, W] > 1
    points: Tensor  # [B, V, H, W, 3] world points, [B, V, 0, 0, 3] without a point head
    point_confidence: Tensor  # [B, V, H, W] > 1, [B, V, 0, 0] without a point head
    pose_encodings: Tensor  # [4, B, V, 9] of every iteration of the camera head, for the training loss

    @property
    def pose_encoding(self) -> Tensor:  # [B, V, 9]
        """The last iteration's: translation and quaternion xyzw of world-to-camera, fov_h, fov_w."""
        return self.pose_encodings[-1]

    @property
    def cameras(self) -> Cameras:  # [B, V]
        return cameras_from_encoding(self.pose_encoding)


def check_images(images: Tensor, patch_size: int) -> None:
    """Raise InputError unless `images` is [B, V, 3, H, W] with H and W multiples of the patch size."""
    check_shape("images", images, (None, None, 3, None, None))
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise InputError(f"images are {height}x{width}: both sides must be multiples of the patch size, {patch_size}")


class VGGT(nn.Module):
    """Random weights that training can start from; `movies.model.weights.load_state` brings others.

    Without `points` there is no point head, and predictions have no points: cameras and depth do not need it.
    """

    def __init__(self, config: ModelConfig, points: bool = True) -> None:
        super().__init__()
        self.config = config
        self.aggregator = Aggregator(config)
        self.aggregator.patch_embed = VisionTransformer(config)
        self.camera_head = CameraHead(config)
        if points:
            self.point_head = point_head(config)
        self.depth_head = depth_head(config)
        init_vggt(self)

    @staticmethod
    def from_pretrained(name: str | Path, dtype: torch.dtype = torch.float32) -> "VGGT":
        """The bundled "tiny", a file, a folder or a hub repository, in eval mode on the CPU.

        In bf16 half the memory is taken, and products and convolutions run in bf16. Raises InputError where nothing
        of that name is found, or where it does not fill the network.
        """
        return find_weights("VGGT", name).load(VGGT, dtype)

    @staticmethod
    def from_movies(model: nn.Module) -> "VGGT":
        """Encoder, backbone and depth head from a MoVieS; camera and point heads start from random weights."""
        vggt = VGGT(model.config)
        init_from_movies(vggt, model)
        return vggt

    def set_checkpointing(self, enabled: bool) -> None:
        """Trade time for memory in training."""
        set_checkpointing(self, enabled)

    def forward(self, images: Tensor) -> VGGTPrediction:  # [B, V, 3, H, W] in [0, 1]
        """Raises InputError unless H and W are multiples of the patch size."""
        check_images(images, self.config.patch_size)
        with own_precision(self):
            return self._predict(images)

    def _predict(self, images: Tensor) -> VGGTPrediction:
        grid = (images.shape[-2] // self.config.patch_size, images.shape[-1] // self.config.patch_size)
        patches = self.aggregator.patch_embed(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        nothing = patches[:, :, :0]
        last = self.config.aa_depth - 1
        levels = self.aggregator(patches, nothing, grid, {*self.config.dpt_layer_idx, last})
        encodings = self.camera_head(levels[-1][:, :, 0].float())

        if last not in self.config.dpt_layer_idx:
            levels = levels[:-1]
        levels = normalise_tokens(levels, 1 + self.config.num_register_tokens)
        timeless, no_image = images.new_zeros(1, 1, 0), images.new_zeros(*images.shape[:2], 1, 1, 0)
        depth = self.depth_head(levels, grid, timeless, no_image)[:, 0]  # [B, V, H, W, 2]
        points = images.new_zeros(*images.shape[:2], 0, 0, 4)
        if hasattr(self, "point_head"):
            points = self.point_head(levels, grid, timeless, no_image)[:, 0]  # [B, V, H, W, 4]
        xyz = points[..., :3]
        return VGGTPrediction(
            depth=depth[..., 0].exp(),
            depth_confidence=confidence(depth[..., 1]),
            points=torch.sign(xyz) * torch.expm1(xyz.abs()),
            point_confidence=confidence(points[..., 3]),
            pose_encodings=encodings,
        )
