"""Stage files: checked whole before anything is loaded."""

import re
from pathlib import Path

import pytest

from movies.data.buckets import Buckets
from movies.errors import InputError
from movies.model.network import MoVieS
from movies.objective import MoviesObjectiveConfig
from movies.train import trainer
from movies.train.memory import activations, estimate
from movies.train.plan import describe
from movies.train.stage import load_stages

TINY = Path(__file__).parents[2] / "stages" / "tiny"
MOVIES = TINY.with_name("movies")


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
        ('network = "movies"', 'network = "dust3r"', r"= 'dust3r': input should be 'movies', 'vggt' or 'd4rt'"),
        ('preset = "tiny"', 'preset = "huge"', r"`model.preset` = 'huge': those of movies are vggt-1b, tiny"),
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
        (
            "lr = 5e-4",
            "lr = 1\nglobal_batch = 5",
            r"`optim.global_batch` = 5 must be a multiple .* = 2 x 1; change",
        ),
        ("lr = 5e-4", "lr = 1\naccumulation = 2\nglobal_batch = 8", r"`optim.accumulation` follows from .* leave one"),
        ('network = "movies"', 'network = "vggt"', r"unknown key `loss.depth_kind`"),
        (
            "patch_size = 7",
            "patch_size = 7\nmotion_form = 1",
            r"unknown key `model.motion_form`; legal keys .*static",
        ),
        (
            "[loss]",
            '[engine]\nstrategy = "fsdp"\n[loss]',
            r"`engine.strategy` = 'fsdp': input should be 'auto'",
        ),
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


def test_the_papers_curriculum_has_a_plan_without_its_data(monkeypatch):
    monkeypatch.delenv("DATA_ROOT", raising=False)
    stages = load_stages(MOVIES)
    assert [stage.stage.optim.lr for stage in stages] == [4e-4, 4e-4, 4e-5, 1e-5]
    assert all(stage.stage.optim.global_batch == 256 for stage in stages)
    sizes = [sum(p.numel() for p in stage.skeleton.parameters()) for stage in stages]
    # the published networks, less the token of masked patches that nothing reads
    assert sizes == [975_640_602 - 1024, *[1_041_147_254 - 1024] * 3]
    assert all(set(stage.group_sizes()) == {0.1, 1.0} and stage.group_sizes()[0.1] > 9e8 for stage in stages)
    first, second, _, last = describe(stages).split("\n\n")
    assert "30000 steps of 256 clips (8 x accumulation 1 x 32 processes), bf16" in first and "without motion" in first
    assert "learning rate 4e-05: 941.77 M parameters matching ^(encoder|backbone|depth_head)" in first
    assert "data tartanair: 369 sequences x 100 = 36900, 35% of the mix; NOT HERE: ${DATA_ROOT}/TartanAir" in first
    assert "motion heads from facebook/VGGT-1B" in second and "data spring: 37 sequences x 2000 = 74000" in second
    assert "2 to 13 views of 518 pixels on the longer side, width / height 0.5 to 2" in last
    assert "zero2 on 8 processes, accumulation 4: about" in last


def test_memory_is_shared_out_as_the_strategy_says():
    stage = load_stages(MOVIES / "02_dynamic_5v.toml")[0]
    whole = 4 * (1_041_147_254 - 1024)
    shared = {"single": (1, 1, 2), "zero1": (1, 1, 1 / 4), "zero2": (1, 1 / 8, 1 / 4), "zero3": (1 / 8, 1 / 8, 1 / 4)}
    for strategy, shares in shared.items():
        used = estimate(stage, strategy, 8)
        assert (used.weights, used.gradients, used.moments) == tuple(whole * share for share in shares)
    with_all = stage.stage.model_copy(update={"model": stage.stage.model.model_copy(update={"checkpointing": False})})
    assert activations(with_all) > 2 * activations(stage.stage)


def test_accumulation_follows_from_the_global_batch(stages):
    folder = stages(names=("b",), optim="global_batch = 12")
    stage = load_stages(folder)[0]
    assert [stage.for_processes(n).stage.optim.accumulation for n in (1, 2, 3, 6)] == [6, 3, 2, 1]
    with pytest.raises(InputError, match=r"b\.toml: `optim.global_batch` = 12 must be .* = 2 x 4; change one"):
        stage.for_processes(4)


def test_a_static_stage_must_be_followed_by_one_that_knows_its_motion_heads(stages):
    folder = stages()
    text = (folder / "a.toml").read_text().replace('network = "vggt"', 'network = "movies"')
    (folder / "a.toml").write_text(text.replace("patch_size = 7", "patch_size = 7\nstatic = true"))
    with pytest.raises(InputError, match=r"b\.toml: `init` = 'a' is a static stage, .* a VGGT in `model.motion_from`"):
        load_stages(folder)


@pytest.mark.parametrize("root", ["${NOWHERE_SET}/worlds", "not/here"])
def test_data_that_is_not_here_is_refused_before_anything_is_loaded(stages, tmp_path, monkeypatch, root):
    monkeypatch.setattr(trainer, "StageRun", None)
    folder = stages(names=("b",))
    manifest = folder.parent / "worlds.toml"
    manifest.write_text(manifest.read_text().replace('reader = "synthetic"', f'reader = "spring"\nroot = "{root}"'))
    with pytest.raises(InputError, match=r"b\.toml: `data.train`: manifest 'worlds': .*(NOWHERE_SET|not/here)"):
        trainer.train(folder, tmp_path / "out")
    assert "data worlds: unknown; NOT HERE:" in trainer.train(folder, tmp_path / "out", dry_run=True)
