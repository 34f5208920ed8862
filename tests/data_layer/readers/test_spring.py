"""Spring: disparity on twice the grid, a changing focal length, three kinds of sky, a test split without poses."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from layouts_dynamic import save_picture, write_spring
from scene import assert_reads_back, make_scene

from movies.data.readers import READERS
from movies.errors import InputError

ZOOM = [[0.8 + 0.1 * i, 1.1 + 0.1 * i, 0.5, 0.52] for i in range(6)]
SCENE = make_scene(ZOOM)


@pytest.mark.parametrize("skymap", [True, False])
@pytest.mark.parametrize("prefix", ["", "spring/"])
def test_reads_back(tmp_path, prefix, skymap):
    write_spring(tmp_path, SCENE, f"{prefix}train/0001", skymap)
    test = write_spring(tmp_path, SCENE, f"{prefix}test/0003", skymap)
    (test / "cam_data" / "extrinsics.txt").unlink()
    shutil.rmtree(test / "disp1_left")
    (sequence,) = READERS["spring"](tmp_path)
    assert sequence.name == f"{prefix}train/0001" and sequence.has_depth and not sequence.has_tracks
    assert_reads_back(sequence, SCENE)
    assert_reads_back(sequence, SCENE, (4, 1))


def test_missing_frames_keep_their_cameras_and_times(tmp_path):
    folder = write_spring(tmp_path, SCENE)
    (folder / "frame_left" / "frame_left_0002.png").unlink()
    (folder / "disp1_left" / "disp1_left_0004.dsp5").unlink()
    (sequence,) = READERS["spring"](tmp_path)
    views, _ = sequence.read(range(sequence.num_frames))
    kept = [0, 2, 3, 4, 5]
    torch.testing.assert_close(views.cameras.fxfycxcy, SCENE.views.cameras.fxfycxcy[kept])
    torch.testing.assert_close(views.times, SCENE.views.times[kept])
    assert not views.depth_mask[2].any() and views.depth_mask[3].any()


def test_smaller_images_take_the_nearest_depth(tmp_path):
    write_spring(tmp_path, SCENE)
    (sequence,) = READERS["spring"](tmp_path, short_side=12)
    views, _ = sequence.read([3])
    assert views.size == (12, 16)
    assert torch.equal(views.depth_mask[0], SCENE.views.depth_mask[3, 1::2, 1::2])
    torch.testing.assert_close(views.depth[0], SCENE.views.depth[3, 1::2, 1::2] * views.depth_mask[0])


def test_refusals(tmp_path):
    folder = write_spring(tmp_path, SCENE)
    (sequence,) = READERS["spring"](tmp_path)
    assert sequence.num_frames == 6
    disparity = folder / "disp1_left" / "disp1_left_0001.dsp5"
    with h5py.File(disparity, "w") as file:
        file.create_dataset("disparity", data=np.ones((24, 32)))
    with pytest.raises(InputError, match=r"disp1_left_0001\.dsp5: of shape \[24, 32\], twice the images' \[24, 32\]"):
        sequence.read([0])
    with h5py.File(disparity, "w") as file:
        file.create_dataset("flow", data=np.ones((24, 32)))
    with pytest.raises(InputError, match=r"disp1_left_0001\.dsp5: holds no data set 'disparity'; it has flow"):
        sequence.read([0])
    disparity.write_bytes((folder / "disp1_left" / "disp1_left_0002.dsp5").read_bytes()[:500])
    with pytest.raises(InputError, match=r"disp1_left_0001\.dsp5: cannot be read as HDF5"):
        sequence.read([0])
    image = folder / "frame_left" / "frame_left_0002.png"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(InputError, match=r"frame_left_0002\.png: cannot be read as a picture"):
        sequence.read([1])
    save_picture(image, np.zeros((24, 30, 3), np.uint8))
    with pytest.raises(InputError, match=r"frame_left_0002\.png: 30x24 pixels where the first frame gives 32x24"):
        sequence.read([1])


def test_cameras_that_do_not_fit(tmp_path):
    folder = write_spring(tmp_path, SCENE)
    np.savetxt(folder / "cam_data" / "intrinsics.txt", np.ones((5, 4)))
    with pytest.raises(InputError, match=r"6 lines in extrinsics\.txt, 5 in intrinsics\.txt"):
        READERS["spring"](tmp_path)[0].read([0])
    with pytest.raises(InputError, match="no Spring sequence lies there"):
        READERS["spring"](folder / "maps")
