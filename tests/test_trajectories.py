"""Camera paths: of the right length, rigid, and looking where they should."""

import pytest
import torch

from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.geometry import project, rigid
from movies.scene import Scene4D
from movies.trajectories import (
    PATHS,
    camera_path,
    dolly,
    focus_depth,
    follow,
    hold,
    interpolate,
    orbit,
    spiral,
    time_path,
)

FOCUS = 2.0


@pytest.fixture
def cameras() -> Cameras:
    """Five cameras side by side that look ahead, the middle ones shaken up and down."""
    centers = torch.tensor([[0.0, 0, 0], [0.1, 0.05, 0], [0.2, -0.05, 0], [0.3, 0.05, 0], [0.4, 0, 0]])
    return Cameras(rigid(torch.eye(3).expand(5, 3, 3), centers), torch.tensor([1.0, 1.0, 0.5, 0.5]).repeat(5, 1))


def wall(cameras: Cameras, depth: float = FOCUS, count: int = 50) -> Scene4D:
    x, y = torch.meshgrid(torch.linspace(-1, 1.5, count), torch.linspace(-1, 1, count), indexing="ij")
    means = torch.stack([x, y, torch.full_like(x, depth)], dim=-1).flatten(0, 1)
    size = len(means)
    static = Gaussians(means, torch.ones(size, 4), torch.ones(size, 3), torch.ones(size), torch.ones(size, 3))
    return Scene4D(static, Gaussians.empty(1), torch.zeros(1), cameras, torch.linspace(0, 1, len(cameras)))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_paths_are_rigid_and_of_the_length_asked_for(cameras, name, num_frames):
    path = camera_path(name, wall(cameras), num_frames)
    assert path.shape == (num_frames,)
    rotation = path.c2w[:, :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(num_frames, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(num_frames), atol=1e-5)
    assert path.fxfycxcy.isfinite().all() and path.centers.isfinite().all()


@pytest.mark.parametrize("name", PATHS)
def test_paths_of_a_single_camera(cameras, name):
    assert camera_path(name, wall(cameras[:1]), 5).c2w.isfinite().all()


def test_hold_stands_still_at_the_first_camera(cameras):
    assert torch.equal(hold(cameras, 3, FOCUS).c2w, cameras.c2w[:1].expand(3, 4, 4))


def test_interpolate_passes_the_cameras(cameras):
    path = interpolate(cameras, 9)
    assert torch.allclose(path.c2w[::2], cameras.c2w, atol=1e-6)
    assert torch.allclose(path.centers[1], (cameras.centers[0] + cameras.centers[1]) / 2, atol=1e-6)


def test_follow_keeps_the_ends_and_calms_the_hand(cameras):
    path = follow(cameras, 5, FOCUS)
    assert torch.allclose(path.centers[[0, -1]], cameras.centers[[0, -1]])
    assert path.centers[:, 1].abs().max() < 0.6 * cameras.centers[:, 1].abs().max()


@pytest.mark.parametrize("path", [orbit, spiral])
def test_orbit_and_spiral_keep_looking_at_the_focus(cameras, path):
    still = cameras[torch.zeros(3, dtype=torch.long)]
    views = path(still, 12, FOCUS)
    target = still.centers[0] + FOCUS * still.c2w[0, :3, 2]
    positions, z = project(target.expand(12, 1, 3), views.fxfycxcy, views.c2w)
    assert torch.allclose(positions[:, 0], torch.full((12, 2), 0.5), atol=1e-5)
    assert (z > 0.8 * FOCUS).all()
    assert (views.centers - still.centers[0]).norm(dim=-1).max() > 0.1


def test_dolly_goes_towards_the_scene_and_comes_back(cameras):
    z = dolly(cameras, 5, FOCUS).centers[:, 2]
    assert z[2] == z.max() > 0.25 * FOCUS and abs(z[-1]) < 1e-5


def test_focus_depth(cameras):
    assert focus_depth(wall(cameras, 3.0)) == pytest.approx(3.0)
    assert focus_depth(wall(cameras, -3.0)) == 1.0  # nothing before the camera


def test_unknown_path_and_no_frames(cameras):
    with pytest.raises(InputError, match="unknown camera path 'loop': choose one of orbit"):
        camera_path("loop", wall(cameras), 5)
    with pytest.raises(InputError, match="at least 1, got 0"):
        camera_path("orbit", wall(cameras), 0)


@pytest.mark.parametrize(
    ("name", "moment", "wanted"),
    [
        ("play", None, [0, 0.25, 0.5, 0.75, 1]),
        ("freeze", None, [0.5] * 5),
        ("freeze", 0.2, [0.2] * 5),
        ("boomerang", None, [0, 0.5, 1, 0.5, 0]),
        ("bullet", 0.0, [0, 0, 0.1 / 0.6, 0.35 / 0.6, 1]),
        ("0:0,0.5:0.5,1:1", None, [0, 0.25, 0.5, 0.75, 1]),
        ("0:1,0.5:0,1:0", None, [1, 0.5, 0, 0, 0]),
        ("0.25:0.4", None, [0.4] * 5),
    ],
)
def test_time_maps(name, moment, wanted):
    assert time_path(name, 5, moment).tolist() == pytest.approx(wanted, abs=1e-6)


def test_slow_motion_is_half_as_fast_about_its_moment():
    for moment, low in ((0.5, 0.35), (0.0, 0.0), (1.0, 0.7)):
        times = time_path("slow", 201, moment)
        steps = times.diff()
        inside = (times[1:] > low + 0.01) & (times[:-1] < low + 0.29)
        assert torch.allclose(steps[inside], torch.tensor(0.5 / 200), atol=1e-5)
        assert times[0] == 0 and times[-1] == 1 and (steps > 0).all()


def test_bullet_time_stands_still_at_its_moment():
    times = time_path("bullet", 101, 0.3)
    assert int((times == 0.3).sum()) in (40, 41) and times[0] == 0 and times[-1] == 1


@pytest.mark.parametrize(
    ("name", "moment", "message"),
    [
        ("rewind", None, "unknown time map 'rewind': choose one of play, freeze"),
        ("0:0:0", None, "unknown time map '0:0:0'"),
        ("0:0,x:1", None, "unknown time map"),
        ("0.5:0,0.2:1", None, "positions along the path must rise from 0 to 1"),
        ("nan:0.5", None, "positions along the path must rise"),
        ("0:0,2:1", None, "positions along the path must rise"),
        ("0:0,1:nan", None, "times run from 0 to 1 over the clip, got nan"),
        ("freeze", -0.1, "times run from 0 to 1 over the clip, got -0.1"),
        ("boomerang", 0.5, "a time belongs to the time maps freeze, slow, bullet, not to 'boomerang'"),
    ],
)
def test_time_maps_that_cannot_be(name, moment, message):
    with pytest.raises(InputError, match=message):
        time_path(name, 5, moment)
