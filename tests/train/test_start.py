"""What stages start from: VGGT, then a network without motion, then one with."""

import pytest
import torch

from movies.errors import InputError
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import save_weights
from movies.train.stage import load_stages
from movies.train.start import start_model


@pytest.fixture
def started(stages, tmp_path, small):
    """start_model of stage b with its `init` and [model] lines, from a random VGGT's file."""
    torch.manual_seed(5)
    vggt = VGGT(small.with_patch_size(7))
    save_weights(vggt, tmp_path / "vggt.safetensors")

    def start(init: str, model: str, preset: str = "tiny"):
        path = stages(names=("b",)) / "b.toml"
        text = path.read_text().replace('init = "random"', f'init = "{tmp_path / init}"')
        text = text.replace("patch_size = 7", f"patch_size = 7\n{model}")
        path.write_text(text.replace('preset = "tiny"', f'preset = "{preset}"'))
        return start_model(load_stages(path)[0].stage, tmp_path)

    return start, vggt


def same(own, theirs):
    return all(torch.equal(value, theirs[name]) for name, value in own.items() if name in theirs)


def test_the_static_stage_and_the_one_after_it(started, tmp_path):
    start, vggt = started
    static = start("vggt.safetensors", "static = true")
    assert static.config.static and not hasattr(static, "motion_head")
    assert same(static.depth_head.state_dict(), vggt.depth_head.state_dict())
    with torch.no_grad():
        static.depth_head.norm.weight.fill_(3.0)  # what the static stage has learned
    save_weights(static, tmp_path / "static.safetensors")

    moving = start("static.safetensors", f'motion_from = "{tmp_path / "vggt.safetensors"}"')
    assert same(static.state_dict(), moving.state_dict()) and not moving.config.static
    point = {k: v for k, v in vggt.point_head.state_dict().items() if "output_conv2.2" not in k}
    assert same(point, moving.motion_head.state_dict())  # but the last layer, which starts at no motion
    assert (moving.motion_head.scratch.output_conv2[2].weight == 0).all()


def test_weights_of_another_kind_or_size_are_told(started, tmp_path, small):
    start, _ = started
    save_weights(MoVieS(small), tmp_path / "movies.safetensors")
    save_weights(start("vggt.safetensors", "static = true"), tmp_path / "static.safetensors")
    with pytest.raises(InputError, match=r"`model.motion_from` = '.*movies.safetensors' must name a VGGT"):
        start("static.safetensors", f'motion_from = "{tmp_path / "movies.safetensors"}"')
    with pytest.raises(InputError, match=r"embed_dim is 48, `model.preset` = 'vggt-1b' of stage b has 1024"):
        start("vggt.safetensors", "", preset="vggt-1b")
