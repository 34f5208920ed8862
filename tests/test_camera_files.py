"""Camera files: each format against hand-made files, and one line for every malformed one."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from movies.camera_files import load_cameras, read_camera_file, save_cameras
from movies.cameras import Cameras
from movies.clip import Clip
from movies.errors import InputError
from movies.geometry import matrix_to_quaternion, quaternion_to_matrix, rigid, rigid_inverse
from movies.video import write_image, write_video

HEIGHT, WIDTH = 60, 80


@pytest.fixture
def cameras(generator) -> Cameras:
    rotation = quaternion_to_matrix(torch.randn(4, 4, generator=generator))
    c2w = rigid(rotation, torch.randn(4, 3, generator=generator))
    return Cameras(c2w, torch.tensor([0.9, 1.2, 0.51, 0.48]).repeat(4, 1))


def assert_same(a: Cameras, b: Cameras) -> None:
    assert torch.allclose(a.c2w, b.c2w, atol=1e-5)
    assert torch.allclose(a.fxfycxcy, b.fxfycxcy, atol=1e-5)


WRITTEN = [
    "a.json", "a.npz", "a.txt", "a.tum", "images.txt", "images.bin", "a_droid.npz", "a_sgd_cvd_hr.npz", "pose/a.npz",
]  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_round_trips_are_lossless(tmp_path, cameras, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if name.startswith("pose"):  # ViPE leaves the pictures' size to its video
        write_video(tmp_path / "rgb" / "a.mp4", torch.zeros(2, 3, HEIGHT, WIDTH), 5)
    save_cameras(cameras, tmp_path / name, (HEIGHT, WIDTH))
    again = load_cameras(tmp_path / name)
    assert (again.c2w - cameras.c2w).abs().max() < 1e-6
    assert (again.fxfycxcy - cameras.fxfycxcy).abs().max() < 1e-6
    assert not list(tmp_path.rglob("*.part*"))


def test_colmap_keeps_names_sizes_and_zoom(tmp_path, cameras):
    zoomed = Cameras(cameras.c2w, cameras.fxfycxcy * torch.linspace(1, 2, 4)[:, None])
    names = ("a 1.png", "a 2.png", "a 9.png", "a 10.png")
    for name in ("images.txt", "images.bin"):
        save_cameras(zoomed, tmp_path / name, (HEIGHT, WIDTH), names)
        again = read_camera_file(tmp_path / name)
        assert again.names == names and again.size == (HEIGHT, WIDTH)
        assert torch.allclose(again.cameras.fxfycxcy, zoomed.fxfycxcy, atol=1e-6)
    save_cameras(zoomed, tmp_path / "a.json", names=names)
    assert read_camera_file(tmp_path / "a.json").names == names
    save_cameras(zoomed, tmp_path / "a.json")
    assert read_camera_file(tmp_path / "a.json").names == ()  # they only number the frames


def test_what_cannot_be_saved(tmp_path, cameras):
    with pytest.raises(InputError, match=r"written as \.json"):
        save_cameras(cameras, tmp_path / "a.xyz")
    with pytest.raises(InputError, match=r"must have shape \[V\]"):
        save_cameras(cameras[0], tmp_path / "a.json")
    zoomed = Cameras(cameras.c2w, cameras.fxfycxcy * torch.linspace(1, 2, 4)[:, None])
    for name in ("a.tum", "a_droid.npz"):
        with pytest.raises(InputError, match="these cameras zoom"):
            save_cameras(zoomed, tmp_path / name, (HEIGHT, WIDTH))
    for name in ("images.bin", "a_droid.npz", "pose/a.npz"):
        with pytest.raises(InputError, match=r"holds pixels; give the images' size"):
            save_cameras(cameras, tmp_path / name)
    with pytest.raises(InputError, match=r"written as images\.bin"):
        save_cameras(cameras, tmp_path / "a.bin")
    with pytest.raises(InputError, match="2 names for 4 cameras"):
        save_cameras(cameras, tmp_path / "a.json", names=("a", "b"))
    assert not list(tmp_path.iterdir())


# --- transforms.json


def transforms(**frame) -> dict:
    return {"frames": [{"transform_matrix": torch.eye(4).tolist(), "file_path": "a.png", **frame}]}


def write_json(path, content) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_transforms_of_nerfstudio_have_opengl_axes_and_pixels(tmp_path):
    matrix = torch.eye(4)
    matrix[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    frames = [
        {"file_path": "images/frame_10.png", "transform_matrix": matrix.tolist()},
        {"file_path": "images/frame_9.png", "transform_matrix": torch.eye(4).tolist()},
    ]
    write_json(tmp_path / "transforms.json", {"w": 80, "h": 60, "fl_x": 40, "fl_y": 45, "cx": 41, "frames": frames})
    loaded = load_cameras(tmp_path)
    assert loaded.centers.tolist() == [[0, 0, 0], [1, 2, 3]]  # by name, so that they follow the video
    assert torch.equal(loaded.c2w[0].diagonal(), torch.tensor([1.0, -1, -1, 1]))
    assert torch.allclose(loaded.fxfycxcy[0], torch.tensor([0.5, 0.75, 41 / 80, 0.5]))


def test_transforms_with_a_field_of_view(tmp_path):
    write_json(tmp_path / "a.json", transforms(w=80, h=60) | {"camera_angle_x": float(np.pi / 2)})
    assert torch.allclose(load_cameras(tmp_path / "a.json").fxfycxcy[0], torch.tensor([0.5, 40 / 60, 0.5, 0.5]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"frames": [{"transf', "not whole JSON"),
        ({"frames": []}, "no list `frames`"),
        ({"frames": [3]}, "must be an object"),
        ({"frames": [{}]}, "no transform_matrix"),
        (transforms(transform_matrix=[[1, 2], [3, 4]]), r"must be 4x4, got \[2, 2\]"),
        (transforms(), "lacks intrinsics"),
        (transforms(fxfycxcy=[1, 2, 3]), "lacks intrinsics"),
        (transforms(w=80, h=60, fl_x=50, k1=0.1), "lens distortion"),
        (transforms(w=80, h=60, fl_x=50, camera_model="OPENCV_FISHEYE"), "lens distortion"),
        (transforms(w=80, h=60, fl_x=50, camera_model="EQUIRECTANGULAR"), "undistort the images first"),
        (transforms(w=80, h=60, fl_x=-50), "focal lengths must be above zero"),
        (transforms(w=80, h=60, fl_x=float("nan")), "camera 0 holds NaN"),
        (transforms(w=80, h=60, fl_x=50, transform_matrix=(2 * torch.eye(4)).tolist()), "is no rotation"),
    ],
)
def test_malformed_transforms(tmp_path, content, message):
    write_json(tmp_path / "a.json", content)
    with pytest.raises(InputError, match=message):
        load_cameras(tmp_path / "a.json")


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no such camera file"):
        load_cameras(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"holds no transforms\.json"):
        load_cameras(tmp_path)


# --- COLMAP


def colmap_images(cameras: Cameras) -> list[tuple[str, list[float], list[float]]]:
    """Names with world-to-camera quaternions and translations, in another order than their names'."""
    w2c = rigid_inverse(cameras.c2w)
    quats = matrix_to_quaternion(w2c[:, :3, :3])
    rows = [(f"f{i}.png", quats[i].tolist(), w2c[i, :3, 3].tolist()) for i in range(len(cameras))]
    return rows[::-1]


def pinhole(cameras: Cameras) -> list[float]:
    return (cameras.fxfycxcy[0] * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])).tolist()


def write_colmap_text(folder, cameras, model="PINHOLE", params=None, images=True):
    folder.mkdir(parents=True, exist_ok=True)
    numbers = " ".join(map(str, params or pinhole(cameras)))
    (folder / "cameras.txt").write_text(f"# Camera list\n1 {model} {WIDTH} {HEIGHT} {numbers}\n")
    lines = ["# Image list"]
    for i, (name, quat, translation) in enumerate(colmap_images(cameras) if images else []):
        lines += [f"{i + 1} {' '.join(map(str, quat + translation))} 1 {name}", "" if i % 2 else "1.5 2.5 -1"]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")


def write_colmap_binary(folder, cameras):
    folder.mkdir(parents=True, exist_ok=True)
    camera = struct.pack("<QiiQQ4d", 1, 1, 1, WIDTH, HEIGHT, *pinhole(cameras))
    (folder / "cameras.bin").write_bytes(camera)
    data = struct.pack("<Q", len(cameras))
    for i, (name, quat, translation) in enumerate(colmap_images(cameras)):
        data += struct.pack("<i7di", i + 1, *quat, *translation, 1) + name.encode() + b"\0"
        data += struct.pack("<Q", 1) + struct.pack("<ddq", 1.0, 2.0, -1)
    (folder / "images.bin").write_bytes(data)


@pytest.mark.parametrize("write", [write_colmap_text, write_colmap_binary])
@pytest.mark.parametrize("place", ["", "sparse/0"])
def test_colmap(tmp_path, cameras, write, place):
    write(tmp_path / place, cameras)
    assert_same(load_cameras(tmp_path), cameras)
    one_file = next((tmp_path / place).glob("images.*"))
    assert_same(load_cameras(one_file), cameras)


def test_colmap_simple_models(tmp_path, cameras):
    write_colmap_text(tmp_path, cameras, "SIMPLE_RADIAL", [50, 40, 30, 0])
    assert torch.allclose(load_cameras(tmp_path).fxfycxcy[0], torch.tensor([50 / 80, 50 / 60, 0.5, 0.5]))


def test_colmap_that_cannot_be_used(tmp_path, cameras):
    cases = [
        ("OPENCV", [50, 50, 40, 30, 0.1, 0, 0, 0], "lens distortion"),
        ("FOV", [50, 50, 40, 30, 0.1], "camera model FOV is not read"),
        ("PINHOLE", [50, 50], "has 4 parameters, got 2"),
        ("PINHOLE", ["x", 50, 40, 30], "damaged or cut short"),
    ]
    for model, params, message in cases:
        write_colmap_text(tmp_path, cameras, model, params)
        with pytest.raises(InputError, match=message):
            load_cameras(tmp_path)
    write_colmap_text(tmp_path, cameras, images=False)
    with pytest.raises(InputError, match="no registered images"):
        load_cameras(tmp_path)
    (tmp_path / "cameras.txt").unlink()
    with pytest.raises(InputError, match=r"cameras.txt: missing"):
        load_cameras(tmp_path)


def test_truncated_colmap_binary(tmp_path, cameras):
    write_colmap_binary(tmp_path, cameras)
    data = (tmp_path / "images.bin").read_bytes()
    (tmp_path / "images.bin").write_bytes(data[:100])
    with pytest.raises(InputError, match="damaged or cut short"):
        load_cameras(tmp_path)


# --- TUM and npz


def test_tum_against_a_line_by_hand(tmp_path):
    # half a turn about y: the camera looks back along -z
    (tmp_path / "a.txt").write_text("# comment\n# fxfycxcy 1 1.5 0.5 0.5\n0.1 1 2 3 0 1 0 0\n0.2 1 2 4 0 1 0 0\n")
    loaded = load_cameras(tmp_path / "a.txt")
    assert loaded.centers.tolist() == [[1, 2, 3], [1, 2, 4]]
    assert torch.allclose(loaded.c2w[0, :3, 2], torch.tensor([0.0, 0.0, -1.0]), atol=1e-6)
    assert loaded.fxfycxcy[1].tolist() == [1, 1.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("what is this\n", "no camera format that is known"),
        ("# fxfycxcy 1 1 .5 .5\n1 2 3\n", "needs 8 numbers a line"),
        ("0 1 2 3 0 0 0 1\n", "TUM knows no intrinsics"),
        ("", "needs 8 numbers a line"),
    ],
)
def test_malformed_text(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load_cameras(tmp_path / "a.txt")


def test_megasam(tmp_path, cameras):
    K = np.array([[72.0, 0, 40.8], [0, 72, 28.8], [0, 0, 1]])
    images = np.zeros((4, HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", cam_c2w=cameras.c2w.numpy(), intrinsic=K, images=images)
    assert_same(load_cameras(tmp_path / "a.npz"), cameras)
    np.savez(tmp_path / "b.npz", cam_c2w=cameras.c2w.numpy(), intrinsic=K)
    with pytest.raises(InputError, match="neither `images` nor `depths`"):
        load_cameras(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", cam_c2w=cameras.c2w.numpy(), intrinsic=K[:2], images=images)
    with pytest.raises(InputError, match=r"must have shape \[3, 3\]"):
        load_cameras(tmp_path / "c.npz")


def test_vipe(tmp_path, cameras):
    for name in ("pose", "intrinsics", "rgb"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "pose" / "a.npz", data=cameras.c2w.numpy(), inds=np.arange(4))
    with pytest.raises(InputError, match="keeps intrinsics apart"):
        load_cameras(tmp_path)
    intrinsics = np.tile(np.array([72.0, 72.0, 40.8, 28.8]), (4, 1))
    np.savez(tmp_path / "intrinsics" / "a.npz", data=intrinsics[:3])
    with pytest.raises(InputError, match=r"must have shape \[4, 4\], got \[3, 4\]"):
        load_cameras(tmp_path)
    np.savez(tmp_path / "intrinsics" / "a.npz", data=intrinsics)
    centred = load_cameras(tmp_path).fxfycxcy[0]
    assert torch.allclose(centred, torch.tensor([72 / 81.6, 72 / 57.6, 0.5, 0.5]))
    write_video(tmp_path / "rgb" / "a.mp4", torch.zeros(2, 3, HEIGHT, WIDTH), 5)
    assert_same(load_cameras(tmp_path), cameras)
    types = tmp_path / "intrinsics" / "a_camera.txt"
    types.write_text("0: PINHOLE\n1: MEI\n")
    with pytest.raises(InputError, match="frame 1 is MEI; undistort the images first"):
        load_cameras(tmp_path)
    types.unlink()
    np.savez(tmp_path / "pose" / "a.npz", data=cameras.c2w.numpy(), inds=np.array([0, 1, 3, 4]))
    with pytest.raises(InputError, match="no camera for frames 2; cut them"):
        load_cameras(tmp_path)
    np.savez(tmp_path / "pose" / "b.npz", data=cameras.c2w.numpy())
    with pytest.raises(InputError, match="holds 2 ViPE clips"):
        load_cameras(tmp_path)


def test_malformed_npz(tmp_path, cameras):
    path = tmp_path / "a.npz"
    save_cameras(cameras, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be read as npz"):
        load_cameras(path)
    np.savez(path, data=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="without pickle"):
        load_cameras(path)
    np.savez(path, poses=np.zeros(3))
    with pytest.raises(InputError, match="no cameras in it"):
        load_cameras(path)
    np.savez(path, C2W=np.zeros((3, 2)), fxfycxcy=np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"must have shape \[V, 4, 4\], got \[3, 2\]"):
        load_cameras(path)
    np.savez(path, C2W=np.zeros((0, 4, 4)), fxfycxcy=np.zeros((0, 4)))
    with pytest.raises(InputError, match="holds no cameras"):
        load_cameras(path)
    c2w = cameras.c2w.numpy().copy()
    c2w[2, 0, 3] = np.nan
    np.savez(path, C2W=c2w, fxfycxcy=cameras.fxfycxcy.numpy())
    with pytest.raises(InputError, match="camera 2 holds NaN"):
        load_cameras(path)


# --- cameras for the frames of a clip


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Four images of 60x80, named."""
    folder = tmp_path / "pictures"
    for i in range(4):
        write_image(folder / f"shot_{i}.png", torch.full((3, HEIGHT, WIDTH), i / 4))
    return folder


def test_frames_find_their_cameras_by_name(tmp_path, pictures, cameras):
    more = Cameras(torch.cat([cameras.c2w] * 2), torch.cat([cameras.fxfycxcy] * 2))
    names = [f"images/{kind}_{i}.jpg" for kind in ("other", "shot") for i in (3, 2, 1, 0)]
    save_cameras(more, tmp_path / "a.json", (HEIGHT, WIDTH), tuple(names))
    clip = Clip.load(pictures, 2, tmp_path / "a.json")  # frames 0 and 3
    assert torch.equal(clip.cameras.c2w, cameras.c2w[[3, 0]])


def test_frames_without_a_camera_are_named(tmp_path, pictures, cameras):
    save_cameras(cameras, tmp_path / "a.json", names=("shot_0.png", "shot_1.png", "shot_7.png", "shot_8.png"))
    with pytest.raises(InputError, match=r"no camera for shot_2.png, shot_3.png of the 4 frames read; it has 4, from"):
        Clip.load(pictures, 4, tmp_path / "a.json")


def test_cameras_of_another_resolution_fit_and_of_another_shape_do_not(tmp_path, pictures, cameras):
    save_cameras(cameras, tmp_path / "a.json", (7 * HEIGHT, 7 * WIDTH))
    assert torch.allclose(Clip.load(pictures, 4, tmp_path / "a.json").cameras.fxfycxcy, cameras.fxfycxcy)
    save_cameras(cameras, tmp_path / "a.json", (WIDTH, HEIGHT))
    with pytest.raises(InputError, match="for pictures of 60x80, the frames are 80x60, which is another shape"):
        Clip.load(pictures, 4, tmp_path / "a.json")
