"""Small random networks as files, and the scenes of the readers' tests."""

import sys
from pathlib import Path

import pytest
import torch

from movies import VGGT, ModelConfig, MoVieS
from movies.evaluate.methods import MethodSpec
from movies.model.weights import save_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "data_layer/readers"))  # scene.py and layouts_static.py

SMALL = ModelConfig(
    image_size=28, patch_size=14, embed_dim=48, num_heads=4, vit_depth=1, vit_num_heads=4, aa_depth=4, dpt_features=16,
    dpt_out_channels=(8, 8, 16, 16), dpt_layer_idx=(0, 1, 2, 3), camera_trunk_depth=1, camera_num_heads=4,
)  # fmt: skip


@pytest.fixture(scope="session")
def small_networks(tmp_path_factory) -> MethodSpec:
    """A MoVieS and a VGGT whose cameras do not stand still."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    vggt = VGGT(SMALL)
    with torch.no_grad():
        for parameter in vggt.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    for name, model in (("movies", MoVieS(SMALL)), ("vggt", vggt)):
        save_weights(model, folder / f"{name}.safetensors", torch.float32, {})
    return MethodSpec(str(folder / "movies.safetensors"), str(folder / "vggt.safetensors"))


@pytest.fixture(scope="session")
def scene():
    """Six frames of 24x32 pixels, as the readers' tests have them."""
    return _make_scene()


@pytest.fixture(scope="session")
def held():
    """Another world."""
    return _make_scene(seed=23)


@pytest.fixture(scope="session")
def twelve():
    """Twelve frames, for twelve cameras."""
    return _make_scene(num_frames=12)


@pytest.fixture(scope="session")
def data(tmp_path_factory, scene, held, twelve) -> Path:
    """Every dataset in its raw layout."""
    from layouts_evaluation import write_all

    root = tmp_path_factory.mktemp("datasets")
    write_all(root, scene, held, twelve)
    return root


def _make_scene(**options):
    from scene import make_scene  # found by the path that this file adds

    return make_scene(**options)
