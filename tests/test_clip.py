"""Crop, resize, canonical frame and unit scale move images, cameras, depth and tracks together."""

from dataclasses import replace

import pytest
import torch

from movies.cameras import Cameras
from movies.clip import Batch, Clip, Tracks, Views
from movies.errors import InputError
from movies.geometry import project, quaternion_to_matrix, rigid, unproject


def plane_clip(generator, num_views=3, height=12, width=16) -> Clip:
    """Views of a tilted plane; the colour of a pixel is its world position, so images can be checked after a crop."""
    quats = torch.cat([torch.ones(num_views, 1), 0.05 * torch.randn(num_views, 3, generator=generator)], dim=-1)
    c2w = rigid(quaternion_to_matrix(quats), 0.1 * torch.randn(num_views, 3, generator=generator))
    cameras = Cameras(c2w, torch.tensor([0.8, 1.0, 0.48, 0.53]).expand(num_views, 4))
    depth = 2 + torch.rand(num_views, height, width, generator=generator)
    points = unproject(depth, cameras.fxfycxcy, cameras.c2w)  # [V, H, W, 3]
    images = torch.sigmoid(points).movedim(-1, 1)
    views = Views(images, cameras, torch.linspace(0, 1, num_views), depth, torch.ones_like(depth, dtype=torch.bool))
    track_points = points[0, ::4, ::4].reshape(1, -1, 3).expand(num_views, -1, 3)
    return Clip(views, Tracks(track_points, torch.ones(track_points.shape[:2], dtype=torch.bool)), num_context=2)


def test_crop_keeps_pixels_on_their_world_points(generator):
    clip = plane_clip(generator)
    cropped = clip.cropped(top=2, left=3, height=8, width=10)
    torch.testing.assert_close(torch.sigmoid(cropped.views.points()).movedim(-1, 1), cropped.images)


def test_crop_hides_tracks_that_leave_the_window(generator):
    clip = plane_clip(generator)
    cropped = clip.cropped(0, 8, 12, 8)
    xy, _ = project(clip.tracks.points, clip.cameras.fxfycxcy, clip.cameras.c2w)
    inside = (xy[..., 0] >= 0.5) & (xy[..., 0] <= 1) & (xy[..., 1] >= 0) & (xy[..., 1] <= 1)
    assert torch.equal(cropped.tracks.visible, inside)
    assert inside.any() and not inside.all()


def test_resize_by_an_odd_factor_keeps_centre_pixels(generator):
    clip = plane_clip(generator)
    small = clip.resized(4, 16)  # rows by 3: the middle row of three shares its centre with the new pixel
    torch.testing.assert_close(small.views.depth, clip.views.depth[:, 1::3])
    torch.testing.assert_close(small.views.points(), clip.views.points()[:, 1::3])
    assert small.cameras is clip.cameras


def test_canonical_moves_cameras_and_tracks_alike(generator):
    clip = plane_clip(generator)
    canonical = clip.canonical()
    torch.testing.assert_close(canonical.cameras.c2w[0], torch.eye(4), atol=1e-6, rtol=0)
    for view in range(3):
        before, _ = project(clip.tracks.points[view], clip.cameras.fxfycxcy[view], clip.cameras.c2w[view])
        after, _ = project(canonical.tracks.points[view], canonical.cameras.fxfycxcy[view], canonical.cameras.c2w[view])
        torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_unit_scale_uses_context_views_only(generator):
    clip = plane_clip(generator).canonical()
    far = replace(clip.views, depth=clip.views.depth * torch.tensor([1.0, 1.0, 50.0])[:, None, None])
    scaled, factor = replace(clip, views=far).unit_scale()
    torch.testing.assert_close(scaled.context.points().norm(dim=-1).mean(), torch.tensor(1.0))
    torch.testing.assert_close(scaled.cameras.centers, clip.cameras.centers * factor)
    torch.testing.assert_close(scaled.tracks.points, clip.tracks.points * factor)


def test_unit_scale_without_depth_is_one(generator):
    clip = plane_clip(generator)
    blank = replace(clip.views, depth_mask=torch.zeros_like(clip.views.depth_mask))
    assert replace(clip, views=blank).unit_scale()[1] == 1


def test_context_and_target_split(generator):
    clip = plane_clip(generator)
    assert len(clip.context) == 2 and len(clip.target) == 1
    with pytest.raises(InputError, match=r"num_context must be in 1\.\.3, got 4"):
        replace(clip, num_context=4)


def test_batch_pads_tracks_with_invisible_points(generator):
    clip = plane_clip(generator)
    batch = Batch.stack([clip, replace(clip, tracks=Tracks.empty(3), is_static=True)])
    assert batch.views.images.shape == (2, 3, 3, 12, 16)
    assert not batch.tracks.visible[1].any() and batch.tracks.points[1].isnan().all()
    assert batch.is_static.tolist() == [False, True]
    assert batch.context.cameras.shape == (2, 2)
    with pytest.raises(InputError, match="one number of context views"):
        Batch.stack([clip, replace(clip, num_context=1)])


def test_views_refuse_depth_of_another_size(generator):
    views = plane_clip(generator).views
    with pytest.raises(InputError, match=r"`depth` must have shape \[3, 12, 16\], got \[3, 12, 15\]"):
        replace(views, depth=views.depth[..., 1:])
