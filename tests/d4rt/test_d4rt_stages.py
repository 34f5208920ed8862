"""The stage files of D4RT, and a few steps through the trainer."""

from pathlib import Path

import pytest
import torch

from movies.d4rt.network import D4RT
from movies.d4rt.videomae import load_videomae
from movies.errors import InputError
from movies.model.weights import save_weights
from movies.train.stage import StageFile, load_stages
from movies.train.trainer import train

STAGES = Path(__file__).parents[2] / "stages"
MANIFEST = """
name = "worlds"
reader = "synthetic"
split = "train"
is_static = false

[options]
num_sequences = 40
image_size = [56, 56]
num_frames = 8
num_tracks = 64
"""
STAGE = """
network = "d4rt"
init = "{init}"

[model]
preset = "tiny"
patch_size = 7
rgb_patch = 5

[data]
train = [{{ manifest = "worlds.toml" }}]
validation = [{{ manifest = "worlds.toml" }}]
image_size = 56
views = [2, {views}]
targets = 0
gap = [1, 2]
video_augmentation = true
workers = 0

[optim]
steps = 2
batch_size = 1
lr = 1e-3
precision = "fp32"

[loss]
num_queries = 24

[schedule]
validation_batches = 1
"""


def stage_file(folder: Path, init: str = "random", views: int = 2) -> Path:
    (folder / "worlds.toml").write_text(MANIFEST)
    path = folder / f"from_{Path(init).stem}.toml"
    path.write_text(STAGE.format(init=init, views=views))
    return path


def test_the_paper_s_recipe():
    (recipe,) = load_stages(STAGES / "d4rt")
    stage, loss = recipe.stage, recipe.stage.objective_config()
    optim = stage.optim
    assert (optim.weight_decay, optim.warmup, optim.lr, optim.clip, optim.steps) == (0.03, 2500, 1e-4, 10.0, 500_000)
    assert optim.lr * optim.final_lr == pytest.approx(1e-6)
    assert (optim.global_batch, stage.engine.processes, optim.batch_size) == (64, 64, 1)
    assert (loss.num_queries, loss.edge_share, loss.same_camera, loss.normals) == (2048, 0.3, 0.4, 0.5)
    assert stage.data.views == (48, 48) and stage.data.image_size == 256 and stage.data.video_augmentation


def test_every_ablation_changes_one_thing():
    bases = {"d4rt_ablations": "d4rt/01_videomae_256.toml", "d4rt_tiny_ablations": "d4rt_tiny_ablations/base.toml"}
    for folder, base in bases.items():
        whole = flat(StageFile(STAGES / base).stage.model_dump())
        files = [file for file in sorted((STAGES / folder).glob("*.toml")) if file != STAGES / base]
        assert len(files) == 5
        for file in files:
            other = flat(StageFile(file).stage.model_dump())
            changed = [key for key in whole if whole[key] != other[key]]
            assert len(changed) == 2 and "name" in changed, file


def flat(values: dict, prefix: str = "") -> dict:
    parts = ({prefix + k: v} if not isinstance(v, dict) else flat(v, f"{k}.") for k, v in values.items())
    return {key: value for part in parts for key, value in part.items()}


def test_a_stage_trains_and_the_next_begins_with_its_weights(tmp_path):
    out = tmp_path / "out"
    train(stage_file(tmp_path), out, device="cpu")
    weights = out / "from_random" / "model.safetensors"
    first = D4RT.from_pretrained(weights)
    assert first.config.rgb_patch == 5
    again = tmp_path / "again"
    train(stage_file(tmp_path, str(weights)), again, max_steps=1, device="cpu")
    second = D4RT.from_pretrained(again / "from_model" / "model.safetensors")
    assert 0 < (second.decoder.head.weight - first.decoder.head.weight).abs().max() < 2e-3


def test_refusals_of_stages(tmp_path):
    with pytest.raises(InputError, match="'tiny' of d4rt reads at most 8 frames"):
        StageFile(stage_file(tmp_path, views=9))
    other = D4RT(StageFile(stage_file(tmp_path)).stage.model_config_().preset("tiny"))
    save_weights(other, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="`model` of stage"):
        train(stage_file(tmp_path, str(tmp_path / "other.safetensors")), tmp_path / "out", device="cpu")
    torch.save({"splat_head.weight": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(InputError, match="no VideoMAE checkpoint"):
        load_videomae(other.encoder, tmp_path / "foreign.pt")
