"""A query network with rotating blocks starts from a VGGT's trunk."""

from dataclasses import replace

import pytest
import torch

from movies.d4rt.config import D4RTConfig
from movies.d4rt.encoder import VideoEncoder
from movies.d4rt.from_vggt import load_vggt
from movies.errors import InputError
from movies.model.config import ModelConfig
from movies.model.vggt import VGGT

VGGT_CONFIG = ModelConfig(
    image_size=28, patch_size=7, embed_dim=16, num_heads=2, vit_depth=1, vit_num_heads=2, aa_depth=4, dpt_features=8,
    dpt_out_channels=(4, 8, 4, 8), camera_trunk_depth=1, camera_num_heads=2, dpt_layer_idx=(0, 1, 2, 3),
)  # fmt: skip
CONFIG = D4RTConfig(
    image_size=28, patch_size=7, num_frames=4, tubelet=2, embed_dim=16, depth=8, num_heads=2, mlp_ratio=4.0,
    decoder_dim=16, decoder_depth=1, decoder_heads=2, rotary=True, stem_depth=1,
)  # fmt: skip


@torch.no_grad()
def test_the_trunk_is_the_vggts():
    """The same tokens for the same picture, once VGGT's own special tokens are out of the way."""
    torch.manual_seed(0)
    vggt, encoder = VGGT(VGGT_CONFIG), VideoEncoder(CONFIG)
    load_vggt(encoder, vggt)
    still = torch.rand(1, 1, 3, 28, 28).expand(-1, 2, -1, -1, -1)  # a tubelet of one picture twice is the picture
    tokens = encoder.patch_embed(still)[0, 0]
    assert torch.allclose(tokens, vggt.aggregator.patch_embed.patch_embed(still[0, :1])[0], atol=1e-5)
    x = torch.rand(1, 3, 17, 16)
    own, trunk = encoder.alternate(x), vggt.aggregator
    for frame_block, global_block in zip(trunk.frame_blocks, trunk.global_blocks, strict=True):
        x = frame_block(x[0], encoder._rope(1, x.device))[None]
        x = global_block(x.flatten(1, 2), encoder._rope(3, x.device)).unflatten(1, (3, 17))
    assert torch.allclose(own, x, atol=1e-5)


@pytest.mark.parametrize("change", [{"rotary": False}, {"patch_size": 14}, {"stem_depth": 2}, {"depth": 6}])
def test_another_size_is_refused(change):
    encoder = VideoEncoder(replace(CONFIG, **change))
    before = encoder.patch_embed.proj.weight.clone()
    with pytest.raises(InputError, match=f"cannot start from this VGGT: {next(iter(change))}"):
        load_vggt(encoder, VGGT(VGGT_CONFIG))
    assert torch.equal(encoder.patch_embed.proj.weight, before)


@torch.no_grad()
def test_frames_and_places_matter():
    torch.manual_seed(0)
    encoder, aspect = VideoEncoder(CONFIG), torch.ones(1)
    video = torch.rand(1, 4, 3, 28, 28)
    whole = encoder(video, aspect)
    assert whole.shape == (1, 2 * 17, 16)
    assert not torch.allclose(encoder(video.flip(1), aspect), whole.unflatten(1, (2, 17)).flip(1).flatten(1, 2))
    assert not torch.allclose(encoder(video, 2 * aspect), whole)
