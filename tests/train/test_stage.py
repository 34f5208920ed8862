"""Stage files: checked whole before anything is loaded."""

import re
from pathlib import Path

import pytest

from movies.data.buckets import Buckets
from movies.errors import InputError
from movies.model.network import MoVieS
from movies.objective import MoviesObjectiveConfig
from movies.train.plan import describe
from movies.train.stage import load_stages

TINY = Path(__file__).parents[2] / "stages" / "tiny"


def test_bundled_stages_load_in_order_and_have_a_plan():
    stages = load_stages(TINY)
    names = [stage.stage.name for stage in stages]
    assert names == sorted(names) and names[0] == "00_geometry"
    plan = describe(stages)
    assert all(name in plan for name in names) and "M parameters" in plan and "% of the mix" in plan


def test_a_stage_becomes_configs(stages):
    stage = load_stages(stages(names=("b",)))[0].stage
    config = stage.objective_config()
    assert config == MoviesObjectiveConfig(
        motion=1.0, ssim=0.1, depth_kind="log", motion_kind="squared", render_size=(28, 28)
    )
    clip = stage.data.clip_config()
    assert (clip.sampling.num_targets, clip.sampling.gap) == (1, (1, 1))
    assert stage.data.buckets(7) == Buckets((2, 3), 28, multiple=7)
    assert stage.model_config_().patch_size == 7 and isinstance(stage.build(), MoVieS)
    assert stage.with_steps(2).optim.steps == 2 and stage.with_steps(None) is stage and stage.with_steps(9) is stage


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "sed = 3", r"unknown key `sed`; legal keys there are name, network, init, seed"),
        ("targets = 1", "target = 1", r"unknown key `data.target`; legal keys there are train, validation, image_size"),
        ('{ manifest = "../worlds.toml" }', "{ repeats = 2 }", r"key `data.train.0.manifest` is missing"),
        ("lr = 5e-4", "lr = -1", r"`optim.lr` = -1: input should be greater than 0"),
        ('network = "movies"', 'network = "dust3r"', r"`network` = 'dust3r': input should be 'movies' or 'vggt'"),
        ('preset = "tiny"', 'preset = "huge"', r"`model.preset` = 'huge': input should be 'vggt-1b' or 'tiny'"),
        ("views = [2, 3]", "views = [3, 2]", r"`views` must be \[smallest, largest\]"),
        ("image_size = 28", "image_size = 30", r"`data.image_size` 30 must be a multiple of `model.patch_size` 7"),
        ("workers = 0", "clips_per_sequence = 3", r"batch_size 2 must be a multiple of clips_per_sequence 3"),
        ("ssim = 0.1", "lpipz = 1", r"unknown key `loss.lpipz`; legal keys for movies are depth, motion, mse"),
        ("ssim = 0.1", 'lpips_weights = ["vgg.pth"]', r"b.toml: `loss.lpips_weights` names vgg.pth: no such file"),
        (
            "views = [2, 3]",
            "views = [2, 3]\naspect = [2, 1]",
            r"`aspect` must be \[smallest, largest\] with 0 < smallest",
        ),
        (
            "views = [2, 3]",
            "views = [2, 3]\nimages_per_device = 2",
            r"images_per_device 2 must hold 1 clips of 3 views",
        ),
        ("ssim = 0.1", 'ssim = "much"', r"`loss.ssim` = 'much': input should be a valid number"),
        ('"../worlds.toml"', '"../planets.toml"', r"planets.toml: no such file"),
        (
            "lr = 5e-4",
            'lr = 1\ngroups = [{ pattern = "lora", multiplier = 2 }]',
            r"'lora' matches no parameter",
        ),
        ("lr = 5e-4", 'lr = 1\ngroups = [{ pattern = "(", multiplier = 2 }]', r"'\(' is no regular expression"),
    ],
)
def test_mistakes_name_file_key_and_mend(stages, old, new, message):
    path = stages(names=("b",)) / "b.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message) as raised:
        load_stages(path)
    assert "\n" not in str(raised.value) and re.match(r".*\.toml: ", str(raised.value))


def test_empty_folders_and_equal_names_are_refused(stages, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"needs at least one \.toml file"):
        load_stages(tmp_path / "empty")
    folder = stages()
    for name in ("a", "b"):
        path = folder / f"{name}.toml"
        path.write_text('name = "same"\n' + path.read_text())
    with pytest.raises(InputError, match="two stages have one name"):
        load_stages(folder)
