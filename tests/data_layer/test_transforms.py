"""Transforms move images, cameras, depth and tracks together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from movies.clip import Clip
from movies.data.transforms import color_jitter, normalized, random_crop, unit_times
from movies.geometry import project


@pytest.fixture
def clip(plane):
    return Clip(*plane(size=24).read([3, 5, 7, 6]), num_context=3, is_static=True)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_crop_keeps_pixels_over_their_points(clip):
    cropped = random_crop(rng(1), clip, 14, 14, min_scale=0.5)
    assert cropped.views.size == (14, 14) and not torch.equal(cropped.cameras.fxfycxcy, clip.cameras.fxfycxcy)
    points = cropped.views.points()[..., 2]
    torch.testing.assert_close(points, torch.full_like(points, 2.0))
    # the texture is 0.5 + 0.4 sin(3 x) of the world: cropped images still show it (bilinear and antialiasing blur it)
    expected = 0.5 + 0.4 * torch.sin(3 * cropped.views.points()).movedim(-1, 1)
    assert (cropped.images - expected)[..., 1:-1, 1:-1].abs().max() < 0.03


def test_crop_of_another_aspect_and_none_at_full_size(clip):
    assert random_crop(rng(), clip, 7, 14).views.size == (7, 14)
    assert torch.equal(random_crop(rng(), clip, 24, 24).images, clip.images)


def test_crop_hides_tracks_outside(clip):
    cropped = random_crop(rng(1), clip, 14, 14, min_scale=0.5)
    xy, z = project(cropped.tracks.points, cropped.cameras.fxfycxcy, cropped.cameras.c2w)
    inside = ((xy >= 0) & (xy <= 1)).all(dim=-1) & (z > 0)
    assert not (cropped.tracks.visible & ~inside).any()


def test_jitter_changes_all_views_alike_and_stays_in_range(clip):
    changed = color_jitter(rng(), clip, 0.4).images
    assert changed.min() >= 0 and changed.max() <= 1 and not torch.equal(changed, clip.images)
    assert color_jitter(rng(), clip, 0.0) is clip
    same = replace(clip, views=replace(clip.views, images=clip.images[:1].expand_as(clip.images)))
    jittered = color_jitter(rng(), same, 0.4).images
    torch.testing.assert_close(jittered[0], jittered[1])


def test_normalized_is_canonical_of_unit_scale_and_unit_time(clip):
    done = normalized(clip)
    torch.testing.assert_close(done.cameras.c2w[0], torch.eye(4))
    assert done.context.points().norm(dim=-1).mean().item() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(done.times, torch.tensor([0.0, 0.5, 1.0, 0.75]))


def test_scale_does_not_see_the_targets(clip):
    depth = clip.views.depth.clone()
    depth[3] *= 10  # the target
    other = replace(clip, views=replace(clip.views, depth=depth))
    torch.testing.assert_close(normalized(other).cameras.c2w, normalized(clip).cameras.c2w)


def test_equal_times_become_zero(clip):
    still = replace(clip, views=replace(clip.views, times=torch.full((4,), 0.3)))
    assert torch.equal(unit_times(still).times, torch.zeros(4))
