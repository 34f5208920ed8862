"""The held-out protocol: its truth agrees with itself, and its baselines are what they say."""

import json
from dataclasses import replace

import pytest
import torch

from movies import VGGT, ModelConfig, MoVieS, metrics
from movies.data.synthetic import synthetic_sequences
from movies.errors import InputError
from movies.evaluate import synthetic
from movies.evaluate.held_out import evaluate_held_out
from movies.evaluate.methods import MethodSpec
from movies.evaluate.protocol import load_protocol
from movies.evaluate.runner import evaluate, export_inputs
from movies.geometry import project


@pytest.fixture(scope="module")
def clip() -> synthetic.HeldOutClip:
    sequence = synthetic_sequences(num_sequences=1, first_seed=7, image_size=(56, 56), num_frames=25, num_tracks=1)[0]
    return synthetic.held_out_clip(sequence, 56)


@pytest.fixture(scope="module")
def models() -> tuple[MoVieS, VGGT]:
    torch.manual_seed(0)
    config = ModelConfig.preset("tiny").with_patch_size(7)
    return MoVieS(config).eval(), VGGT(config).eval()


def test_clip_is_canonical_with_unit_scale(clip):
    torch.testing.assert_close(clip.context.cameras.c2w[0], torch.eye(4), atol=1e-6, rtol=0)
    known = clip.context.depth_mask
    assert clip.context.points().norm(dim=-1)[known].mean() == pytest.approx(1, abs=1e-4)
    assert clip.context.times.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_moved_points_land_on_the_target_with_its_depth(clip):
    """True motion ends where the target, rendered apart, sees the moved point (where nothing hides it)."""
    points = (clip.context.points() + clip.motion).flatten(1, 3)  # [T, P, 3]
    xy, z = project(points, clip.cameras.fxfycxcy, clip.cameras.c2w)
    scale = 1 / clip.context.points().norm(dim=-1).mean()
    column, row = (xy * 56).long().clamp(0, 55).unbind(-1)
    inside = ((xy > 0) & (xy < 1)).all(dim=-1)
    depth = torch.stack([d[r, c] for d, r, c in zip(clip.target.depth, row, column, strict=True)])
    ratio = (z * scale / depth)[inside & (depth > 0)]
    # the target's depth is in the world's unit: one factor for all points, up to half a pixel and hidden ones
    close = (ratio / ratio.median() - 1).abs() < 0.02
    assert close.float().mean() > 0.8


def test_oracle_beats_every_baseline(clip, models):
    images = synthetic.pictures(clip, synthetic.predict(models[0], clip))
    quality = {name: metrics.psnr(x, clip.target.images).mean() for name, x in images.items()}
    assert quality["_oracle"] > max(quality[""], quality["_copied"], quality["_still"])
    # an untrained model predicts no motion
    assert quality[""] == quality["_still"]


def test_a_perfect_prediction_scores_perfectly(clip, models):
    splats = synthetic.predict(models[0], clip)
    perfect = replace(splats, depth=clip.context.depth[None], motion=clip.motion[None])
    scores = synthetic.score(clip, perfect, synthetic.pictures(clip, perfect), models[1])
    assert scores.absrel == pytest.approx(0, abs=1e-6) and scores.delta == 1 and scores.motion_error == 0
    assert scores.motion_size >= synthetic.MOVING


def test_known_errors_score_what_they_are(clip, models):
    """Pictures off by a tenth are 20 dB, depth half as deep again is wrong by a half, no motion misses all of it."""
    splats = synthetic.predict(models[0], clip)
    wrong = replace(splats, depth=1.5 * clip.context.depth[None], motion=torch.zeros_like(splats.motion))
    truth = clip.target.images
    contenders = dict.fromkeys(synthetic.pictures(clip, splats), torch.where(truth < 0.5, truth + 0.1, truth - 0.1))
    scores = synthetic.score(clip, wrong, contenders, models[1])
    assert scores.psnr == pytest.approx(20, abs=1e-3) and scores.psnr_moving == pytest.approx(20, abs=1e-3)
    assert scores.absrel == pytest.approx(0.5, abs=1e-5) and scores.delta == 0
    assert scores.motion_error == scores.motion_size


@pytest.fixture
def held_out(monkeypatch):
    """The protocol `synthetic` at the small networks' size."""
    frozen = load_protocol("synthetic")
    small = frozen.model_copy(update={"options": frozen.options | {"size": 28}})
    monkeypatch.setattr("movies.evaluate.held_out.load_protocol", lambda name: small)


def test_the_protocol_prints_the_table_of_its_models(held_out, small_networks, tmp_path):
    """Through scenes, files and report the figures are those that bundling weights measures; twice the same."""
    paths = small_networks.weights, small_networks.camera_weights
    models = MoVieS.from_pretrained(paths[0]).eval(), VGGT.from_pretrained(paths[1]).eval()
    table, failed = evaluate_held_out(*paths, 1, 0.0, tmp_path / "a")
    report = synthetic.evaluate_models(*models, num_clips=1, folder=tmp_path / "c")
    assert not failed and table == report.markdown() and "| nearest input frame copied |" in table
    assert json.loads(json.dumps(report.json()))["first_seed"] == synthetic.FIRST_SEED
    assert len(report.dynamic) == len(report.static) == 1 and report.mean_of_ratio() == pytest.approx(1, abs=1e-5)
    for folder in (tmp_path / "a/pictures", tmp_path / "c"):
        assert len(list(folder.glob("*.png"))) == 2
    assert evaluate_held_out(*paths, 1, 0.0, tmp_path / "b") == (table, False)
    first, second = (json.loads((tmp_path / place / "report.json").read_text()) for place in ("a", "b"))
    assert first.pop("cost") and second.pop("cost") and first == second
    assert first["protocol"]["choices"]["options"]["num_clips"] == 1  # another digest than the frozen one's


def test_predictions_are_not_held_out_worlds(tmp_path):
    with pytest.raises(InputError, match="compares MoVieS with its own baselines; predictions: synthetic_worlds"):
        evaluate("synthetic", MethodSpec(predictions=str(tmp_path)))
    with pytest.raises(InputError, match="compares MoVieS with its own baselines"):
        export_inputs("synthetic", "", tmp_path)
    with pytest.raises(InputError, match="clips must be at least 1, got 0"):
        evaluate_held_out("tiny", "tiny", 0, 0.0, None)
