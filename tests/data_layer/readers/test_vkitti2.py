"""Virtual KITTI 2 against a scene written as it lies on disk."""

import pytest
from layouts_static import write_vkitti2
from PIL import Image
from scene import assert_reads_back, make_scene

from movies.data.readers import READERS
from movies.errors import InputError


@pytest.fixture(scope="module")
def scene():
    return make_scene(fxfycxcy=(0.75, 0.95, 0.5, 0.5))


@pytest.mark.parametrize("split_roots", [False, True])
def test_reads_back_with_the_half_pixel(tmp_path, scene, split_roots):
    write_vkitti2(tmp_path, scene, split_roots=split_roots)
    left, right = READERS["vkitti2"](tmp_path)
    assert (left.name, right.name) == ("Scene01/clone/Camera_0", "Scene01/clone/Camera_1")
    assert not left.is_static
    assert_reads_back(left, scene, depth_rtol=0, depth_atol=0.00501, image_atol=0.04)
    difference = right.read([2])[0].cameras.centers - left.read([2])[0].cameras.centers
    assert difference.norm().item() == pytest.approx(1.0, abs=1e-5)


def test_frames_need_a_line_in_both_files(tmp_path, scene):
    write_vkitti2(tmp_path, scene)
    path = tmp_path / "Scene01/clone/intrinsic.txt"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("3 0 ")))
    assert [sequence.num_frames for sequence in READERS["vkitti2"](tmp_path)] == [5, 6]


def test_refusals(tmp_path, scene):
    write_vkitti2(tmp_path, scene)
    depth = tmp_path / "Scene01/clone/frames/depth/Camera_0/depth_00002.png"
    Image.new("L", (32, 24)).save(depth)
    sequence = READERS["vkitti2"](tmp_path)[0]
    with pytest.raises(InputError, match=r"depth_00002.png: a 16-bit grey picture is needed, this one is L"):
        sequence.read([2])
    image = tmp_path / "Scene01/clone/frames/rgb/Camera_0/rgb_00001.jpg"
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(InputError, match=r"rgb_00001.jpg: cannot be read as a picture"):
        sequence.read([1])
    Image.new("RGB", (16, 12)).save(image)
    with pytest.raises(InputError, match=r"rgb_00001.jpg: 16x12 pixels where the first frame gives 32x24"):
        sequence.read([1])
    with pytest.raises(InputError, match=r"sequences are named <scene>/<variation>/<camera>, got 'Scene01'"):
        READERS["vkitti2"](tmp_path, names=["Scene01"])[0].read([0])
