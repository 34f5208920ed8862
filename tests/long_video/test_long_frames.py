"""Frames read lazily, and clips that cannot be."""

import pytest
import torch

from movies import cli, outputs
from movies.camera_files import save_cameras
from movies.cameras import Cameras
from movies.clip import Clip
from movies.data.synthetic_walk import Walk
from movies.errors import InputError
from movies.long_video.frames import chunk_clips, open_frames
from movies.long_video.plan import Chunk, make_plan
from movies.model.config import ModelConfig
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import save_weights
from movies.video import read_frames, write_image, write_video

CONFIG = ModelConfig(
    image_size=28, embed_dim=32, num_heads=2, vit_depth=1, vit_num_heads=2, aa_depth=4, dpt_features=8,
    dpt_out_channels=(8, 8, 8, 8), dpt_layer_idx=(0, 1, 2, 3), camera_trunk_depth=1, camera_num_heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "walk.mp4"
    write_video(path, Walk(3, 20, (28, 28)).stream(list(range(20))), fps=8)
    return path


def test_chunks_are_read_as_the_clip_would_be(video):
    frames = open_frames(video, None)
    whole = Clip.load(video, 20).images
    chunks = [Chunk(0, tuple(range(first, first + 8))) for first in (0, 6, 12)]
    for clip, chunk in zip(chunk_clips(frames, chunks), chunks, strict=True):
        assert torch.equal(clip.images, whole[list(chunk.frames)])
        assert torch.equal(clip.times, torch.linspace(0, 1, 8)) and not clip.has_cameras
    every_third = open_frames(video, 7)
    assert torch.equal(next(chunk_clips(every_third, [Chunk(0, tuple(range(7)))])).images, Clip.load(video, 7).images)


def test_a_shared_frame_is_decoded_once_and_loops_go_back(video):
    frames, asked = open_frames(video, None), []

    class Counted:
        name, cameras = frames.name, frames.cameras

        def __len__(self):
            return len(frames)

        def stream(self, positions):
            for position, image in zip(positions, frames.stream(positions), strict=True):
                asked.append(position)
                yield image

    chunks = [Chunk(0, (0, 1, 2)), Chunk(0, (2, 3, 4)), Chunk(0, (6, 7, 8)), Chunk(0, (1, 2, 7, 8))]
    found = [clip.images for clip in chunk_clips(Counted(), chunks)]
    assert asked == [0, 1, 2, 3, 4, 6, 7, 8, 1, 2]  # 7 and 8 were still held
    assert torch.equal(found[3], read_frames(video, 20).images[[1, 2, 7, 8]])


def test_cameras_come_frame_by_frame(video, tmp_path):
    cameras = Cameras(torch.eye(4).repeat(20, 1, 1), torch.ones(20, 4))
    cameras.c2w[:, 0, 3] = torch.arange(20)
    save_cameras(cameras, tmp_path / "cameras.json", (28, 28))
    frames = open_frames(video, None, tmp_path / "cameras.json")
    clip = next(chunk_clips(frames, [Chunk(0, (4, 5, 6))]))
    assert clip.has_cameras and clip.cameras.c2w[:, 0, 3].tolist() == [4, 5, 6]


def test_a_corrupt_picture_in_the_middle_is_named_before_the_work(tmp_path):
    for k in range(6):
        write_image(tmp_path / f"{k}.png", torch.rand(3, 20, 20))
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"3\.png: cannot be read as a picture"):
        open_frames(tmp_path, None).thumbnails()


def test_a_video_with_a_corrupt_stretch_is_read_or_refused_in_a_line(video, tmp_path):
    """The decoder makes up for what it can; either all frames come or the number that does is said."""
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[start : start + 200] = bytes(200)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    try:
        frames = open_frames(broken, None)
        plan = make_plan(frames.thumbnails(), 8, 2)
        assert sum(len(clip.images) for clip in chunk_clips(frames, list(plan.chunks))) >= 16
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(("count", "message"), [(0, "at least 1, got 0"), (1, "at least 2 frames")])
def test_too_few_frames(video, count, message):
    with pytest.raises(InputError, match=message):
        open_frames(video, count)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    paths = [folder / "movies.safetensors", folder / "vggt.safetensors"]
    for model, path in zip((MoVieS(CONFIG), VGGT(CONFIG)), paths, strict=True):
        save_weights(model.eval(), path)
    return ["--weights", str(paths[0]), "--camera-weights", str(paths[1])]


def test_a_clip_of_one_chunk_is_what_it_was_without_chunks(video, weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outputs, "NOVEL_FRAMES", 4)
    short = tmp_path / "short.mp4"
    write_video(short, read_frames(video, 4).images, fps=4)
    for out, frames in (("all", "all"), ("plain", "4")):
        command = ["reconstruct", str(short), "--out", str(tmp_path / out), "--frames", frames, *weights]
        assert cli.main(command) == 0, capsys.readouterr().err
    names = ("scene.safetensors", "cameras.json", "novel_view.mp4", "input.mp4")
    for name in names:
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name


def test_a_long_clip_from_the_command_line(video, weights, tmp_path, capsys):
    command = ["reconstruct", str(video), "--out", str(tmp_path), "--frames", "all", "--chunk", "8", "--overlap", "3"]
    assert cli.main([*command, *weights, "--memory", "1K"]) == 2
    assert "need about" in capsys.readouterr().err
    assert cli.main([*command, *weights, "--memory", "8G"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("20 frames in 4 chunks of up to 8 with 3 joints; 1 shot; about")
    assert "about" in said.splitlines()[1] and "4 segments" in said
    assert (tmp_path / "scene" / "index.json").exists() and not (tmp_path / ".chunks").exists()
