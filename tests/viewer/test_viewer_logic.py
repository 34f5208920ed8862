"""What the live viewer is made of, without a server: colourings, trails, camera paths, packing."""

import json

import numpy as np
import pytest
import torch

from movies.camera_files import load_cameras
from movies.cameras import Cameras
from movies.errors import InputError
from movies.geometry import look_at
from movies.viewer.camera_path import CameraPath
from movies.viewer.looks import recolored
from movies.viewer.player import advanced
from movies.viewer.stage import packed
from movies.viewer.trails import Trails


def test_depth_goes_from_blue_to_red_and_is_one_scale_for_all(scene):
    shown = recolored(scene, "depth")
    near, far = shown.moving.colors[0].mean(dim=0), shown.static.colors.mean(dim=0)
    assert near[2] > near[0] and far[0] > far[2]
    assert torch.equal(shown.static.means, scene.static.means) and torch.equal(shown.times, scene.times)


def test_motion_is_in_colour_and_what_stands_still_is_grey(scene):
    shown = recolored(scene, "motion")
    assert (shown.static.colors.std(dim=-1) == 0).all()
    assert (shown.moving.colors.std(dim=-1) > 0.05).all()
    assert torch.equal(shown.moving.colors[0], shown.moving.colors[2])


def test_opacity_is_brightness(scene):
    shown = recolored(scene, "opacity")
    assert torch.equal(shown.static.colors, scene.static.opacities[:, None].expand(-1, 3))
    assert torch.equal(shown.moving.colors[..., 1], scene.moving.opacities)


def test_rgb_is_the_scene_itself_and_other_looks_are_refused(scene):
    assert recolored(scene, "rgb") is scene
    with pytest.raises(InputError, match="unknown colouring 'heat': choose one of rgb, depth, motion, opacity"):
        recolored(scene, "heat")


def test_trails_keep_what_moves_and_end_at_the_moment(stored):
    trails = Trails.load(stored.parent / "tracks.npz")
    assert len(trails) == 10
    assert trails.until(0.0).shape == (0, 2, 3)
    segments = trails.until(0.75)
    assert segments.shape == (20, 2, 3)
    torch.testing.assert_close(segments[:10, 1], segments[10:, 0])
    torch.testing.assert_close(segments[10:, 1] - segments[:10, 0], torch.tensor([0.9, 0.0, 0.0]).expand(10, 3))
    torch.testing.assert_close(trails.until(1.0)[-10:, 1], trails.points[2])
    assert trails.colors().shape == (10, 3) and trails.colors().max() <= 1


def test_trails_of_points_that_are_lost_are_left_out(tmp_path):
    points = np.zeros((2, 3, 3), np.float32)
    points[1, :, 0] = [1.0, np.nan, 0.5]
    np.savez(tmp_path / "tracks.npz", points=points, times=np.float32([0, 1]))
    assert len(Trails.load(tmp_path / "tracks.npz")) == 2


def test_without_tracks_there_are_no_trails(tmp_path):
    trails = Trails.load(tmp_path / "tracks.npz")
    assert len(trails) == 0 and trails.until(1.0).shape == (0, 2, 3) and trails.colors().shape == (0, 3)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_file_that_holds_no_tracks_is_refused(tmp_path, content):
    path = tmp_path / "tracks.npz"
    if content is None:
        np.savez(path, other=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="holds no tracks"):
        Trails.load(path)


def _path() -> CameraPath:
    eyes = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    c2w = look_at(eyes, torch.tensor([0.0, 0.0, 4.0]).expand(3, 3), torch.tensor([0.0, 1.0, 0.0]).expand(3, 3))
    path = CameraPath.empty()
    for k, time in enumerate((0.0, 0.5, 0.5)):
        path = path.added(Cameras(c2w[k], torch.tensor([0.9, 1.2, 0.5, 0.5])), time)
    return path


def test_a_path_is_sampled_between_its_views():
    cameras, times = _path().sampled(5)
    torch.testing.assert_close(cameras.centers[:, 0], torch.tensor([0.0, 0.5, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(times, torch.tensor([0.0, 0.25, 0.5, 0.5, 0.5]))
    cameras, times = _path().without(1).without(1).sampled(3)
    assert torch.equal(cameras.centers, torch.zeros(3, 3)) and torch.equal(times, torch.zeros(3))


def test_a_path_without_views_has_no_frames():
    with pytest.raises(InputError, match="holds no view yet"):
        CameraPath.empty().sampled(3)


def test_a_path_is_kept_in_a_camera_file_with_its_times(tmp_path):
    path = _path()
    path.save(tmp_path / "path.json", (48, 64))
    again = CameraPath.load(tmp_path / "path.json")
    torch.testing.assert_close(again.cameras.c2w, path.cameras.c2w)
    assert torch.equal(again.times, path.times)
    torch.testing.assert_close(load_cameras(tmp_path / "path.json").fxfycxcy, path.cameras.fxfycxcy)
    assert [file.name for file in tmp_path.iterdir()] == ["path.json"]


def test_a_camera_file_without_times_plays_once(tmp_path):
    _path().save(tmp_path / "path.json", (48, 64))
    content = json.loads((tmp_path / "path.json").read_text())
    del content["frames"][1]["time"]
    (tmp_path / "path.json").write_text(json.dumps(content))
    torch.testing.assert_close(CameraPath.load(tmp_path / "path.json").times, torch.tensor([0.0, 0.5, 1.0]))


def test_gaussians_are_packed_enlarged(scene):
    gaussians = scene.moving[0].select(torch.arange(5))
    values = packed(gaussians, 50.0)
    np.testing.assert_allclose(values["centers"], 50 * gaussians.means)
    np.testing.assert_allclose(values["covariances"], np.eye(3) * 4.0 * np.ones((5, 1, 1)), rtol=1e-5)
    assert values["opacities"].shape == (5, 1)


def test_time_starts_again_after_the_end():
    assert advanced(0.5, 0.25) == 0.75
    assert advanced(0.75, 0.25) == 1.0
    assert advanced(1.0, 0.25) == 0.25
