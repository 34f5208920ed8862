"""Every evaluation layout against a scene written as it lies on disk; broken conventions do not read back."""

import numpy as np
import pytest
import torch
from layouts_evaluation import (
    write_dycheck,
    write_kitti_depth,
    write_kitti_odometry,
    write_nvidia,
    write_sintel,
    write_tapvid3d,
)
from scene import Scene, assert_same_cameras, broken

from movies.errors import InputError
from movies.evaluate.readers import READERS

CAMERAS = ("inverted", "opengl", "off_by_one")


def write(name: str, root, scene: Scene, held: Scene) -> None:
    writers = {"sintel": write_sintel, "kitti_depth": write_kitti_depth, "kitti_odometry": write_kitti_odometry}
    writers |= {"tapvid3d": write_tapvid3d, "nvidia": write_nvidia}
    if name == "dycheck":
        write_dycheck(root, scene, held)
    else:
        writers[name](root, scene)


def check(name: str, root, scene: Scene, held: Scene) -> None:
    """What the reader says is the scene."""
    (sequence,) = READERS[name](root)
    inputs = sequence.windows().inputs if hasattr(sequence, "windows") else range(sequence.num_frames)
    views, tracks = sequence.read(list(inputs))
    if name != "kitti_depth":
        assert_same_cameras(views.cameras, scene.views.cameras, views.size)
    images = views.images.clone()
    if name == "nvidia":
        assert (images[:, 0, 0, 0] * 255).round().tolist() == list(range(12))
        images[..., 0, 0] = scene.views.images[..., 0, 0]
    torch.testing.assert_close(images, scene.views.images, rtol=0, atol=0.04 if name == "tapvid3d" else 1e-6)
    if name in ("dycheck", "sintel", "kitti_depth"):
        known = scene.views.depth_mask
        assert (views.depth_mask | ~known).all()
        torch.testing.assert_close(views.depth[known], scene.views.depth[known], rtol=1e-5, atol=0.002)
    if name == "tapvid3d":
        seen = scene.tracks.visible.any(dim=0)
        assert torch.equal(tracks.visible, scene.tracks.visible[:, seen])
        torch.testing.assert_close(tracks.points, scene.tracks.points[:, seen], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["dycheck", "sintel", "kitti_depth", "kitti_odometry", "tapvid3d", "nvidia"])
def test_reads_back(tmp_path, scene, held, twelve, name):
    scene = twelve if name == "nvidia" else scene
    write(name, tmp_path, scene, held)
    check(name, tmp_path, scene, held)


@pytest.mark.parametrize("kind", CAMERAS)
@pytest.mark.parametrize("name", ["dycheck", "sintel", "kitti_odometry", "tapvid3d"])
def test_broken_cameras_are_caught(tmp_path, scene, held, name, kind):
    write(name, tmp_path, broken(scene, kind), held)
    with pytest.raises(AssertionError):
        check(name, tmp_path, scene, held)


@pytest.mark.parametrize("kind", ["inverted", "off_by_one"])
def test_broken_nvidia_cameras_are_caught(tmp_path, twelve, held, kind):
    write("nvidia", tmp_path, broken(twelve, kind), held)
    with pytest.raises(AssertionError):
        check("nvidia", tmp_path, twelve, held)


@pytest.mark.parametrize("kind", ["hundredths", "ray_distance"])
@pytest.mark.parametrize("name", ["dycheck", "sintel", "kitti_depth"])
def test_broken_depth_is_caught(tmp_path, scene, held, name, kind):
    write(name, tmp_path, broken(scene, kind), held)
    with pytest.raises(AssertionError):
        check(name, tmp_path, scene, held)


def test_dycheck_holds_back_the_other_camera_and_knows_what_is_covisible(tmp_path, scene, held):
    write_dycheck(tmp_path, scene, held)
    (sequence,) = READERS["dycheck"](tmp_path)
    windows = sequence.windows()
    assert windows.inputs == [0, 2, 4, 6, 8, 10] and windows.numbers[1:4] == [0, 1, 1]
    views, _ = sequence.read(windows.targets)
    assert_same_cameras(views.cameras, held.views.cameras, views.size)
    torch.testing.assert_close(views.times, scene.views.times)
    masks = sequence.read_masks(windows.targets)
    assert masks[..., :16].all() and not masks[..., 16:].any()


def test_nvidia_takes_the_cameras_in_turn(tmp_path, twelve):
    write_nvidia(tmp_path, twelve)
    (sequence,) = READERS["nvidia"](tmp_path)
    windows = sequence.windows()
    assert windows.inputs == [12 * t + t for t in range(12)] and len(windows.targets) == 12 * 11
    views, _ = sequence.read([1])  # camera 2 at time 0
    assert_same_cameras(views.cameras, twelve.views.cameras[1:2], views.size)
    assert sequence.read_masks([1])[0, :, :16].all()


def test_tapvid3d_asks_at_its_own_queries(tmp_path, scene):
    write_tapvid3d(tmp_path, scene)
    (sequence,) = READERS["tapvid3d"](tmp_path)
    with np.load(tmp_path / "adt/video1.npz") as file:
        arrays = dict(file)
    own = sequence.queries(range(6)) * torch.tensor([1, 32, 24])
    torch.testing.assert_close(own[:, [1, 2, 0]], torch.from_numpy(arrays["queries_xyt"]))
    later = sequence.queries([1, 3])  # the file's frame 0 does not go in: the first of these that sees the point
    _, tracks = sequence.read([1, 3])
    first = torch.where(tracks.visible.any(dim=0), tracks.visible.int().argmax(dim=0), 0)
    asked_at = torch.from_numpy(arrays["queries_xyt"][:, 2])
    assert torch.equal(later[asked_at == 0, 0].long(), first[asked_at == 0])
    assert (later[asked_at == 1, 0] == 0).all() and (later[asked_at == 3, 0] == 1).all()


def test_pstudio_stands_still(tmp_path, scene):
    write_tapvid3d(tmp_path, scene, "pstudio/video1")
    path = tmp_path / "pstudio/video1.npz"
    with np.load(path) as file:
        np.savez(path, **{key: value for key, value in file.items() if key != "extrinsics_w2c"})
    views, _ = READERS["tapvid3d"](tmp_path)[0].read([0, 5])
    assert torch.equal(views.cameras.c2w, torch.eye(4).expand(2, 4, 4))


def test_refusals(tmp_path, scene, held):
    write_sintel(tmp_path / "sintel", scene)
    (sequence,) = READERS["sintel"](tmp_path / "sintel")
    depth = tmp_path / "sintel/training/depth/alley_2/frame_0001.dpt"
    depth.write_bytes(depth.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"frame_0001.dpt: 3076 bytes do not hold 32x24 pixels"):
        sequence.read([0])
    depth.rename(depth.with_suffix(".kept"))
    depth.mkdir()
    with pytest.raises(InputError, match=r"frame_0001.dpt: cannot be read at all \("):
        sequence.read([0])
    depth.rmdir()
    depth.write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match=r"frame_0001.dpt: does not begin with Sintel's tag"):
        sequence.read([0])
    write_dycheck(tmp_path / "iphone", scene, held)
    camera = tmp_path / "iphone/apple/camera/0_00000.json"
    camera.write_text(camera.read_text().replace('"skew": 0.0', '"skew": 0.1'))
    with pytest.raises(InputError, match=r"0_00000.json: skew is not zero; undistort"):
        READERS["dycheck"](tmp_path / "iphone")[0].read([0])
    (tmp_path / "iphone/apple/scene.json").write_text('{"center": [0, 0, 0]}')
    with pytest.raises(InputError, match=r"scene.json: holds no 'scale'; it has center"):
        READERS["dycheck"](tmp_path / "iphone")[0].read([0])
    write_tapvid3d(tmp_path / "tapvid", scene)
    path = tmp_path / "tapvid/adt/video1.npz"
    with np.load(path) as file:
        np.savez(path, **(dict(file) | {"visibility": file["visibility"][:3]}))
    with pytest.raises(InputError, match=r"video1.npz: `images_jpeg_bytes` has shape \[6\], visibility asks for \[3\]"):
        READERS["tapvid3d"](tmp_path / "tapvid")[0].read([0])
    write_kitti_odometry(tmp_path / "kitti", scene)
    (tmp_path / "kitti/sequences/00/calib.txt").write_text("P0: 1 2\n")
    with pytest.raises(InputError, match=r"calib.txt: no line `P2:` with 12 numbers"):
        READERS["kitti_odometry"](tmp_path / "kitti")[0].read([0])
    write_kitti_depth(tmp_path / "drives", scene)
    next((tmp_path / "drives").glob("groundtruth_depth_gathered/*/*.png")).unlink()
    with pytest.raises(InputError, match=r"has 6 pictures and 5 depth maps"):
        READERS["kitti_depth"](tmp_path / "drives")[0].read([0])
    for name in ("dycheck", "nvidia", "sintel", "tapvid3d", "kitti_depth", "kitti_odometry"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="lies there; expected"):
            READERS[name](tmp_path / "empty")
