"""What a query network with rotating blocks can start from: the trunk of a VGGT of its size."""

import torch

from movies.d4rt.encoder import VideoEncoder
from movies.errors import InputError
from movies.model.vggt import VGGT


@torch.no_grad()
def load_vggt(encoder: VideoEncoder, vggt: VGGT) -> None:
    """Image encoder, frame blocks and global blocks; a tubelet begins as the mean of its frames.

    Raises InputError, and changes nothing, where the sizes differ.
    """
    _check_sizes(encoder, vggt)
    trunk = vggt.aggregator
    image_encoder, config = trunk.patch_embed, encoder.config
    kernel = image_encoder.patch_embed.proj.weight  # [D, 3, p, p]
    encoder.patch_embed.proj.weight.copy_(kernel[:, :, None] / config.tubelet)
    encoder.patch_embed.proj.bias.copy_(image_encoder.patch_embed.proj.bias)
    encoder.stem.pos_embed.copy_(image_encoder.positions(config.grid, config.grid)[0])
    encoder.stem.blocks.load_state_dict(image_encoder.blocks.state_dict())
    encoder.stem.norm.load_state_dict(image_encoder.norm.state_dict())
    for inside, across, of_frame, of_all in zip(
        encoder.blocks[::2], encoder.blocks[1::2], trunk.frame_blocks, trunk.global_blocks, strict=True
    ):
        inside.load_state_dict(of_frame.state_dict())
        across.load_state_dict(of_all.state_dict())
    encoder.aspect_embed.bias.copy_(trunk.camera_token[0, 1, 0])  # the token that stood before the patches


def _check_sizes(encoder: VideoEncoder, vggt: VGGT) -> None:
    own, other = encoder.config, vggt.config
    wanted = {
        "rotary": (own.rotary, True),
        "patch_size": (own.patch_size, other.patch_size),
        "embed_dim": (own.embed_dim, other.embed_dim),
        "num_heads": (own.num_heads, other.num_heads),
        "stem_depth": (own.stem_depth, other.vit_depth),
        "depth": (own.depth, 2 * other.aa_depth),
        "hidden channels": (int(own.embed_dim * own.mlp_ratio), int(other.embed_dim * other.mlp_ratio)),
    }
    wrong = [f"{name} is {a}, it needs {b}" for name, (a, b) in wanted.items() if a != b]
    if wrong:
        raise InputError(f"the query network cannot start from this VGGT: {'; '.join(wrong)}")
