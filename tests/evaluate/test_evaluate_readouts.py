"""Read-outs of a perfect prediction are perfect, and those of standing still miss what moves."""

from dataclasses import replace

import pytest
import torch

from movies import ModelConfig, MoVieS
from movies.data.synthetic import synthetic_sequences
from movies.evaluate import readouts
from movies.evaluate.synthetic import MOVING


@pytest.fixture(scope="module")
def clip() -> readouts.TrueClip:
    options = {"image_size": (56, 56), "num_frames": 25, "num_tracks": 1}
    return readouts.true_clip(synthetic_sequences(num_sequences=1, first_seed=7, **options)[0])


@pytest.fixture(scope="module")
def model() -> MoVieS:
    torch.manual_seed(0)
    return MoVieS(ModelConfig.preset("tiny").with_patch_size(7)).eval()


@pytest.fixture(scope="module")
def contenders(clip, model) -> dict:
    with torch.no_grad():
        return {name: splats for name, splats, _ in readouts.contenders(model, clip)}


def test_the_truth_starts_at_its_own_pixels(clip):
    own = clip.queries.views == torch.arange(5)[:, None]  # [V, P]
    starts = clip.points[own].reshape(5, 56, 56, 3)
    known = clip.context.depth_mask
    torch.testing.assert_close(starts[known], clip.context.points()[known], atol=1e-4, rtol=1e-4)
    assert clip.visible[own].reshape(5, 56, 56)[known].float().mean() > 0.99  # but for rays that graze
    assert not (clip.others & own).any() and 0 < clip.moving.float().mean() < 0.6


def test_the_truth_fed_as_the_prediction_is_read_without_error(clip, contenders):
    scores = readouts.score(clip, contenders["oracle"], stored=False)
    assert scores.error < 1e-5 and scores.within_5 == scores.moving_within_5 == 1
    assert scores.mask_iou > 0.99 and scores.scene_flow < 1e-5 and scores.optical_flow < 1e-3
    assert scores.visibility > 0.95  # the surface is rendered, and so is blurred at its edges


def test_the_truth_survives_being_stored_but_for_edges(clip, contenders):
    scores = readouts.score(clip, contenders["oracle"], stored=True)
    # splats of half a pixel reach over their neighbours, which at 56x56 are some per cent nearer
    assert scores.within_10 > 0.95 and scores.moving_within_10 > 0.9 and scores.mask_iou > 0.5
    assert scores.scene_flow < 0.2 * float(_true_flow(clip))


def _true_flow(clip: readouts.TrueClip) -> torch.Tensor:  # []
    """Mean motion from one view to the next of the pixels that move."""
    points, views = readouts.dense(clip.points, clip.context), torch.arange(4)
    return (points[views + 1, views] - points[views, views]).norm(dim=-1)[clip.moving[:-1]].mean()


def test_standing_still_misses_the_motion_alone(clip, contenders):
    perfect = contenders["oracle"]
    scores = readouts.score(clip, replace(perfect, motion=torch.zeros_like(perfect.motion)), stored=False)
    assert scores.mask_iou == 0 and scores.moving_error > MOVING and scores.scene_flow > 0.2 * MOVING
    assert scores.error < scores.moving_error


def test_an_untrained_network_stands_still(clip, contenders):
    scores = [readouts.score(clip, contenders[name], stored=False) for name in ("splats", "still")]
    assert scores[0] == scores[1]


def test_the_table_has_a_row_for_each_contender(model, monkeypatch):
    one = {"error": 0.5, "visibility": 0.25}
    blank = dict.fromkeys(readouts.ReadoutScores.__dataclass_fields__, 0.0)
    scores = {name: [readouts.ReadoutScores(**blank | one)] * 2 for name in readouts.NAMES}
    table = readouts.ReadoutReport(56, scores, [0.75, 0.25]).markdown().splitlines()
    assert [line.split(" | ")[:2] for line in table[2:7]] == [[f"| {n}", "0.5000"] for n in readouts.NAMES.values()]
    assert len({line.count("|") for line in table[:7]}) == 1 and "every point is visible: 0.500" in table[-1]
