"""DynamicReplica: PyTorch3D cameras, half floats in PNG bits, trajectories in files, annotations of all files."""

import gzip
import json

import pytest
import torch
from layouts_dynamic import write_dynamicreplica
from scene import assert_reads_back, make_scene

from movies.data.readers import READERS
from movies.data.readers.files import jgz_entries
from movies.errors import InputError

SCENE = make_scene((0.8, 0.9, 0.53, 0.48))
HALF = {"depth_rtol": 2**-11, "has_tracks": True}


@pytest.mark.parametrize("intrinsics", ["ndc_isotropic", "ndc_norm_image_bounds"])
@pytest.mark.parametrize("split", ["valid", ""])
def test_reads_back(tmp_path, split, intrinsics):
    write_dynamicreplica(tmp_path, SCENE, split=split, intrinsics=intrinsics)
    (sequence,) = READERS["dynamicreplica"](tmp_path, split=split or "train")  # of both views, the left one
    assert sequence.name == f"{split}/009850-3_obj_source_left".removeprefix("/")
    assert sequence.has_depth and sequence.has_tracks
    assert_reads_back(sequence, SCENE, **HALF)
    assert_reads_back(sequence, SCENE, (5, 0, 0), **HALF)


def test_two_sequences_and_one_that_is_not_on_the_disk(tmp_path):
    write_dynamicreplica(tmp_path, SCENE, "a-3_obj")
    entries = list(jgz_entries(tmp_path / "train" / "frame_annotations_train.jgz"))
    write_dynamicreplica(tmp_path, SCENE, "b-3_obj")
    entries += list(jgz_entries(tmp_path / "train" / "frame_annotations_train.jgz"))
    absent = json.loads(json.dumps(entries).replace("a-3_obj", "c-3_obj"))
    write_annotations(tmp_path, [*entries, *absent])
    sequences = READERS["dynamicreplica"](tmp_path)
    assert [s.name for s in sequences] == ["train/a-3_obj_source_left", "train/b-3_obj_source_left"]
    assert_reads_back(sequences[1], SCENE, **HALF)


def write_annotations(root, entries):
    with gzip.open(root / "train" / "frame_annotations_train.jgz", "wt") as file:
        json.dump(entries, file)


def test_missing_files(tmp_path):
    folder = write_dynamicreplica(tmp_path, SCENE)
    next(folder.glob("images/*-0001.png")).unlink()
    next(folder.glob("depths/*_0003.geometric.png")).unlink()
    next(folder.glob("trajectories/000004.pth")).unlink()
    (sequence,) = READERS["dynamicreplica"](tmp_path)
    views, tracks = sequence.read(range(sequence.num_frames))
    kept = [0, 2, 3, 4, 5]
    assert torch.equal(views.images, SCENE.views.images[kept]) and not views.depth_mask[2].any()
    assert tracks.points[3].isnan().all() and not tracks.visible[3].any()
    torch.testing.assert_close(tracks.points[[0, 1, 2, 4]], SCENE.tracks.points[[0, 2, 3, 5]])


def test_a_sequence_without_trajectories(tmp_path):
    folder = write_dynamicreplica(tmp_path, SCENE)
    file = tmp_path / "train" / "frame_annotations_train.jgz"
    write_annotations(tmp_path, [{**entry, "trajectories": None} for entry in jgz_entries(file)])
    (sequence,) = READERS["dynamicreplica"](tmp_path)
    assert sequence.folder == folder and not sequence.has_tracks
    assert_reads_back(sequence, SCENE, depth_rtol=2**-11)


def test_annotations_longer_than_one_chunk_come_whole(tmp_path):
    entries = [{"number": i, "text": "x" * 997, "nested": [[i]]} for i in range(3000)]
    for separators in ((", ", ": "), (",\n ", ":")):
        with gzip.open(tmp_path / "list.jgz", "wt") as file:
            json.dump(entries, file, separators=separators)
        assert list(jgz_entries(tmp_path / "list.jgz")) == entries


def entry_with(**changes):
    return lambda entry: {**entry, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda entry: {"sequence_name": "x"},
            r"not a DynamicReplica annotation \(KeyError\('camera_name'",
        ),
        (
            lambda entry: {**entry, "viewpoint": {**entry["viewpoint"], "intrinsics_format": "pixels"}},
            "intrinsics_format 'pixels' is not one of ndc_isotropic, ndc_norm_image_bounds",
        ),
        (
            lambda entry: {**entry, "image": {**entry["image"], "size": [24, 32 + entry["frame_number"]]}},
            "several image sizes",
        ),
        (lambda entry: {**entry, "depth": {"path": "../../../etc/passwd"}}, "leads out of this folder"),
        (lambda entry: {**entry, "image": {**entry["image"], "size": [25, 32]}}, "32x24 pixels where the first frame"),
    ],
)
def test_annotations_that_do_not_fit(tmp_path, change, message):
    write_dynamicreplica(tmp_path, SCENE)
    write_annotations(tmp_path, [change(e) for e in jgz_entries(tmp_path / "train" / "frame_annotations_train.jgz")])
    with pytest.raises(InputError, match=message) as raised:
        READERS["dynamicreplica"](tmp_path)[0].read([0])
    assert str(tmp_path) in str(raised.value) or "intrinsics_format" in message


def test_annotations_cut_short_or_not_a_list(tmp_path):
    write_dynamicreplica(tmp_path, SCENE)
    file = tmp_path / "train" / "frame_annotations_train.jgz"
    whole = gzip.decompress(file.read_bytes())
    for content, message in (
        (file.read_bytes()[:-300], "cannot be read as a gzipped JSON list"),
        (gzip.compress(whole[:-100]), "the list breaks off"),
        (gzip.compress(b"{}"), "a gzipped JSON list is needed"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=rf"frame_annotations_train\.jgz: {message}"):
            READERS["dynamicreplica"](tmp_path)


def test_trajectories_that_are_not_tensors(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").touch, ())

    folder = write_dynamicreplica(tmp_path, SCENE)
    (sequence,) = READERS["dynamicreplica"](tmp_path)
    file = folder / "trajectories" / "000000.pth"
    points, visible = SCENE.tracks.points[0], SCENE.tracks.visible[0]
    for content, message in (
        (Trap(), "cannot be read as tensors"),
        ({"traj_3d_world": points}, "holds no tensors traj_3d_world and verts_inds_vis"),
        ({"traj_3d_world": points, "verts_inds_vis": visible[1:]}, "does not fit verts_inds_vis"),
        ({"traj_3d_world": points[1:], "verts_inds_vis": visible[1:]}, "do not have the same tracks"),
    ):
        torch.save(content, file)
        with pytest.raises(InputError, match=message):
            sequence.read([0, 1])
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match=r"000000\.pth: cannot be read as tensors"):
        sequence.read([0])
    assert not (tmp_path / "executed").exists()


def test_a_name_that_the_annotations_do_not_know(tmp_path):
    write_dynamicreplica(tmp_path, SCENE)
    (sequence,) = READERS["dynamicreplica"](tmp_path, names=["train/other_left"])
    with pytest.raises(InputError, match=r"frame_annotations_train\.jgz: names no sequence other_left"):
        sequence.read([0])
    with pytest.raises(InputError, match="leads out of this folder"):
        READERS["dynamicreplica"](tmp_path, names=["../other_left"])
