"""Protocols end to end: perfect predictions score perfectly, known errors as computed by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_protocols import SHORT, predict, root_of, short, unchanged

from movies.evaluate import runner
from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import load_protocol

# What a perfect prediction scores; every metric that is not named here is an error, and 0.
PERFECT = {"psnr": 100, "mpsnr": 100}
ONES = ("ssim", "mssim", "aj", "apd", "oa", "delta", "moving_iou")


def every(task: str):
    """The test is run with every protocol that asks for the task."""
    return pytest.mark.parametrize("name", [name for name in SHORT if task in load_protocol(name).tasks])


def score(name: str, data: Path, folder: Path, change, **update) -> dict[str, float | None]:
    """Mean scores of changed answers."""
    protocol = short(name).model_copy(update=update)
    report = runner.evaluate(protocol, predict(folder, protocol, root_of(data, name), change), root_of(data, name))
    assert not report.failed
    return report.mean


@pytest.mark.parametrize("name", list(SHORT))
def test_perfect_predictions_score_perfectly(name, data, tmp_path):
    mean = score(name, data, tmp_path, unchanged)
    assert mean
    for metric, value in mean.items():
        wanted = PERFECT.get(metric, float(metric.startswith(ONES)))
        if metric.startswith("delta_") and ".0" not in metric and "scale" not in metric:
            wanted = 1.0
        if metric == "flow_size_moving":
            assert value > 0.005
        else:
            assert value == pytest.approx(wanted, abs=2e-5 * max(1, wanted)), metric


@every("novel_views")
def test_pictures_off_by_ten_steps(name, data, tmp_path):
    """10 of 255 steps everywhere are 20 log10(25.5) dB; twice that outside of the mask does not matter to mpsnr."""
    expected = []

    def change(prediction: Prediction, case: Case) -> Prediction:
        steps = torch.where(case.target_mask[:, None], 10 / 255, 20 / 255)
        images = prediction.images
        counted = case.target_mask.float().mean(dim=(1, 2))  # [T]
        expected.append((28.1308 - 10 * (4 - 3 * counted).log10()).mean().item())
        return replace(prediction, images=torch.where(images < 0.5, images + steps, images - steps))

    mean = score(name, data, tmp_path, change)
    assert mean["psnr"] == pytest.approx(sum(expected) / len(expected), abs=1e-3)
    assert mean.get("mpsnr", 28.1308) == pytest.approx(28.1308, abs=1e-3)
    assert ("mpsnr" in mean) == (name != "realestate10k")


@every("depth")
def test_depth_that_is_wrong_in_a_tenth_of_the_pixels(name, data, tmp_path):
    """Half as deep again there, and three times as deep everywhere: the fit sees the rest, and a twentieth is left."""
    share = []

    def change(prediction: Prediction, case: Case) -> Prediction:
        counted = case.context.depth_mask & (case.context.depth < 70)  # Sintel's sky is deeper
        places = counted.flatten().nonzero()[::10, 0]
        share.append(len(places) / counted.sum().item())  # a tenth, rounded up
        flat = prediction.depth.flatten().clone()
        flat[places] *= 1.5
        return replace(prediction, depth=3 * flat.reshape(prediction.depth.shape))

    mean = score(name, data, tmp_path, change)
    wrong = sum(share) / len(share)
    for kind in ("scale", "scale_shift"):
        assert mean[f"absrel_{kind}"] == pytest.approx(wrong / 2, abs=1e-4)
        assert mean[f"delta_{kind}"] == pytest.approx(1 - wrong, abs=1e-5)


def test_a_shift_of_depth_is_fitted_away_where_the_protocol_says_so(data, tmp_path):
    def change(prediction: Prediction, case: Case) -> Prediction:
        return replace(prediction, depth=3 * prediction.depth + 2)

    rules = {"alignments": ("none", "scale", "scale_shift"), "largest": 1000.0}
    depth = short("sintel").depth.model_copy(update=rules)
    mean = score("sintel", data, tmp_path, change, tasks=("depth",), depth=depth)
    assert mean["absrel_scale_shift"] == pytest.approx(0, abs=1e-5) and mean["delta_scale_shift"] == 1
    assert mean["absrel_scale"] > 0.01 and mean["absrel_none"] > 2


def test_flat_depth_has_no_edge(data, tmp_path):
    """Accuracy is then 10 pixels, and a true edge as far from any as the picture's diagonal is long."""

    def change(prediction: Prediction, case: Case) -> Prediction:
        return replace(prediction, depth=torch.ones_like(prediction.depth))

    mean = score("synthetic_worlds", data, tmp_path, change)
    for kind in ("scale", "scale_shift"):
        assert mean[f"pdbe_accuracy_{kind}"] == 10
        assert mean[f"pdbe_completeness_{kind}"] == pytest.approx(28 * 2**0.5)


@every("pose")
def test_cameras_that_roll(name, data, tmp_path):
    """Every other frame rolled by 5 degrees about its axis: each step is wrong by 5 degrees, no place is."""

    def change(prediction: Prediction, case: Case) -> Prediction:
        roll = torch.eye(4).repeat(len(prediction.c2w), 1, 1)
        angle = torch.deg2rad(torch.tensor(5.0))
        roll[1::2, 0, 0] = roll[1::2, 1, 1] = angle.cos()
        roll[1::2, 1, 0], roll[1::2, 0, 1] = angle.sin(), -angle.sin()
        return replace(prediction, c2w=prediction.c2w @ roll)

    mean = score(name, data, tmp_path, change)
    assert mean["rpe_r"] == pytest.approx(5, abs=1e-3) and mean["ate"] == pytest.approx(0, abs=1e-4)


def test_tracks_of_twice_the_size_and_hidden_ones(data, tmp_path):
    def double(prediction: Prediction, case: Case) -> Prediction:
        return replace(prediction, tracks=2 * prediction.tracks, visible=~prediction.visible)

    mean = score("tapvid3d_13", data, tmp_path, double)
    assert mean["epe_camera"] == pytest.approx(0, abs=1e-5) and mean["delta_0.05_world"] == 1
    assert mean["oa"] == 0 and mean["aj_camera"] == 0  # nothing that is visible is said to be


@every("tracks")
def test_tracks_turned_round(name, data, tmp_path):
    """A quarter of the points behind the camera: as far from it, so the scale stays."""
    right, distances = [], []

    def change(prediction: Prediction, case: Case) -> Prediction:
        tracks, seen = prediction.tracks.clone(), case.tracks.visible
        tracks[:, ::4] *= -1
        right.append(1 - seen[:, ::4].sum().item() / seen.sum().item())
        far = prediction.tracks.norm(dim=-1)
        distances.append((2 * far[:, ::4][seen[:, ::4]].sum() / seen.sum() / np.median(far[seen])).item())
        return replace(prediction, tracks=tracks)

    mean = score(name, data, tmp_path, change)
    share = np.mean(right)  # one video of either source, or two worlds
    assert mean["oa"] == 1 and mean["apd_camera"] == pytest.approx(share, abs=1e-5)
    assert mean["delta_0.10_camera"] == pytest.approx(share, abs=1e-5)
    jaccard = np.mean([s / (2 - s) for s in right])  # found over seen and falsely placed
    assert mean["aj_camera"] == pytest.approx(jaccard, abs=1e-5)
    assert mean["epe_camera"] == pytest.approx(np.mean(distances), rel=1e-4)


@every("points")
def test_points_turned_round(name, data, tmp_path):
    """Every other row behind the first camera: as far away, so the scale stays."""
    expected = []

    def change(prediction: Prediction, case: Case) -> Prediction:
        points, known = prediction.points.clone(), case.context.depth_mask
        expected.append(2 * points[:, ::2][known[:, ::2]].abs().sum().item() / known.sum().item())
        points[:, ::2] *= -1
        return replace(prediction, points=points)

    mean = score(name, data, tmp_path, change)
    assert mean["point_l1"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_flow_and_masks(data, tmp_path):
    def change(prediction: Prediction, case: Case) -> Prediction:
        return replace(prediction, flow=prediction.flow + torch.tensor([0.3, 0, -0.4]), moving=~prediction.moving)

    mean = score("synthetic_worlds", data, tmp_path, change)
    assert mean["flow_epe"] == pytest.approx(0.5) and mean["flow_epe_moving"] == pytest.approx(0.5)
    assert mean["moving_iou"] == 0
