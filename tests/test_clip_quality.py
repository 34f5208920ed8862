"""Warnings about clips: each fault made on purpose is found where it was made, and a good clip is left in peace."""

import torch
import torch.nn.functional as F

from movies.clip_quality import (
    active_areas,
    blur,
    blurred_frames,
    cuts,
    exposure_jumps,
    frame_warnings,
    geometry_warnings,
    shape_changes,
)
from movies.video import read_thumbnails, write_video


def shot(seed: int, count: int = 12, size: tuple[int, int] = (72, 128)) -> torch.Tensor:  # [N, 3, H, W]
    """A camera panning over a still picture of several scales, two pixels a frame."""
    generator = torch.Generator().manual_seed(seed)
    wide = (size[0], size[1] + 2 * count)
    layers = [torch.rand(1, 3, 3 * n, 4 * n, generator=generator) for n in (1, 3, 9)]
    picture = sum(F.interpolate(x, wide, mode="bicubic", align_corners=False) for x in layers) / 3
    picture = (picture + 0.15 * torch.rand(1, 3, *wide, generator=generator)).clamp(0, 1)[0]
    return torch.stack([picture[..., 2 * i : 2 * i + size[1]] for i in range(count)])


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    return F.interpolate(images.mean(dim=1, keepdim=True), (36, 64), mode="area")[:, 0]


def test_a_good_clip_gets_no_warning():
    images = shot(0)
    assert frame_warnings(images, thumbnails(images)) == []
    assert geometry_warnings(0.3, torch.full((12,), 0.9), 1.1) == []
    assert cuts(thumbnails(images)[:1]) == exposure_jumps(thumbnails(images)[:1], []) == []


def test_a_cut_is_found_and_is_not_an_exposure_jump():
    images = torch.cat([shot(1), shot(2)])
    small = thumbnails(images)
    assert cuts(small) == [12] and exposure_jumps(small, [12]) == []
    assert "cuts before frame 12: reconstruct one shot at a time" in frame_warnings(images, small)[0]


def test_an_exposure_jump_is_found_and_is_not_a_cut():
    images = shot(3)
    images[7:] *= 0.7
    small = thumbnails(images)
    assert cuts(small) == [] and exposure_jumps(small, []) == [7]
    assert "brightness jumps at frame 7" in frame_warnings(images, small)[0]


def test_blurred_frames_are_found():
    images = shot(4)
    images[[2, 5]] = F.avg_pool2d(images[[2, 5]], (1, 15), stride=1, padding=(0, 7), count_include_pad=False)
    assert blurred_frames(images) == [2, 5]
    assert "blurred: frame 2, 5 of the 12 read" in frame_warnings(images, thumbnails(images))[0]
    sharp, soft = blur(torch.stack([images[0], images[2]])).tolist()
    assert 0 <= sharp < soft <= 1


def test_black_bars_that_come_and_go():
    images = shot(5)
    images[6:, :, :9] = images[6:, :, -9:] = 0
    assert shape_changes(images) == [6]
    assert active_areas(images)[[0, 6]].tolist() == [[1, 1], [0.75, 1]]
    assert any("black bars come or go at frame 6" in text for text in frame_warnings(images, thumbnails(images)))
    assert active_areas(torch.zeros(1, 3, 4, 4)).tolist() == [[0, 0]]


def test_geometry_that_will_not_hold():
    few = geometry_warnings(0.001, torch.tensor([0.9, 0.1, 0.8]), 1.6)
    assert len(few) == 3
    assert "hardly moves (0.1 % of the scene's depth)" in few[0]
    assert "frame 1 of those read has only 10 % of its picture in common" in few[1]
    assert "depth is 1.60 times what the camera weights see" in few[2]
    assert geometry_warnings(0.3, torch.ones(3), float("nan")) == []


def test_thumbnails_of_a_video_and_of_a_folder(tmp_path):
    from movies.video import write_image

    images = shot(6, count=5)
    write_video(tmp_path / "a.mp4", images, 5)
    for i, image in enumerate(images):
        write_image(tmp_path / "folder" / f"{i}.png", image)
    for path in (tmp_path / "a.mp4", tmp_path / "folder"):
        small = read_thumbnails(path)
        assert small.shape == (5, 36, 64)
        assert (small - thumbnails(images)).abs().mean() < 0.06  # ffmpeg weighs the colours, and compresses
