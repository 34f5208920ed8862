"""The manifests that come with the project: each reads its fixture, trains on it, and mixes in its proportion."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts_dynamic import write_dynamicreplica, write_pointodyssey, write_spring, write_stereo4d
from layouts_static import (
    write_matrixcity,
    write_realestate10k,
    write_realestate10k_depth,
    write_tartanair,
    write_vkitti2,
)
from scene import make_scene

from movies.cli import main
from movies.clip import Clip, Tracks, Views
from movies.data.batching import PlanSampler
from movies.data.buckets import Buckets, ClipShape
from movies.data.dataset import BatchPlan, ClipConfig, ClipDataset, check_quality
from movies.data.manifest import load_manifest, load_mix
from movies.data.sampling import Refusal, SamplingConfig
from movies.errors import InputError
from movies.model.config import ModelConfig
from movies.model.network import MoVieS
from movies.objective import MoviesObjective, MoviesObjectiveConfig

BUNDLED = Path(__file__).parents[3] / "data_manifests"
# Of MoVieS, table S.1.
REPEATS = {
    "realestate10k": 1, "tartanair": 100, "matrixcity": 10, "pointodyssey": 1000, "dynamicreplica": 100,
    "spring": 2000, "vkitti2": 500, "stereo4d": 1,
}  # fmt: skip
SMALL = ModelConfig(
    image_size=56, patch_size=14, embed_dim=48, num_heads=4, vit_depth=1, vit_num_heads=4, aa_depth=4, dpt_features=16,
    dpt_out_channels=(8, 8, 16, 16), dpt_layer_idx=(0, 1, 2, 3), camera_trunk_depth=1, camera_num_heads=4,
)  # fmt: skip


def write_all(root: Path) -> None:
    """One sequence of every set (two cameras of Virtual KITTI 2) below the roots that the manifests name."""
    moving, still = make_scene(num_tracks=200), make_scene(is_static=True)
    write_realestate10k(root / "RealEstate10K", still)
    write_realestate10k_depth(root / "RealEstate10K", still)
    write_tartanair(root / "TartanAir", make_scene(fxfycxcy=(0.5, 2 / 3, 0.5, 0.5), is_static=True))
    write_matrixcity(root / "MatrixCity", still)
    write_pointodyssey(root / "PointOdyssey", moving)
    write_dynamicreplica(root / "DynamicReplica", moving)
    write_spring(root / "Spring", moving)
    write_vkitti2(root / "VirtualKITTI2", moving)
    write_stereo4d(root / "Stereo4D", moving)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    write_all(root)
    return root


@pytest.fixture
def manifests(tmp_path, data_root, monkeypatch) -> Path:
    """A copy of the bundled manifests, so that an index is not written beside ours."""
    monkeypatch.setenv("DATA_ROOT", str(data_root))
    return Path(shutil.copytree(BUNDLED, tmp_path / "manifests"))


@pytest.mark.parametrize("name", REPEATS)
def test_loads_indexes_and_trains(manifests, name):
    path = manifests / f"{name}.toml"
    assert main(["data", "index", str(path)]) == 0
    manifest = load_manifest(path)
    assert manifest.name == name and manifest.repeats == REPEATS[name]
    assert manifest.licence and manifest.source
    sequences = manifest.sequences()
    assert all(sequence.is_static == manifest.is_static for sequence in sequences)
    dataset = ClipDataset([manifest.data_source(1)], ClipConfig(SamplingConfig(2, (1, 2))))
    loaded = dataset[BatchPlan((0,), ClipShape(2, 28, 28), (0, 0))]
    assert loaded.batch.motion_weight.tolist() == pytest.approx([manifest.motion_weight])
    assert loaded.batch.depth_weight.tolist() == pytest.approx([manifest.depth_weight])

    torch.manual_seed(0)
    model = MoVieS(SMALL.with_patch_size(7))
    config = MoviesObjectiveConfig(depth_kind="log", motion_kind="squared", render_size=(28, 28))
    objective = MoviesObjective(config)
    terms = objective.terms(objective.predict(model, loaded.batch), loaded.batch)
    terms.total.mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert terms.total.isfinite().all() and gradients and all(g.isfinite().all() for g in gradients)


def test_mix_all_draws_in_proportion_to_its_repeats(manifests):
    mix = load_mix(manifests / "mix_all.toml")
    assert {manifest.name: manifest.repeats for manifest in mix} == REPEATS
    dataset = ClipDataset([manifest.data_source() for manifest in mix], ClipConfig(SamplingConfig(2, (1, 2))))
    sequences = {name: 2 if name == "vkitti2" else 1 for name in REPEATS}
    assert len(dataset) == sum(sequences[name] * REPEATS[name] for name in REPEATS)
    owner = [mix[i].name for i in dataset.source_of]
    sampler = PlanSampler(len(dataset), Buckets((2, 2), 28), 1)
    drawn = Counter(owner[dataset.entries[sampler.plans(i)[0].entries[0]]] for i in range(len(dataset)))
    assert drawn == {name: sequences[name] * REPEATS[name] for name in REPEATS}  # an epoch draws every entry once


def test_mix_static_is_static(manifests):
    mix = load_mix(manifests / "mix_static.toml")
    assert [manifest.name for manifest in mix] == ["realestate10k", "tartanair", "matrixcity"]
    assert all(manifest.is_static for manifest in mix)


def test_a_root_without_its_variable_is_told_when_it_is_used(monkeypatch):
    monkeypatch.delenv("DATA_ROOT", raising=False)
    manifest = load_manifest(BUNDLED / "spring.toml")
    with pytest.raises(InputError, match=r"'spring': .* needs the environment variable DATA_ROOT; export DATA_ROOT="):
        manifest.sequences()


def test_skipped_sequences_are_left_out(tmp_path):
    scene = make_scene(fxfycxcy=(0.5, 2 / 3, 0.5, 0.5), num_frames=4)
    write_tartanair(tmp_path / "data", scene, "office/Easy/P000")
    write_tartanair(tmp_path / "data", scene, "amusement/Easy/P000")
    text = 'name = "t"\nreader = "tartanair"\nroot = "data"\nskip = [{ sequence = "%s", reason = "sky" }]\n'
    path = tmp_path / "t.toml"
    path.write_text(text % "amusement/*")
    assert [sequence.name for sequence in load_manifest(path).sequences()] == ["office/Easy/P000"]
    path.write_text(text % "*")
    with pytest.raises(InputError, match="'t': no sequence is left"):
        load_manifest(path).sequences()


@pytest.mark.parametrize(("tracks", "refused"), [(200, False), (60, True)])
def test_sparse_depth_of_tracks_is_enough_and_hardly_any_is_not(tracks, refused):
    """Of 512 x 512 pixels; what stands in for them here is the share of a clip's pixels with depth."""
    clip_rules = load_manifest(BUNDLED / "stereo4d.toml").rules()
    views = make_scene(num_frames=2).views
    mask = torch.zeros(2, 512, 512, dtype=torch.bool)
    mask.flatten(1)[:, :tracks] = True
    views = Views(torch.zeros(2, 3, 512, 512), views.cameras, views.times, mask.float(), mask)
    clip, config = Clip(views, Tracks.empty(2), 2), ClipConfig(SamplingConfig(1, (1, 1)))
    if refused:
        with pytest.raises(Refusal, match=r"only 0\.02% of the context's depth is valid"):
            check_quality(clip, config, clip_rules)
    else:
        check_quality(clip, config, clip_rules)


def test_depth_quantiles_gap_and_weights_reach_the_clip(tmp_path):
    scene = make_scene(is_static=True)
    write_realestate10k(tmp_path / "data", scene)
    write_realestate10k_depth(tmp_path / "data", scene)
    path = tmp_path / "r.toml"
    path.write_text(
        'name = "r"\nreader = "realestate10k"\nroot = "data"\ngap = [2, 2]\ndepth_quantiles = [0.2, 0.8]\n'
        'depth_weight = 0.1\nmotion_weight = 0.9\n[options]\ndepths = "depths"\n'
    )
    dataset = ClipDataset([load_manifest(path).data_source()], ClipConfig(SamplingConfig(1, (1, 1))))
    batch = dataset[BatchPlan((0,), ClipShape(3, 24, 32), (0, 0))].batch
    assert np.allclose(np.diff(batch.context.times[0]), 0.5)  # of three frames two apart
    whole = scene.views.depth_mask.float().mean(dim=(1, 2))
    left = batch.views.depth_mask.float().mean(dim=(2, 3))
    assert 0.58 * whole.min() < left.min() and left.max() < 0.62 * whole.max()  # 0.8 - 0.2 of every view's own
    assert (batch.depth_weight.item(), batch.motion_weight.item()) == pytest.approx((0.1, 0.9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gap = [3, 2]", r"`gap` = \[3, 2\]: must be \[smallest, largest\]"),
        ("depth_quantiles = [0.5, 0.5]", r"`depth_quantiles` = \[0.5, 0.5\]: must be \[low, high\]"),
        ("depth_weight = -1", "`depth_weight` = -1: input should be greater than or equal to 0"),
        ('skip = [{ name = "a" }]', "unknown key `skip.0.name`; legal keys there are sequence, reason"),
    ],
)
def test_mistakes_in_manifests(tmp_path, text, message):
    path = tmp_path / "m.toml"
    path.write_text(f'name = "m"\nreader = "tartanair"\n{text}\n')
    with pytest.raises(InputError, match=rf"m.toml: {message}"):
        load_manifest(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "m"\nparts = []\n', "`parts` = .*: "),
        ('name = "m"\nparts = [{ manifest = "no.toml" }]\n', "no.toml: no such file"),
        ('name = "m"\nparts = [{ manifest = "no.toml", share = 2 }]\n', "unknown key `parts.0.share`"),
    ],
)
def test_mistakes_in_mixes(tmp_path, text, message):
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_mix(path)


def test_roots_that_are_no_folder_or_empty(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    path = tmp_path / "m.toml"
    for root, message in {
        "nowhere": "nowhere: no such folder; is the dataset unpacked there",
        "file": "file: a folder is needed here, this is a file",
        "empty": "empty: no TartanAir sequence lies there; expected <env>/Easy/P000",
        "": "the dataset needs a `root`",
    }.items():
        path.write_text(f'name = "m"\nreader = "tartanair"\nroot = "{root}"\n')
        with pytest.raises(InputError, match=message):
            load_manifest(path).sequences()
