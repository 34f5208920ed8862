"""The sizes of networks that tests of whole jobs run: both take milliseconds at 28 pixels."""

from movies.model.config import ModelConfig

CONFIG = ModelConfig(
    image_size=28,
    embed_dim=32,
    num_heads=2,
    vit_depth=1,
    vit_num_heads=2,
    aa_depth=4,
    dpt_features=8,
    dpt_out_channels=(8, 8, 8, 8),
    dpt_layer_idx=(0, 1, 2, 3),
    camera_trunk_depth=1,
    camera_num_heads=2,
)
