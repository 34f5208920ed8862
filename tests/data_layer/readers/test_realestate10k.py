"""RealEstate10K against a scene written as it lies on disk."""

import h5py
import numpy as np
import pytest
import torch
from layouts_static import RE10K_SCALE, timestamp, write_realestate10k, write_realestate10k_depth
from scene import assert_reads_back, make_scene

from movies.data.readers import READERS
from movies.errors import InputError

CLIP = "0123456789abcdef"


@pytest.fixture(scope="module")
def scene():
    return make_scene(is_static=True)


@pytest.mark.parametrize("folder", ["frames", "frames/train"])
def test_cameras_and_pictures_read_back(tmp_path, scene, folder):
    write_realestate10k(tmp_path, scene, frames=folder)
    (sequence,) = READERS["realestate10k"](tmp_path)
    assert sequence.name == CLIP and sequence.is_static
    assert not sequence.has_depth and not sequence.has_tracks
    assert_reads_back(sequence, scene, has_depth=False)


def test_jpg_in_a_folder_elsewhere(tmp_path, scene):
    write_realestate10k(tmp_path / "cameras", scene, split="test", frames="../pictures", suffix=".jpg")
    (sequence,) = READERS["realestate10k"](tmp_path / "cameras", split="test", frames=str(tmp_path / "pictures"))
    assert_reads_back(sequence, scene, has_depth=False, image_atol=0.04)


def test_depth_and_scale_make_it_metric(tmp_path, scene):
    write_realestate10k(tmp_path, scene, scale=RE10K_SCALE)
    write_realestate10k_depth(tmp_path, scene)
    (sequence,) = READERS["realestate10k"](tmp_path, depths="depths")
    assert_reads_back(sequence, scene)


def test_depth_of_half_the_size_is_taken_at_its_pixels(tmp_path, scene):
    write_realestate10k(tmp_path, scene)
    write_realestate10k_depth(tmp_path, scene)
    path = tmp_path / "depths" / f"{CLIP}.h5"
    with h5py.File(path, "a") as file:
        del file["depth"]
        file["depth"] = scene.depth[:, 1::2, 1::2].astype(np.float16)
    views, _ = READERS["realestate10k"](tmp_path, depths="depths")[0].read([3])
    expected = torch.from_numpy(scene.depth[3, 1::2, 1::2]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(views.depth[0], expected, rtol=1e-3, atol=0)


def test_frames_without_picture_are_left_out_and_leave_a_gap_in_time(tmp_path, scene):
    write_realestate10k(tmp_path, scene)
    (tmp_path / "frames/train" / CLIP / f"{timestamp(1)}.png").unlink()
    (sequence,) = READERS["realestate10k"](tmp_path)
    assert sequence.num_frames == 5
    views, _ = sequence.read([0, 1])
    assert torch.equal(views.images[1], scene.views.images[2])
    assert views.times.tolist() == pytest.approx([0.0, 0.4])


def test_clips_whose_video_has_gone_are_not_listed(tmp_path, scene):
    write_realestate10k(tmp_path, scene)
    (tmp_path / "train" / "fedcba9876543210.txt").write_text("https://www.youtube.com/watch?v=x\n")
    assert [s.name for s in READERS["realestate10k"](tmp_path)] == [CLIP]


def test_refusals(tmp_path, scene):
    write_realestate10k(tmp_path, scene)
    write_realestate10k_depth(tmp_path, scene)
    path = tmp_path / "depths" / f"{CLIP}.h5"
    with h5py.File(path, "a") as file:
        del file["depth"]
        file["depth"] = np.ones((6, 24, 24), np.float16)
    with pytest.raises(InputError, match=rf"{CLIP}.h5: depth of shape \[24, 24\] for images of 32x24"):
        READERS["realestate10k"](tmp_path, depths="depths")[0].read([0])
    text = tmp_path / "train" / f"{CLIP}.txt"
    text.write_text(text.read_text().replace(" 0 0 ", " 0 ", 1))
    with pytest.raises(InputError, match=rf"{CLIP}.txt: line 2 has 18 columns, 19 are needed"):
        READERS["realestate10k"](tmp_path, frames="frames/train/../train")[0].read([0])
    with pytest.raises(InputError, match="leads out of this folder"):
        READERS["realestate10k"](tmp_path, names=["../../secret"])


@pytest.mark.parametrize("change", ["no timestamps", "too few timestamps", "scale"])
def test_broken_depth_files(tmp_path, scene, change):
    write_realestate10k(tmp_path, scene)
    write_realestate10k_depth(tmp_path, scene)
    with h5py.File(tmp_path / "depths" / f"{CLIP}.h5", "a") as file:
        if change == "scale":
            file["scale"][()] = 0.0
        else:
            del file["timestamps"]
            if change == "too few timestamps":
                file["timestamps"] = np.array([1, 2])
    message = {
        "no timestamps": "holds no data set 'timestamps'; it has depth, scale",
        "too few timestamps": "2 timestamps for 6 depth maps",
        "scale": "`scale` must be positive",
    }[change]
    with pytest.raises(InputError, match=message):
        READERS["realestate10k"](tmp_path, depths="depths")[0].read([0])
