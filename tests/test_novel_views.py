"""Films: time along the path, background, depth and motion beside, the clip to the left; and what is refused."""

from dataclasses import replace

import pytest
import torch

from movies import cli
from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.geometry import quaternion_to_matrix, rigid
from movies.novel_views import clip_at, depth_pictures, motion_pictures, parse_background, render_path, render_video
from movies.rendering import render
from movies.scene import Scene4D
from movies.video import read_frames, write_video

SIZE = (24, 32)


def build_scene() -> Scene4D:
    """A red wall on the left, and on the right, farther, a white one that goes right by 0.1 from time to time."""

    def wall(x0: float, x1: float, depth: float, color: tuple[float, float, float]) -> Gaussians:
        y, x = torch.meshgrid(torch.linspace(-2, 2, 40), torch.linspace(x0, x1, 20), indexing="ij")
        means = torch.stack([x, y, torch.full_like(x, depth)], dim=-1).reshape(-1, 3)
        num = len(means)
        quats = torch.tensor([1.0, 0, 0, 0]).repeat(num, 1)
        return Gaussians(
            means, quats, torch.full((num, 3), 0.08), torch.full((num,), 0.95), torch.tensor(color).repeat(num, 1)
        )

    right = wall(0.3, 2.0, 2.2, (1.0, 1.0, 1.0))
    moving = [replace(right, means=right.means + t * torch.tensor([0.1, 0, 0])) for t in range(3)]
    cameras = Cameras(torch.eye(4).repeat(2, 1, 1), torch.tensor([0.9, 1.2, 0.5, 0.5]).repeat(2, 1))
    times = torch.linspace(0, 1, 3)
    left = wall(-2.0, -0.35, 2.0, (1.0, 0, 0))
    return Scene4D(left, Gaussians.stack(moving), times, cameras, torch.tensor([0.0, 1.0]), SIZE)


@pytest.fixture
def saved(tmp_path):
    build_scene().save(tmp_path / "scene.safetensors")
    return tmp_path / "scene.safetensors"


def frames_of(path) -> torch.Tensor:  # [K, 3, H, W]
    return read_frames(path, 99).images


def test_the_clip_plays_along_the_path(saved, tmp_path):
    """Held still, the film's pictures are those of the scene at the times of the map."""
    out = tmp_path / "a.mp4"
    render_video(saved, out, "hold", frames=5, time_map="boomerang")
    scene = Scene4D.load(saved)
    wanted = render(scene.at(torch.tensor([0.0, 0.5, 1.0, 0.5, 0.0])), scene.cameras[[0] * 5], *SIZE).images
    assert (frames_of(out) - wanted.clamp(0, 1)).abs().mean() < 0.02  # what the video's coding leaves
    render_video(saved, out, "hold", frames=2, time=1.0)
    assert (frames_of(out) - wanted[2].clamp(0, 1)).abs().mean() < 0.02


def test_background_fills_what_is_empty(saved, tmp_path):
    render_video(saved, tmp_path / "a.mp4", "hold", frames=1, background="0,0,1")
    gap = frames_of(tmp_path / "a.mp4")[0, :, 12, 15]  # between the walls
    assert gap[2] > gap[0] + 0.2
    scene = Scene4D.load(saved)
    empty = scene.select(torch.zeros(len(scene), dtype=torch.bool))
    (picture,) = render_path(empty, scene.cameras[:1], torch.zeros(1), SIZE, background=parse_background("white"))
    assert torch.equal(picture, torch.ones(3, *SIZE))
    assert parse_background("0.5,0,1").tolist() == [0.5, 0, 1]


def test_depth_and_motion_are_written_beside(saved, tmp_path):
    places = {name: tmp_path / f"{name}.mp4" for name in ("out", "depth", "motion")}
    render_video(saved, path="hold", frames=2, size=64, **places)
    assert {frames_of(place).shape for place in places.values()} == {(2, 3, 48, 64)}


def test_depth_pictures_have_one_range_and_black_gaps():
    scene = build_scene()
    pictures = depth_pictures(scene, scene.cameras, scene.view_times, SIZE)
    assert pictures.shape == (2, 3, *SIZE)
    assert pictures[:, :, 12, 3].amax(dim=1).min() > 0.1  # the wall
    alone = scene.select(torch.arange(len(scene)) < len(scene.static))
    assert (depth_pictures(alone, scene.cameras, scene.view_times, SIZE)[:, :, 12, 28] == 0).all()


@pytest.mark.parametrize("moment", [0.0, 0.25, 1.0])
def test_motion_is_that_to_the_next_time(moment):
    """Grey stands still; +x is red, in full where motion is the longest: 0.1 to the right, at the end too."""
    scene = build_scene()
    (picture,) = motion_pictures(scene, scene.cameras[:1], torch.tensor([moment]), SIZE)
    assert torch.allclose(picture[:, 12, 3], torch.full((3,), 0.5), atol=1e-3)
    assert torch.allclose(picture[:, 12, 28], torch.tensor([1.0, 0.5, 0.5]), atol=1e-2)


def test_the_clip_stands_to_the_left_at_its_own_times(saved, tmp_path):
    """A clip of another size and shape, whose frames are grey steps: framed as the scene, each at its time."""
    steps = torch.linspace(0.1, 0.9, 9)[:, None, None, None].expand(9, 3, 60, 60)
    write_video(tmp_path / "clip.mp4", steps, fps=4)
    render_video(saved, tmp_path / "a.mp4", "hold", frames=3, time_map="boomerang", clip=tmp_path / "clip.mp4")
    film = frames_of(tmp_path / "a.mp4")
    assert film.shape == (3, 3, 24, 64)
    assert torch.allclose(film[:, :, :, :32].mean(dim=(1, 2, 3)), torch.tensor([0.1, 0.9, 0.1]), atol=0.02)
    scene = Scene4D.load(saved)
    assert (film[0, :, :, 32:] - render(scene.at(0.0), scene.cameras[0], *SIZE).images.clamp(0, 1)).abs().mean() < 0.02


def test_the_clip_is_cropped_evenly(tmp_path):
    """Of a square clip with black bands above and below, a picture of 3:4 shows no band."""
    clip = torch.ones(2, 3, 80, 80)
    clip[:, :, :8] = clip[:, :, -8:] = 0
    write_video(tmp_path / "clip.mp4", clip, fps=4)
    assert clip_at(tmp_path / "clip.mp4", torch.tensor([1.0, 0.0, 0.4]), (30, 40)).float().div(255).min() > 0.9


def test_placing_a_scene_changes_no_picture(generator):
    """The scene in another world, seen by its cameras there, looks the same."""
    scene = build_scene()
    transform = rigid(quaternion_to_matrix(torch.randn(4, generator=generator)), torch.tensor([3.0, -1.0, 2.0]))
    placed = scene.placed(1.7, transform)
    for time, (here, there) in zip((0.0, 0.6), zip(scene.cameras, placed.cameras, strict=True), strict=True):
        before, after = (render(s.at(time), c, *SIZE) for s, c in ((scene, here), (placed, there)))
        assert torch.allclose(before.images, after.images, atol=1e-3)
        assert torch.allclose(1.7 * before.depths, after.depths, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": 1.5}, "times run from 0 to 1 over the clip, got 1.5"),
        ({"time_map": "0:0,1:1.2"}, "times run from 0 to 1 over the clip, got 1.2"),
        ({"time_map": "rewind"}, "unknown time map 'rewind': choose one of play, freeze, slow, bullet, boomerang"),
        ({"time_map": "play", "time": 0.5}, "a time belongs to the time maps freeze, slow, bullet, not to 'play'"),
        ({"background": "pink"}, "background 'pink': give black, white, or red,green,blue"),
        ({"background": "1,2,3"}, "background '1,2,3'"),
        ({"depth": "a.mp4"}, "a.mp4: named for two videos"),
        ({"motion": "a.png"}, "a.png: videos are written as"),
        ({"depth": "folder.mp4"}, "folder.mp4: a folder; give the video to write"),
        ({"clip": "none.mp4"}, "none.mp4: no such file or folder"),
    ],
)
def test_what_cannot_be_filmed(saved, tmp_path, options, message):
    (tmp_path / "folder.mp4").mkdir()
    before = sorted(tmp_path.iterdir())
    options = {k: tmp_path / v if k in ("depth", "motion", "clip") else v for k, v in options.items()}
    with pytest.raises(InputError, match=message):
        render_video(saved, tmp_path / "a.mp4", **options)
    assert sorted(tmp_path.iterdir()) == before


def test_all_films_are_written_or_none(saved, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("movies.novel_views.motion_pictures", fail)
    with pytest.raises(OSError, match="No space left"):
        render_video(saved, tmp_path / "a.mp4", frames=1, depth=tmp_path / "d.mp4", motion=tmp_path / "m.mp4")
    assert list(tmp_path.iterdir()) == [saved]


def test_the_command_takes_them_all(saved, tmp_path, capsys):
    write_video(tmp_path / "clip.mp4", torch.rand(3, 3, 24, 32), fps=4)
    line = ["render", str(saved), "--path", "spiral", "--time-map", "bullet", "--time", "0.3", "--frames", "3"]
    line += ["--background", "white", "--input", str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "a.mp4")]
    line += ["--depth", str(tmp_path / "d.mp4"), "--motion", str(tmp_path / "m.mkv")]
    assert cli.main(line) == 0
    assert capsys.readouterr().out.strip() == f"wrote {tmp_path / 'a.mp4'}, {tmp_path / 'd.mp4'}, {tmp_path / 'm.mkv'}"
    assert frames_of(tmp_path / "a.mp4").shape == (3, 3, 24, 64) and frames_of(tmp_path / "m.mkv").shape[0] == 3
