"""ModelConfig: presets, JSON, and sizes that contradict each other."""

import pytest

from movies.errors import InputError
from movies.model.config import ModelConfig


def test_defaults_are_the_published_sizes():
    config = ModelConfig.preset("vggt-1b")
    assert config == ModelConfig() and (config.grid, config.embed_dim, config.dpt_layer_idx[-1]) == (37, 1024, 23)


def test_json_round_trip():
    config = ModelConfig.preset("tiny")
    assert ModelConfig.from_json(config.to_json()) == config


def test_patch_size_changes_on_the_same_grid():
    config = ModelConfig.preset("tiny").with_patch_size(7)
    assert (config.patch_size, config.image_size, config.grid) == (7, 56, 8)


def test_errors_name_field_and_value():
    with pytest.raises(InputError, match="unknown model preset 'huge': choose one of vggt-1b, tiny"):
        ModelConfig.preset("huge")
    with pytest.raises(InputError, match="image_size = 100 must be a multiple of patch_size"):
        ModelConfig(image_size=100)
    with pytest.raises(InputError, match="embed_dim = 1000 must be a multiple of vit_num_heads"):
        ModelConfig(embed_dim=1000)
    with pytest.raises(InputError, match="aa_depth must be positive, got 0"):
        ModelConfig(aa_depth=0)
    with pytest.raises(InputError, match=r"dpt_layer_idx must increase within 0\.\.11"):
        ModelConfig(aa_depth=12)
    with pytest.raises(InputError, match="dpt_out_channels must have 4 entries"):
        ModelConfig(dpt_out_channels=(8, 8))
    with pytest.raises(InputError, match=r"unknown keys in the model's config: \['depth'\]"):
        ModelConfig.from_json('{"depth": 3}')
    with pytest.raises(InputError, match="not JSON"):
        ModelConfig.from_json("{")
