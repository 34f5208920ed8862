"""MatrixCity against a scene written as it lies on disk."""

import json

import pytest
from layouts_static import write_matrixcity, write_matrixcity_pose
from scene import assert_reads_back, make_scene

from movies.data.readers import READERS
from movies.errors import InputError

HALF = 2**-11  # a half float keeps 11 binary digits
STREET = {"fxfycxcy": (0.5, 0.5, 0.5, 0.5), "size": (24, 24)}
AERIAL = {"fxfycxcy": (0.9, 0.9 * 32 / 24, 0.5, 0.5)}


@pytest.fixture(scope="module", params=[AERIAL, STREET], ids=["aerial", "street"])
def scene(request):
    return make_scene(is_static=True, **request.param)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("depths", ["small_city_depth", "small_city_depth_float32"])
def test_reads_back_flat_and_nested(tmp_path, scene, nested, depths):
    write_matrixcity(tmp_path, scene, nested=nested, depths=depths)
    (sequence,) = READERS["matrixcity"](tmp_path)
    assert sequence.name == "small_city/aerial/train/block_1" and sequence.is_static
    assert_reads_back(sequence, scene, depth_rtol=HALF if depths == "small_city_depth" else 1e-6)


def test_paper_split_points_at_the_pictures_of_train(tmp_path, scene):
    write_matrixcity(tmp_path, scene)
    write_matrixcity_pose(tmp_path, scene)
    (sequence,) = READERS["matrixcity"](tmp_path, split="pose")
    assert sequence.name == "small_city/aerial/pose/block_A"
    assert_reads_back(sequence, scene, depth_rtol=HALF)


def test_frames_that_are_listed_or_stored_only_are_left_out(tmp_path, scene):
    place = write_matrixcity(tmp_path, scene)
    content = json.loads((place / "transforms.json").read_text())
    content["frames"] = content["frames"][1:]
    (place / "transforms.json").write_text(json.dumps(content))
    (place / "0005.png").unlink()
    sequence = READERS["matrixcity"](tmp_path)[0]
    assert sequence.num_frames == 4
    views, _ = sequence.read([0])
    assert views.images.equal(scene.views.images[1:2])


def test_refusals(tmp_path, scene):
    place = write_matrixcity(tmp_path, scene)
    write_matrixcity_pose(tmp_path, scene, climb="../../../../../elsewhere")
    with pytest.raises(InputError, match=r"leads out of this folder"):
        READERS["matrixcity"](tmp_path, split="pose")[0].read([0])
    with pytest.raises(InputError, match=r"no MatrixCity sequence lies there; expected <city>/<aerial"):
        READERS["matrixcity"](tmp_path, split="test")
    exr = tmp_path / "small_city_depth/aerial/train/block_1_depth/0000.exr"
    exr.write_bytes(exr.read_bytes()[:200])
    with pytest.raises(InputError, match=r"0000.exr: cannot be read as an EXR picture"):
        READERS["matrixcity"](tmp_path)[0].read([0])
    (place / "transforms.json").write_text('{"frames": []}')
    with pytest.raises(InputError, match=r"transforms.json: not a MatrixCity camera file \(KeyError"):
        READERS["matrixcity"](tmp_path, names=["small_city/aerial/../aerial/train/block_1"])[0].read([0])
