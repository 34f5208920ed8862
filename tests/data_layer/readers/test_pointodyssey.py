"""PointOdyssey: half floats, stale tracks, files that count from one, sequences without tracks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from layouts_dynamic import save_picture, write_pointodyssey
from scene import assert_reads_back, make_scene

from movies.clip import Tracks
from movies.data.readers import READERS
from movies.data.readers.frames import frames_of
from movies.errors import InputError

STEP = 1000 / 65535
SCENE = make_scene((0.8, 0.9, 0.52, 0.49))


def forgotten(scene):
    """Every third track is not known in the second frame."""
    points, visible = scene.tracks.points.clone(), scene.tracks.visible.clone()
    points[2, ::3], visible[2, ::3] = torch.nan, False
    return replace(scene, tracks=Tracks(points, visible))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_back(tmp_path, save):
    scene = forgotten(SCENE)
    write_pointodyssey(tmp_path, scene, save=save)
    (sequence,) = READERS["pointodyssey"](tmp_path)
    assert sequence.name == "train/cab_h_bench_3rd" and sequence.has_tracks and sequence.has_depth
    assert not sequence.is_static
    close = {"depth_rtol": 1e-6, "depth_atol": 0.51 * STEP, "has_tracks": True}
    assert_reads_back(sequence, scene, image_atol=0.03, **close)
    assert_reads_back(sequence, scene, (5, 1, 1), image_atol=0.03, **close)


def test_half_floats_and_png(tmp_path):
    write_pointodyssey(tmp_path, SCENE, tracks_dtype=np.float16, suffix="png")
    (sequence,) = READERS["pointodyssey"](tmp_path)
    views, tracks = sequence.read([0, 3])
    assert torch.equal(views.images, SCENE.views.images[[0, 3]]) and tracks.points.dtype == torch.float32
    torch.testing.assert_close(tracks.points, SCENE.tracks.points[[0, 3]], rtol=2**-10, atol=0)


def test_files_that_count_from_one_go_by_their_order(tmp_path):
    folder = write_pointodyssey(tmp_path, SCENE, suffix="png")
    for kind, file in (("rgbs", "rgb_{:05d}.png"), ("depths", "depth_{:05d}.png")):
        for i in reversed(range(len(SCENE))):
            (folder / kind / file.format(i)).rename(folder / kind / file.format(i + 1))
    (sequence,) = READERS["pointodyssey"](tmp_path)
    assert_reads_back(sequence, SCENE, depth_atol=0.51 * STEP, has_tracks=True)


def test_missing_frames_go_by_their_numbers(tmp_path):
    folder = write_pointodyssey(tmp_path, SCENE, suffix="png")
    (folder / "rgbs" / "rgb_00001.png").unlink()
    (folder / "depths" / "depth_00003.png").unlink()
    (sequence,) = READERS["pointodyssey"](tmp_path)
    views, tracks = sequence.read(range(sequence.num_frames))
    kept = [0, 2, 3, 4, 5]
    assert torch.equal(views.images, SCENE.views.images[kept])
    torch.testing.assert_close(views.times, SCENE.views.times[kept])
    torch.testing.assert_close(tracks.points, SCENE.tracks.points[kept], rtol=0, atol=1e-4)
    assert not views.depth_mask[2].any() and views.depth_mask[[0, 1, 3, 4]].flatten(1).any(dim=1).all()
    (folder / "rgbs" / "rgb_00005.png").rename(folder / "rgbs" / "rgb_00006.png")
    frames_of.cache_clear()
    with pytest.raises(InputError, match="5 files for 6 frames"):
        READERS["pointodyssey"](tmp_path)[0].read([0])


def test_empty_tracks_and_no_annotations(tmp_path):
    empty = replace(SCENE, tracks=Tracks.empty(len(SCENE)))
    write_pointodyssey(tmp_path, empty, "val/gso_in_big", suffix="png")
    save_picture(tmp_path / "train" / "ani_new_2" / "rgbs" / "rgb_00000.jpg", SCENE.pixels(0))
    (sequence,) = READERS["pointodyssey"](tmp_path, split="val")
    assert sequence.name == "val/gso_in_big" and not sequence.has_tracks
    assert_reads_back(sequence, empty, depth_atol=0.51 * STEP)


def test_refusals(tmp_path):
    with pytest.raises(InputError, match=r"no PointOdyssey sequence .* expected <split>"):
        READERS["pointodyssey"](tmp_path)
    with pytest.raises(InputError, match="leads out of this folder"):
        READERS["pointodyssey"](tmp_path, split="../elsewhere")
    folder = write_pointodyssey(tmp_path, SCENE, suffix="png")
    (sequence,) = READERS["pointodyssey"](tmp_path)
    with pytest.raises(InputError, match=r"has frames 0\.\.5, got \[6\]"):
        sequence.read([6])
    save_picture(folder / "depths" / "depth_00000.png", np.zeros((24, 31), np.uint16))
    with pytest.raises(InputError, match=r"depth_00000\.png: depth of 31x24 pixels for images of 32x24"):
        sequence.read([0])
    whole = (folder / "anno.npz").read_bytes()
    (folder / "anno.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"anno\.npz: `trajs_3d` cannot be read"):
        sequence.read([1])
    (folder / "anno.npz").unlink()
    with pytest.raises(InputError, match=r"anno\.npz: no such file"):
        sequence.read([1])


def test_pickled_objects_are_refused_and_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").touch, ())

    folder = write_pointodyssey(tmp_path, SCENE, suffix="png")
    np.savez(folder / "anno.npz", extrinsics=np.array([Trap()] * 6, dtype=object))
    (sequence,) = READERS["pointodyssey"](tmp_path)
    with pytest.raises(InputError, match=r"anno\.npz: `extrinsics` holds pickled objects, which are never loaded"):
        sequence.read([0])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"intrinsics": np.zeros((6, 3, 3))}, r"anno\.npz: has no array `extrinsics`"),
        ({"extrinsics": np.asfortranarray(np.zeros((6, 4, 4)))}, "`extrinsics` is stored column by column"),
        ({"extrinsics": np.zeros((6, 4, 4)), "intrinsics": np.zeros((4, 3, 3))}, r"has shape \[4, 3, 3\], frame 5"),
    ],
)
def test_annotations_that_do_not_fit(tmp_path, arrays, message):
    folder = write_pointodyssey(tmp_path, SCENE, suffix="png")
    np.savez(folder / "anno.npz", **arrays)
    with pytest.raises(InputError, match=message):
        READERS["pointodyssey"](tmp_path)[0].read([0])
