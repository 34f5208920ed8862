"""TartanAir against a scene written as it lies on disk."""

import numpy as np
import pytest
import torch
from layouts_static import write_tartanair
from scene import assert_reads_back, make_scene

from movies.data.readers import READERS
from movies.errors import InputError


@pytest.fixture(scope="module")
def scene():
    return make_scene(fxfycxcy=(0.5, 320 / 480, 0.5, 0.5), is_static=True)


def test_reads_back_and_the_sky_is_out(tmp_path, scene):
    write_tartanair(tmp_path, scene)
    (sequence,) = READERS["tartanair"](tmp_path)
    assert sequence.name == "office/Easy/P001" and sequence.is_static and sequence.has_depth
    assert 0 < scene.views.depth_mask.float().mean() < 1
    assert_reads_back(sequence, scene)


def test_half_precision_and_jpg(tmp_path, scene):
    write_tartanair(tmp_path, scene, dtype=np.float16, images=".jpg")
    assert_reads_back(READERS["tartanair"](tmp_path)[0], scene, depth_rtol=2**-11, image_atol=0.04)


def test_the_right_camera_is_an_option(tmp_path, scene):
    other = make_scene(fxfycxcy=(0.5, 320 / 480, 0.5, 0.5), is_static=True, seed=23)
    write_tartanair(tmp_path, other)
    assert READERS["tartanair"](tmp_path)[0].num_frames == 6
    with pytest.raises(InputError, match="no TartanAir sequence"):
        READERS["tartanair"](tmp_path, camera="right")
    (tmp_path / "right").mkdir()
    write_tartanair(tmp_path / "right", scene, camera="right")
    assert_reads_back(READERS["tartanair"](tmp_path / "right", camera="right")[0], scene)
    with pytest.raises(InputError, match="camera must be left or right, got 'middle'"):
        READERS["tartanair"](tmp_path, camera="middle")


def test_doubled_folders_and_gaps_in_the_numbers(tmp_path, scene):
    for folder in ("office/office/Hard/P009", "ocean/Easy/P000", "ocean/Easy/P004"):
        write_tartanair(tmp_path, scene, folder)
    names = [sequence.name for sequence in READERS["tartanair"](tmp_path)]
    assert names == ["ocean/Easy/P000", "ocean/Easy/P004", "office/office/Hard/P009"]


def test_missing_files_leave_out_frame_or_depth(tmp_path, scene):
    place = write_tartanair(tmp_path, scene)
    (place / "image_left/000001_left.png").unlink()
    (place / "depth_left/000002_left_depth.npy").unlink()
    views, _ = READERS["tartanair"](tmp_path)[0].read([0, 1, 2])
    assert torch.equal(views.images, scene.views.images[[0, 2, 3]])
    assert views.depth_mask.flatten(1).any(dim=1).tolist() == [True, False, True]


def test_smaller_pictures_have_the_same_cameras(tmp_path, scene):
    write_tartanair(tmp_path, scene)
    views, _ = READERS["tartanair"](tmp_path, short_side=12)[0].read([4])
    whole = scene.views.select([4]).resized(12, 16)
    torch.testing.assert_close(views.images, whole.images, rtol=0, atol=1e-5)
    torch.testing.assert_close(views.depth, whole.depth)
    torch.testing.assert_close(views.cameras.fxfycxcy, whole.cameras.fxfycxcy)


def test_refusals(tmp_path, scene):
    place = write_tartanair(tmp_path, scene)
    (sequence,) = READERS["tartanair"](tmp_path)
    with pytest.raises(InputError, match=r"has frames 0\.\.5, got \[6\]"):
        sequence.read([6])
    np.save(place / "depth_left/000000_left_depth.npy", np.ones((12, 16), np.float32))
    with pytest.raises(InputError, match=r"000000_left_depth.npy: depth of 16x12 pixels for images of 32x24"):
        sequence.read([0])
    np.save(place / "depth_left/000000_left_depth.npy", np.ones((24, 32), np.int32))
    with pytest.raises(InputError, match=r"000000_left_depth.npy: depth must be floating-point metres, this is int32"):
        sequence.read([0])
    lines = (place / "pose_left.txt").read_text().splitlines()
    (place / "pose_left.txt").write_text("\n".join([*lines[:-1], "0 0 0 0 0 0 0"]))
    with pytest.raises(InputError, match=r"pose_left.txt: a quaternion is zero"):
        READERS["tartanair"](place.parents[2], names=["office/Easy/../Easy/P001"])[0].read([0])
