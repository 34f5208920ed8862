"""The strong augmentation of a video: shares by counts, geometry that follows the crop, frames changed alike."""

import math

import numpy as np
import pytest
import torch

from movies.clip import Clip
from movies.data.augmentation import VideoAugmentation, augment, blurred, draw_window, recolored
from movies.data.synthetic import synthetic_sequences
from movies.data.transforms import luma
from movies.geometry import project

PLAIN = VideoAugmentation(brightness=0, contrast=0, saturation=0, hue=0, drop=0, blur=0, least_area=0.3, zoom=0)


@pytest.fixture(scope="module")
def clip() -> Clip:
    views, tracks = synthetic_sequences(num_sequences=1, image_size=(24, 36), num_tracks=60)[0].read([0, 8, 16])
    return Clip(views, tracks, 3)


def within_binomial(count: int, number: int, share: float) -> bool:
    return abs(count - number * share) < 4 * math.sqrt(number * share * (1 - share))


def test_windows_have_their_area_and_any_aspect():
    rng, config = np.random.default_rng(0), VideoAugmentation(zoom=0)
    windows = [draw_window(rng, 240, 360, config) for _ in range(2000)]
    for top, left, height, width in windows:
        assert 0 <= top <= 240 - height and 0 <= left <= 360 - width
        assert 0.29 < height * width / (240 * 360) <= 1
    # relative to the picture, wide and tall are equally likely
    wide = sum(width / 360 > height / 240 for _, _, height, width in windows)
    assert within_binomial(wide, 2000, 0.5)
    zoomed = [draw_window(rng, 240, 360, VideoAugmentation(least_area=0.999)) for _ in range(2000)]
    assert within_binomial(sum(h * w < 0.98 * 240 * 360 for _, _, h, w in zoomed), 2000, 0.05 * 0.99)


def test_cameras_depth_and_tracks_follow_the_crop(clip):
    out = augment(np.random.default_rng(1), clip, 28, 28, PLAIN)
    assert out.views.size == (28, 28)
    fx, fy = out.cameras.fxfycxcy[0, :2].tolist()
    assert fx / fy != pytest.approx(24 / 36, rel=0.05)  # another aspect than before
    assert torch.equal(out.tracks.points, clip.tracks.points)
    xy, z = project(out.tracks.points, out.cameras.fxfycxcy, out.cameras.c2w)
    seen = out.tracks.visible
    assert 0 < seen.sum() < clip.tracks.visible.sum() and ((xy[seen] >= 0) & (xy[seen] <= 1)).all()
    column, row = (xy[seen] * 28).long().clamp(0, 27).unbind(-1)
    view = seen.nonzero()[:, 0]
    error = (out.views.depth[view, row, column] - z[seen]).abs() / z[seen]
    assert error.median() < 0.03


def test_colors_change_alike_in_all_frames(clip):
    same = clip.images[:1].expand(3, -1, -1, -1)
    out = recolored(np.random.default_rng(2), same, VideoAugmentation(drop=0))
    assert torch.equal(out[0], out[2]) and (out - same).abs().max() > 0.02
    assert torch.allclose(recolored(np.random.default_rng(3), same, PLAIN), same, atol=1e-5)
    gray = recolored(np.random.default_rng(4), same, VideoAugmentation(drop=1))
    assert torch.allclose(gray[:, 0], gray[:, 2], atol=1e-6)
    turned = recolored(np.random.default_rng(5), 0.3 + 0.4 * same, VideoAugmentation(0, 0, 0, hue=0.1, drop=0))
    assert torch.allclose(luma(turned), luma(0.3 + 0.4 * same), atol=1e-3)


def test_drop_and_blur_come_as_often_as_asked(clip):
    small = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    rng, config = np.random.default_rng(6), VideoAugmentation()
    drops = sum(
        bool((x[:, 0] - x[:, 2]).abs().max() < 1e-5) for x in (recolored(rng, small, config) for _ in range(500))
    )
    assert within_binomial(drops, 500, 0.2)


def test_blur_keeps_the_mean_and_spreads_by_sigma():
    picture = torch.zeros(1, 3, 31, 31)
    picture[..., 15, 15] = 1
    out = blurred(picture, 2.0)[0, 0]
    assert out.sum().item() == pytest.approx(1, abs=1e-5)
    steps = torch.arange(31.0) - 15
    assert (out.sum(dim=0) * steps**2).sum().sqrt().item() == pytest.approx(2.0, rel=0.03)
