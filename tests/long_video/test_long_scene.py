"""Scenes in segments: what is shown when, films and exports of them, and folders that are none."""

import json
from pathlib import Path

import pytest
import torch

from movies.cameras import Cameras
from movies.errors import InputError
from movies.export import export_file
from movies.gaussians import Gaussians
from movies.long_paths import long_path
from movies.long_scene import INDEX, LongScene, Segment, load_scene
from movies.long_video.merge import represented
from movies.novel_views import render_video
from movies.scene import Scene4D
from movies.video import read_frames


def some_gaussians(*lead: int, count: int = 6, red: float = 0.5, z: float = 2.0) -> Gaussians:
    generator = torch.Generator().manual_seed(count)
    means = torch.rand(count, 3, generator=generator) - 0.5 + torch.tensor([0.0, 0.0, z])
    colors = torch.rand(count, 3, generator=generator)
    colors[:, 0] = red
    quats, scales = torch.tensor([1.0, 0, 0, 0]).expand(count, 4), torch.full((count, 3), 0.1)
    flat = Gaussians(means, quats, scales, torch.full((count,), 0.8), colors)
    return flat.map(lambda x: x.expand(*lead, *x.shape).clone())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two shots: frames 0 to 10 in three segments, 11 to 15 in one, each segment with a red of its own."""
    place = tmp_path_factory.mktemp("long")
    spans, shots = ((0, 4), (3, 7), (6, 10), (11, 15)), (0, 0, 0, 1)
    segments = []
    for k, (first, last) in enumerate(spans):
        times = torch.arange(first, last + 1) / 15
        cameras = Cameras(torch.eye(4).repeat(5, 1, 1), torch.ones(5, 4) * 0.5)
        still, moving = (some_gaussians(*lead, red=k / 10, count=6) for lead in ((), (5,)))
        Scene4D(still, moving, times, cameras, times, (28, 28)).save(place / f"{k}.safetensors")
        segments.append(Segment(f"{k}.safetensors", shots[k], float(times[0]), float(times[-1])))
    cameras = Cameras(torch.eye(4).repeat(16, 1, 1), torch.ones(16, 4) * 0.5)
    cameras.c2w[:, 0, 3] = 0.01 * torch.arange(16)
    shot_of = (torch.arange(16) > 10).long()
    LongScene(place, tuple(segments), cameras, torch.arange(16) / 15, shot_of, (28, 28)).save_index()
    return place


def test_the_index_is_read_back_as_it_was(folder):
    scene = load_scene(folder)
    assert isinstance(scene, LongScene) and len(scene.segments) == 4 and scene.image_size == (28, 28)
    assert torch.equal(scene.cameras.c2w[:, 0, 3], 0.01 * torch.arange(16))
    assert torch.equal(scene.times, torch.arange(16) / 15) and scene.shots.tolist() == [0] * 11 + [1] * 5


def test_segments_hand_over_in_their_overlap(folder):
    scene = LongScene.load(folder)
    assert scene.weights(0.0) == {0: (1.0, 1.0), 1: (1.0, 0.0)}
    assert scene.weights(5 / 15) == {0: (1.0, 0.0), 1: (1.0, 1.0), 2: (1.0, 0.0)}
    quarter = scene.weights(3.25 / 15)  # the new one comes in while the old one is still whole
    assert quarter[0] == (1.0, 1.0) and quarter[1] == (1.0, pytest.approx(0.5, abs=1e-5))
    assert quarter[2] == (pytest.approx(0.5, abs=1e-5), 0.0)
    most = [scene.shown_most(float(t)) for t in torch.linspace(0, 1, 31)]
    assert most == sorted(most) and set(most) == {0, 1, 2, 3}
    # opacities follow without a jump
    totals = torch.stack([scene.at(float(t)).opacities.sum() for t in torch.linspace(0, 10 / 15, 301)])
    assert totals.diff().abs().max() < 0.05 * totals.max()


def test_shots_are_never_mixed(folder):
    scene = LongScene.load(folder)
    assert set(scene.weights(10.4 / 15)) <= {0, 1, 2} and set(scene.weights(10.6 / 15)) == {3}
    assert len(scene.window(1.0).static) == 6
    reds = scene.window(0.4).static.colors[:, 0].unique()
    torch.testing.assert_close(reds, torch.tensor([0.0, 0.1, 0.2]), atol=1e-3, rtol=0)


def test_few_segments_are_held(folder):
    scene = LongScene.load(folder)
    for time in torch.linspace(0, 1, 20):
        scene.at(time)
        assert len(scene._held) <= 4


def test_travelling_paths_cut_between_shots_and_standing_ones_stay(folder):
    scene = LongScene.load(folder)
    cameras, times = long_path("follow", scene, 32)
    assert len(cameras) == len(times) == 32 and times[0] == 0 and times[-1] == 1
    assert not ((times > 10 / 15 + 1e-6) & (times < 11 / 15 - 1e-6)).any()
    cameras, times = long_path("orbit", scene, 8, time=5 / 15)
    assert len(cameras) == 8 and times[0] == pytest.approx(3 / 15) and times[-1] == pytest.approx(7 / 15)
    with pytest.raises(InputError, match="unknown camera path"):
        long_path("loop", scene, 8)
    with pytest.raises(InputError, match="at least 1"):
        long_path("follow", scene, 0)
    with pytest.raises(InputError, match="cannot show 2 shots"):
        long_path("follow", scene, 1)


@pytest.mark.parametrize("path", ["follow", "orbit"])
def test_films_of_a_long_scene(folder, tmp_path, path):
    render_video(folder, tmp_path / "film.mp4", path, frames=4, motion=tmp_path / "motion.mp4")
    assert read_frames(tmp_path / "film.mp4", 9).num_total == 4
    render_video(folder, tmp_path / "still.mp4", path, frames=2, time=0.3)
    assert read_frames(tmp_path / "still.mp4", 9).num_total == 2


def test_the_live_view_goes_from_segment_to_segment(folder):
    pytest.importorskip("viser")
    from movies.viewer import open_viewer

    with open_viewer(folder, port=0) as viewer:
        reds = []
        for moment in (0.0, 5 / 15, 1.0):
            viewer.player.moment = moment
            reds.append(float(viewer.player.part.moving.colors[0, 0, 0]))
            assert len(viewer.player.shown.at(moment)) == len(LongScene.load(folder).at(moment))  # what is filmed
        assert reds == pytest.approx([0.0, 0.1, 0.3], abs=1e-3)


def test_exports_of_a_long_scene(folder, tmp_path):
    """A page for each segment; a ply for each time."""
    pages = export_file(folder, "html", tmp_path / "scene.html", "all")
    assert [p.name for p in pages] == [f"scene_{k:04d}.html" for k in range(4)] and all(p.exists() for p in pages)
    assert len(export_file(folder, "ply", tmp_path / "scene.ply", "3")) == 3
    assert export_file(folder, "npz", tmp_path / "scene.npz", "0.5") == [tmp_path / "scene.npz"]


def test_what_a_neighbour_has_is_left_out():
    mine, twice_as_large = some_gaussians(count=40), some_gaussians(count=40)
    assert represented(mine, mine).all() and not represented(mine, Gaussians.empty()).any()
    assert not represented(mine, twice_as_large.map(lambda x: x * 2)).any()
    far = Gaussians(mine.means + 5, *(getattr(mine, name) for name in ("quats", "scales", "opacities", "colors")))
    assert not represented(mine, far).any()


def test_folders_that_hold_no_scene(folder, tmp_path):
    with pytest.raises(InputError, match="no scene there"):
        load_scene(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(InputError, match="not the index of a long scene"):
        load_scene(tmp_path)
    index = json.loads((folder / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index | {"version": 99}))
    with pytest.raises(InputError, match="newer movies"):
        load_scene(tmp_path)
