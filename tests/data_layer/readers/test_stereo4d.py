"""Stereo4D: ragged tracks, frames of a video by index, a field of view that no file states, sparse depth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from layouts_dynamic import encode_video, write_stereo4d
from scene import assert_reads_back, make_scene

from movies.clip import Tracks
from movies.data.readers import READERS
from movies.data.readers.videos import video_frames
from movies.errors import InputError
from movies.geometry import project

FX = 0.8660254  # of a horizontal field of view of 60 degrees
TALLER = 32 / 24
SCENE = make_scene((FX, FX * TALLER, 0.5, 0.5), num_tracks=80)


def observed(scene):
    """Tracks of Stereo4D have a point only where they are seen, and every fifth is lost in frame 2."""
    visible = scene.tracks.visible.clone()
    visible[2, ::5] = False
    points = torch.where(visible[..., None], scene.tracks.points, torch.nan)
    return replace(scene, tracks=Tracks(points, visible))


SEEN = observed(SCENE)


@pytest.mark.parametrize("split", ["test", ""])
def test_reads_back(tmp_path, split):
    write_stereo4d(tmp_path, SEEN, split=split)
    (sequence,) = READERS["stereo4d"](tmp_path, split=split or "train")
    assert sequence.name == f"{split}/abc_123-x_4504500".removeprefix("/") and sequence.has_depth
    for indices in ((0, 2, 5), (4, 1, 4)):
        views, _ = sequence.read(indices)
        assert_sparse_depth(views, SEEN, indices)
        dense = replace(SEEN, views=replace(SEEN.views, depth=sparse(SEEN), depth_mask=sparse(SEEN) > 0))
        assert_reads_back(sequence, dense, indices, has_tracks=True, depth_atol=1e-5)


def sparse(scene):
    """The nearest visible track in each pixel, track by track."""
    depth = torch.zeros_like(scene.views.depth)
    xy, z = project(scene.tracks.points, scene.views.cameras.fxfycxcy, scene.views.cameras.c2w)
    for v, p in scene.tracks.visible.nonzero().tolist():
        row, column = int(xy[v, p, 1] * 24), int(xy[v, p, 0] * 32)
        old = depth[v, row, column].item()
        depth[v, row, column] = min(old, z[v, p].item()) if old > 0 else z[v, p].item()
    return depth


def assert_sparse_depth(views, scene, indices):
    """Most of the depth is that of the surface in its pixel: tracks in front of an edge may differ."""
    truth = scene.views.depth[list(indices)]
    assert 20 < views.depth_mask.sum() / len(indices) <= 80
    errors = ((views.depth - truth).abs() / truth)[views.depth_mask & scene.views.depth_mask[list(indices)]]
    assert errors.median() < 0.02


def test_other_field_of_view_and_size(tmp_path):
    wide = observed(make_scene((0.5, 0.5 * TALLER, 0.5, 0.5)))
    write_stereo4d(tmp_path, wide)
    (sequence,) = READERS["stereo4d"](tmp_path, field_of_view=90.0, short_side=12)
    views, tracks = sequence.read([1, 4])
    torch.testing.assert_close(views.cameras.fxfycxcy, wide.views.cameras.fxfycxcy[[1, 4]])
    assert views.size == (12, 16) and torch.equal(tracks.visible, wide.tracks.visible[[1, 4]])
    smaller = wide.views.select([1, 4]).resized(12, 16).images
    torch.testing.assert_close(views.images, smaller, rtol=0, atol=0.06)  # the decoder's fixed-point arithmetic


def test_clips_without_a_video_are_left_out(tmp_path):
    video = write_stereo4d(tmp_path, SEEN, "gone_1")
    write_stereo4d(tmp_path, SEEN, "here_2")
    (tmp_path / "train" / "npz" / "never_3.npz").touch()
    video.unlink()
    assert [s.name for s in READERS["stereo4d"](tmp_path)] == ["train/here_2"]
    (tmp_path / "train" / "processed" / "here_2" / "here_2-left_rectified.mp4").unlink()
    with pytest.raises(InputError, match="no Stereo4D sequence lies there; expected"):
        READERS["stereo4d"](tmp_path)
    with pytest.raises(InputError, match="field_of_view must be between 0 and 180 degrees, got 180"):
        READERS["stereo4d"](tmp_path, field_of_view=180)


def test_frames_of_a_video_are_exact_across_keyframes(tmp_path):
    pictures = [np.full((16, 16, 3), 8 * i, np.uint8) for i in range(30)]  # B frames, a keyframe in four
    encode_video(tmp_path / "v.mp4", pictures)
    for indices in ([0], [29], [13, 12, 14, 13], [28, 3, 17], list(range(30))):
        frames = video_frames(tmp_path / "v.mp4", indices, (16, 16))
        assert [int(f[0, 0, 0]) // 8 for f in frames] == indices
    with pytest.raises(InputError, match=r"the video has 30 frames, frame 30 is asked of it"):
        video_frames(tmp_path / "v.mp4", [30], (16, 16))
    whole = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for name, message in (("cut.mp4", "cannot be read as a video"), ("no.mp4", "no such file")):
        with pytest.raises(InputError, match=rf"{name}: {message}"):
            video_frames(tmp_path / name, [0], (16, 16))


def rewrite(path, **changes):
    with np.load(path) as arrays:
        kept = {key: arrays[key] for key in arrays.files}
    np.savez(path, **{**kept, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestamps": np.arange(5)}, r"6 frames, 5 times and 6 cameras in .*\.npz"),
        ({"track_indices": np.arange(3)}, r"track_lengths do not add up to the 3 track_indices"),
        ({"track_lengths": np.array([1]), "track_indices": np.array([6]), "track_coordinates": np.ones((1, 3))},
         "track_indices reach 6 of 6 frames"),
        ({"track_lengths": np.array([{}])}, "holds pickled objects, which are never executed"),
        ({"camera2world": np.array([{}])}, "holds pickled objects, which are never executed"),
    ],
)  # fmt: skip
def test_annotations_that_do_not_fit(tmp_path, changes, message):
    write_stereo4d(tmp_path, SEEN)
    rewrite(tmp_path / "train" / "npz" / "abc_123-x_4504500.npz", **changes)
    with pytest.raises(InputError, match=message):
        READERS["stereo4d"](tmp_path)[0].read([0])


def test_no_tracks_at_all(tmp_path):
    write_stereo4d(tmp_path, replace(SEEN, tracks=Tracks.empty(6)))
    views, tracks = READERS["stereo4d"](tmp_path)[0].read([0, 1])
    assert len(tracks) == 0 and not views.depth_mask.any()
