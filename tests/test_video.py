"""Frames in and out: every kind of clip, and one line for every kind of broken one."""

import numpy as np
import pytest
import torch
from PIL import Image

from movies import video
from movies.clip import Clip
from movies.errors import InputError


def gradient(count: int, height: int = 32, width: int = 48) -> torch.Tensor:  # [K, 3, H, W]
    """Smooth frames, each brighter than the one before, which survive a lossy codec."""
    ramp = torch.linspace(0.2, 0.6, width).expand(3, height, width)
    return torch.stack([ramp * 0.5 + 0.4 * k / max(count - 1, 1) for k in range(count)])


def save_images(folder, sizes, suffix=".png"):
    folder.mkdir()
    for i, (height, width) in enumerate(sizes):
        Image.fromarray(np.full((height, width, 3), 10 * i, dtype=np.uint8)).save(folder / f"frame{i}{suffix}")
    return folder


@pytest.mark.parametrize(("total", "wanted", "chosen"), [(9, 3, [0, 4, 8]), (3, 13, [0, 1, 2]), (5, 1, [0])])
def test_frames_are_chosen_evenly_with_both_ends(total, wanted, chosen):
    assert video.even_indices(total, wanted).tolist() == chosen


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_video_round_trip(tmp_path, suffix):
    frames = gradient(7)
    video.write_video(tmp_path / f"clip{suffix}", frames, fps=5)
    read = video.read_frames(tmp_path / f"clip{suffix}", 4)
    assert read.indices.tolist() == [0, 2, 4, 6] and read.num_total == 7 and read.fps == 5
    # 8-bit 4:2:0 video of a smooth picture: a few grey levels
    assert (read.images - frames[read.indices]).abs().max() < 0.03
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"clip{suffix}"]


def test_odd_sizes_grow_to_even_ones(tmp_path):
    video.write_video(tmp_path / "odd.mp4", iter(gradient(2, 31, 45)), fps=5)
    assert video.read_frames(tmp_path / "odd.mp4", 2).images.shape == (2, 3, 32, 46)
    assert video.video_size(tmp_path / "odd.mp4") == (32, 46)


def test_gif_is_read(tmp_path):
    pictures = [Image.fromarray(video.to_uint8(frame)) for frame in gradient(5)]
    pictures[0].save(tmp_path / "clip.gif", save_all=True, append_images=pictures[1:], duration=100)
    read = video.read_frames(tmp_path / "clip.gif", 3)
    assert read.indices.tolist() == [0, 2, 4] and read.images.shape == (3, 3, 32, 48)
    assert (read.images - gradient(5)[[0, 2, 4]]).abs().mean() < 0.03  # a palette of 256 colours


def test_folder_is_read_in_natural_order(tmp_path):
    folder = save_images(tmp_path / "frames", [(4, 6)] * 12)
    (folder / "notes.txt").write_text("not a picture")
    read = video.read_frames(folder, 12)
    assert torch.allclose(read.images[:, 0, 0, 0] * 255, 10 * torch.arange(12.0))


def test_pictures_of_every_mode(tmp_path):
    half = np.full((2, 3), 32768, dtype=np.uint16)
    Image.fromarray(half).save(tmp_path / "deep.png")
    Image.fromarray(np.full((2, 3), 128, dtype=np.uint8)).save(tmp_path / "grey.png")
    alpha = np.full((2, 3, 4), 255, dtype=np.uint8)
    alpha[..., 3] = 128
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    for name in ("deep", "grey", "alpha"):
        image = video.read_image(tmp_path / f"{name}.png")
        assert image.shape == (3, 2, 3)
        assert torch.allclose(image, torch.full((3, 2, 3), 0.5), atol=0.01), name


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert video.read_image(tmp_path / "turned.jpg").shape == (3, 6, 4)


def test_what_is_not_a_clip(tmp_path):
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    cases = {
        "nothing.mp4": "no such file or folder",
        "text.mp4": "cannot be read as a video",
        "empty": "holds no images",
        "notes.txt": "not a kind of video",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            video.read_frames(tmp_path / name, 3)
    with pytest.raises(InputError, match="at least 1, got 0"):
        video.read_frames(tmp_path, 0)


def test_truncated_video(tmp_path):
    video.write_video(tmp_path / "whole.mp4", torch.rand(20, 3, 64, 64), fps=5)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cut short"):
        video.read_frames(tmp_path / "half.mp4", 3)
    (tmp_path / "head.mp4").write_bytes(data[:200])
    with pytest.raises(InputError, match="cannot be read as a video"):
        video.read_frames(tmp_path / "head.mp4", 3)
    with pytest.raises(InputError, match="only 1 of 2 frames could be decoded"):
        list(video._decode(tmp_path / "whole.mp4", torch.tensor([19, 40])))


def test_frames_of_different_sizes(tmp_path):
    folder = save_images(tmp_path / "frames", [(4, 6), (4, 8)])
    with pytest.raises(InputError, match=r"frame0.png is 6x4, frame1.png is 8x4"):
        video.read_frames(folder, 5)


def test_broken_picture(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        video.read_image(tmp_path / "bad.png")
    with pytest.raises(InputError, match="no such file"):
        video.read_image(tmp_path / "none.png")


def test_two_frames_make_a_clip_and_one_does_not(tmp_path):
    assert len(Clip.load(save_images(tmp_path / "two", [(4, 6)] * 2)).views) == 2
    with pytest.raises(InputError, match="at least 2 frames, this one has 1"):
        Clip.load(save_images(tmp_path / "one", [(4, 6)]))


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="videos are written as"):
        video.write_video(tmp_path / "clip.txt", gradient(2), 5)
    with pytest.raises(InputError, match="at least one frame"):
        video.write_video(tmp_path / "clip.mp4", [], 5)
    with pytest.raises(InputError, match="pictures are written as"):
        video.write_image(tmp_path / "picture.txt", gradient(1)[0])
    assert not list(tmp_path.iterdir())


def test_a_failing_encoder_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "ffmpeg_path", lambda: "false")
    with pytest.raises(OSError, match=r"clip.mp4: the video cannot be written"):
        video.write_video(tmp_path / "clip.mp4", gradient(2), 5)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_video(tmp_path):
    def frames():
        yield from gradient(2)
        raise KeyboardInterrupt

    (tmp_path / "clip.mp4").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        video.write_video(tmp_path / "clip.mp4", frames(), 5)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"] and (tmp_path / "clip.mp4").read_text() == "old"


def test_image_round_trip(tmp_path, generator):
    image = torch.rand(3, 5, 7, generator=generator)
    video.write_image(tmp_path / "a.png", image)
    assert (video.read_image(tmp_path / "a.png") - image).abs().max() <= 0.5 / 255 + 1e-6


def test_false_color_runs_from_blue_to_red_and_masks_black():
    values = torch.linspace(1, 100, 200).reshape(1, 10, 20)
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[0, 0, 0] = False
    colors = video.false_color(values, mask, logarithmic=True)
    assert colors.shape == (1, 3, 10, 20) and colors.isfinite().all()
    assert (colors[0, :, 0, 0] == 0).all()
    assert colors[0, 2, 1, 0] > colors[0, 0, 1, 0] and colors[0, 0, -1, -1] > colors[0, 2, -1, -1]
    nothing = video.false_color(values, torch.zeros_like(mask))
    assert (nothing == 0).all()


def test_motion_picture_is_grey_where_nothing_moves():
    motion = torch.zeros(2, 4, 4, 3)
    assert (video.motion_picture(motion) == 0.5).all()
    motion[0, 0, 0, 0] = 1.0
    assert video.motion_picture(motion)[0, 0, 0, 0] == 1.0


def test_contact_sheet_holds_every_row():
    sheet = video.contact_sheet({"a": gradient(7), "b": gradient(2)}, columns=3)
    assert sheet.shape == (3, 2 * (32 + 16), 3 * (48 + 2) + 2)
