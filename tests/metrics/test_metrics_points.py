"""Point and track measures by hand."""

import numpy as np
import pytest
import torch

from movies import metrics


def test_endpoint_error_by_hand():
    motion, target = torch.zeros(1, 2, 3), torch.tensor([[[3.0, 4.0, 0.0], [9.0, 9.0, 9.0]]])
    assert metrics.endpoint_error(motion, target, torch.tensor([[True, False]])).item() == pytest.approx(5.0)


def test_points_within_and_their_l1_by_hand():
    points, target = torch.tensor([[[0.03, 0.04, 0], [3.0, -4.0, 1.0], [9.0, 9, 9]]]), torch.zeros(1, 3, 3)
    mask = torch.tensor([[True, True, False]])
    assert metrics.within(points, target, mask, 0.06).item() == 0.5
    assert metrics.within(points, target, mask, 0.04).item() == 0
    assert metrics.point_l1(points, target, mask).item() == pytest.approx((0.07 + 8) / 2)
    assert metrics.point_l1(points, target, mask & False).isnan()


def test_median_scale_is_that_of_numpy(generator):
    points, target = torch.rand(2, 3, 5, 3, generator=generator)
    mask = torch.rand(3, 5, generator=generator) < 0.6
    mask[0, 0] ^= mask.sum() % 2 == 1  # an even number, of which the middle two count
    want = np.median(target[mask].norm(dim=-1)) / np.median(points[mask].norm(dim=-1))
    assert metrics.median_scale(points, target, mask).item() == pytest.approx(want)
    assert metrics.median_scale(points, target, mask & False).isnan()


def test_pixel_distance_by_hand():
    """fx = 200 and fy = 800 pixels of an image 512 high and 1024 wide are 100 and 400 at a height of 256."""
    fxfycxcy = torch.tensor([[200 / 1024, 800 / 512, 0.5, 0.5]])
    got = metrics.pixel_distance(torch.tensor([[4.0]]), fxfycxcy, (512, 1024))
    assert got.item() == pytest.approx(4 / 200)


def test_track_scores_by_hand():
    """Two points, two frames, 1 pixel = 1 unit: one exact; one off by 3 (right from 4 pixels on); one falsely seen."""
    target, unit = torch.zeros(2, 2, 3), torch.ones(2, 2)
    tracks = target.clone()
    tracks[0, 1, 0] = 3.0
    target_visible = torch.tensor([[True, True], [True, False]])
    visible = torch.tensor([[True, True], [False, True]])
    scores = metrics.track_scores(tracks, visible, target, target_visible, unit)
    # 1 and 2 pixels: found 1, seen 3, false 2 (the far one and the hidden one); from 4 pixels: found 2, false 1
    assert scores.average_jaccard.item() == pytest.approx((2 * 1 / 5 + 3 * 2 / 4) / 5)
    assert scores.points_within.item() == pytest.approx((2 * 2 / 3 + 3 * 1) / 5)
    assert scores.occlusion_accuracy.item() == 0.5


def test_perfect_tracks_score_one(generator):
    target, visible = torch.rand(4, 5, 3, generator=generator), torch.rand(4, 5, generator=generator) < 0.7
    scores = metrics.track_scores(target, visible, target, visible, torch.full((4, 5), 1e-3))
    assert [x.item() for x in vars(scores).values()] == [1, 1, 1]
