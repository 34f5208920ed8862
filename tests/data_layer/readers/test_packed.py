"""Packed sequences read as the ones that they were made from, whatever reader those came from."""

import importlib.util
from pathlib import Path

import h5py
import pytest
import torch
from layouts_dynamic import write_dynamicreplica, write_pointodyssey, write_spring, write_stereo4d
from layouts_static import write_tartanair
from scene import make_scene

from movies.data.readers import READERS
from movies.data.readers import packed as packed_module
from movies.data.readers.packed import pack_sequence
from movies.errors import InputError

SCENE = make_scene()
TOOL = Path(__file__).parents[3] / "tools" / "pack_dataset.py"
WRITERS = {
    "tartanair": write_tartanair,
    "pointodyssey": write_pointodyssey,  # jpg: the bytes are kept
    "dynamicreplica": write_dynamicreplica,
    "spring": write_spring,
    "stereo4d": write_stereo4d,  # a video: its frames are kept
}


def assert_same_reading(one, other, indices):
    (views, tracks), (wanted, wanted_tracks) = one.read(indices), other.read(indices)
    assert torch.equal(views.images, wanted.images) and torch.equal(views.times, wanted.times)
    assert torch.equal(views.cameras.c2w, wanted.cameras.c2w)
    assert torch.equal(views.cameras.fxfycxcy, wanted.cameras.fxfycxcy)
    assert torch.equal(views.depth, wanted.depth) and torch.equal(views.depth_mask, wanted.depth_mask)
    assert torch.equal(tracks.visible, wanted_tracks.visible)
    assert torch.equal(tracks.points.nan_to_num(-9), wanted_tracks.points.nan_to_num(-9))


@pytest.mark.parametrize("reader", WRITERS)
def test_packed_content_is_equal(tmp_path, reader, monkeypatch):
    monkeypatch.setattr(packed_module, "FRAMES_AT_ONCE", 4)  # in two parts
    WRITERS[reader](tmp_path / "raw", SCENE)
    (sequence,) = READERS[reader](tmp_path / "raw")
    pack_sequence(sequence, tmp_path / "packed" / f"{sequence.name}.h5")
    (packed,) = READERS["packed"](tmp_path / "packed")
    for key in ("name", "num_frames", "is_static", "has_depth", "has_tracks"):
        assert getattr(packed, key) == getattr(sequence, key), key
    assert_same_reading(packed, sequence, list(range(6)))
    assert_same_reading(packed, sequence, [4, 0, 4])


@pytest.mark.parametrize("reader", ["pointodyssey", "stereo4d"])
def test_smaller_reading(tmp_path, reader):
    WRITERS[reader](tmp_path, SCENE)
    (sequence,) = READERS[reader](tmp_path)
    pack_sequence(sequence, tmp_path / "packed" / "one.h5")
    (packed,) = READERS["packed"](tmp_path / "packed", short_side=12)
    views, _ = packed.read([1])
    wanted, _ = READERS[reader](tmp_path, short_side=12)[0].read([1])
    assert views.size == (12, 16)
    # a video is made smaller by its decoder's own fixed-point arithmetic
    torch.testing.assert_close(views.images, wanted.images, rtol=0, atol=0.06)
    with pytest.raises(InputError, match="pack without `short_side`"):
        pack_sequence(READERS[reader](tmp_path, short_side=12)[0], tmp_path / "small.h5")


def test_synthetic_worlds_keep_one_choice_of_tracks(tmp_path):
    (sequence,) = READERS["synthetic"](num_sequences=1, num_frames=4, image_size=(16, 20), num_tracks=8)
    pack_sequence(sequence, tmp_path / "one.h5")
    views, tracks = sequence.read(range(4))
    packed_views, packed_tracks = READERS["packed"](tmp_path)[0].read([3, 1])
    assert torch.equal(packed_views.images, views.images[[3, 1]])
    assert torch.equal(packed_tracks.points, tracks.points[[3, 1]])


def test_the_tool_packs_what_is_not_there(tmp_path, monkeypatch, capsys):
    write_spring(tmp_path / "raw", SCENE)
    write_spring(tmp_path / "raw", SCENE, "train/0002")
    (tmp_path / "spring.toml").write_text('name = "spring"\nreader = "spring"\nroot = "raw"\n')
    out = tmp_path / "packed"
    for sentence in ("2 sequences packed, 0 were there", "1 sequences packed, 1 were there"):
        assert sentence in run_tool(monkeypatch, capsys, tmp_path / "spring.toml", "--out", out)
        (out / "train" / "0001.h5").unlink()
    assert not [path for path in out.rglob("*") if "part" in path.name]
    with pytest.raises(SystemExit) as stopped:
        run_tool(monkeypatch, capsys, tmp_path / "none.toml", "--out", out)
    assert stopped.value.code == 2 and "none.toml: no such file" in capsys.readouterr().err


def run_tool(monkeypatch, capsys, *arguments):
    spec = importlib.util.spec_from_file_location("pack_dataset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("sys.argv", ["pack_dataset.py", *map(str, arguments)])
    module.main()
    return capsys.readouterr().out


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="no packed sequence lies there; expected files <sequence>"):
        READERS["packed"](tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["depth"] = [1.0]
    with pytest.raises(InputError, match=r"other\.h5: not a packed sequence"):
        READERS["packed"](tmp_path)[0].read([0])
    write_spring(tmp_path / "raw", SCENE)
    path = tmp_path / "packed" / "one.h5"
    pack_sequence(READERS["spring"](tmp_path / "raw")[0], path)
    (packed,) = READERS["packed"](tmp_path / "packed")
    with pytest.raises(InputError, match=r"one has frames 0\.\.5, got \[-1\]"):
        packed.read([-1])
    with h5py.File(path, "a") as file:
        file["pictures"][:100] = 0
    with pytest.raises(InputError, match=r"one\.h5: the picture of frame 0 cannot be read"):
        packed.read([0])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"one\.h5: cannot be read as HDF5"):
        packed.read([1])


def test_tracks_that_change_their_number_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_module, "FRAMES_AT_ONCE", 3)
    folder = write_dynamicreplica(tmp_path, SCENE)
    fewer = {"traj_3d_world": torch.zeros(5, 3), "verts_inds_vis": torch.zeros(5, dtype=torch.bool)}
    for i in (3, 4, 5):
        torch.save(fewer, folder / "trajectories" / f"{i:06d}.pth")
    with pytest.raises(InputError, match=r"visible of frames 3\.\.5 have another shape than before"):
        pack_sequence(READERS["dynamicreplica"](tmp_path)[0], tmp_path / "one.h5")
    assert not list(tmp_path.glob("*.h5")) and not list(tmp_path.glob(".*"))
