"""Every exported file, read back by a reader that is not ours or by the format's published layout, is the scene."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from worlds import SIZE, TIMES, build_scene

from movies.cameras import Cameras
from movies.export import EXPORTERS, export
from movies.gaussians import Gaussians
from movies.scene import Scene4D

NUM_STATIC, NUM_MOVING = 722, 150
SH_C0 = 0.28209479177387814


@pytest.fixture(scope="module")
def scene() -> Scene4D:
    return build_scene(NUM_STATIC, NUM_MOVING)


def write(scene: Scene4D, format: str, folder: Path, times: tuple[float, ...] = (0.4,)) -> list[Path]:
    return export(scene, format, folder / f"scene{EXPORTERS[format].suffix}", torch.tensor(times))


def at(scene: Scene4D, time: float) -> dict[str, np.ndarray]:
    """The Gaussians that a file should hold."""
    g = scene.at(time)
    quats = g.quats / g.quats.norm(dim=-1, keepdim=True)
    return {
        "means": g.means.numpy(),
        "quats": quats.numpy(),
        "scales": g.scales.numpy(),
        "opacities": g.opacities.numpy(),
        "colors": g.colors.numpy(),
    }


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The largest angle between rotations [N, 4], in degrees."""
    a, b = (x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (a, b))
    sine = np.minimum(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1)) / 2
    return float(np.degrees(4 * np.arcsin(sine.max())))


def matching(read: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`wanted` in the order of `read`, for formats that sort; every Gaussian is there once."""
    index = cKDTree(wanted["means"]).query(read["means"])[1]
    assert len(set(index)) == len(index) == len(wanted["means"])
    return {name: x[index] for name, x in wanted.items()}


def read_ply(path: Path) -> dict[str, np.ndarray]:
    plyfile = pytest.importorskip("plyfile")
    vertex = plyfile.PlyData.read(path)["vertex"]
    table = np.stack([vertex[p.name] for p in vertex.properties], axis=1)
    names = [p.name for p in vertex.properties]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[9:] == ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    return {
        "means": table[:, :3],
        "colors": 0.5 + SH_C0 * table[:, 6:9],
        "opacities": 1 / (1 + np.exp(-table[:, 9])),
        "scales": np.exp(table[:, 10:13]),
        "quats": table[:, 13:],
    }


def test_ply_holds_the_scene(scene, tmp_path):
    (path,) = write(scene, "ply", tmp_path)
    read, wanted = read_ply(path), at(scene, 0.4)
    np.testing.assert_array_equal(read["means"], wanted["means"])
    np.testing.assert_array_equal(read["quats"], wanted["quats"])
    for name in ("scales", "opacities", "colors"):
        np.testing.assert_allclose(read[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_a_ply_per_time_differs_where_things_move_and_nowhere_else(scene, tmp_path):
    paths = write(scene, "ply", tmp_path, TIMES)
    assert [path.name for path in paths] == ["scene_0000.ply", "scene_0001.ply", "scene_0002.ply"]
    assert sorted(tmp_path.iterdir()) == paths
    first, *later = [read_ply(path) for path in paths]
    num_static = len(scene.static)
    for read in later:
        for name in first:
            np.testing.assert_array_equal(read[name][:num_static], first[name][:num_static])
        assert (read["means"][num_static:] != first["means"][num_static:]).any(axis=1).all()


def test_compressed_ply_holds_the_scene_within_its_steps(scene, tmp_path):
    plyfile = pytest.importorskip("plyfile")
    (path,) = write(scene, "compressed-ply", tmp_path)
    data, wanted = plyfile.PlyData.read(path), at(scene, 0.4)
    assert [element.name for element in data.elements] == ["chunk", "vertex"]  # an empty third one stops readers
    words = {p.name: data["vertex"][p.name] for p in data["vertex"].properties}
    chunk = np.arange(len(words["packed_color"])) // 256

    def unpacked(word: str, bits: tuple[int, ...]) -> np.ndarray:
        shifts = [sum(bits[k + 1 :]) for k in range(len(bits))]
        return np.stack(
            [(words[word] >> s & (1 << b) - 1) / ((1 << b) - 1) for s, b in zip(shifts, bits, strict=True)], axis=1
        )

    def within(fractions: np.ndarray, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        low, high = (
            np.stack([data["chunk"][f"{side}_{name}"] for name in names], axis=1)[chunk] for side in ("min", "max")
        )
        return low + fractions * (high - low), high - low

    means, span = within(unpacked("packed_position", (11, 10, 11)), ["x", "y", "z"])
    logs, log_span = within(unpacked("packed_scale", (11, 10, 11)), ["scale_x", "scale_y", "scale_z"])
    rgba = unpacked("packed_color", (8, 8, 8, 8))
    colors, _ = within(rgba[:, :3], ["r", "g", "b"])
    three = (unpacked("packed_rotation", (2, 10, 10, 10))[:, 1:] - 0.5) * np.sqrt(2)
    quats = restored(words["packed_rotation"] >> 30, three)
    wanted = matching({"means": means}, wanted)
    assert (np.abs(means - wanted["means"]) <= 0.51 * span / 1023 + 1e-6).all()
    assert (np.abs(logs - np.log(wanted["scales"])) <= 0.51 * log_span / 1023 + 1e-5).all()
    assert np.abs(colors - wanted["colors"]).max() < 0.51 / 255
    assert np.abs(rgba[:, 3] - wanted["opacities"]).max() < 0.51 / 255
    assert angle(quats, wanted["quats"]) < 0.3


def test_compressed_ply_of_gaussians_that_coincide(tmp_path):
    same = build_scene(2, 0).static.select(torch.zeros(300, dtype=torch.long))
    scene = Scene4D(same, Gaussians.empty(1), torch.zeros(1), *cameraless())
    (path,) = write(scene, "compressed-ply", tmp_path)
    assert b"nan" not in path.read_bytes()[:1000]
    chunks = np.frombuffer(path.read_bytes().split(b"end_header\n", 1)[1][: 2 * 72], "<f4")
    assert np.isfinite(chunks).all()


def cameraless() -> tuple[Cameras, torch.Tensor]:
    return Cameras(torch.zeros(0, 4, 4), torch.zeros(0, 4)), torch.zeros(0)


def restored(largest: np.ndarray, three: np.ndarray) -> np.ndarray:  # [N], [N, 3] -> [N, 4]
    """Rotations from the place of their largest component and the other three."""
    quats = np.empty((len(three), 4))
    for row, place, others in zip(quats, largest, three, strict=True):
        row[np.arange(4) != place] = others
        row[place] = np.sqrt(max(0.0, 1 - (others**2).sum()))
    return quats


def test_splat_holds_the_scene_within_a_byte(scene, tmp_path):
    (path,) = write(scene, "splat", tmp_path)
    data = path.read_bytes()
    assert len(data) == 32 * len(scene)
    floats = np.frombuffer(data, "<f4").reshape(-1, 8)
    rows = np.frombuffer(data, "u1").reshape(-1, 32).astype(np.float64)
    read = {"means": floats[:, :3]}
    wanted = matching(read, at(scene, 0.4))
    np.testing.assert_array_equal(read["means"], wanted["means"])
    np.testing.assert_array_equal(floats[:, 3:6], wanted["scales"])
    assert np.abs(rows[:, 24:27] / 255 - wanted["colors"]).max() < 0.51 / 255
    assert np.abs(rows[:, 27] / 255 - wanted["opacities"]).max() < 0.51 / 255
    assert angle((rows[:, 28:] - 128) / 128, wanted["quats"]) < 2.0  # half a step of 1/128 in four components


def test_spz_holds_the_scene_within_its_steps(scene, tmp_path):
    (path,) = write(scene, "spz", tmp_path)
    data, wanted = gzip.decompress(path.read_bytes()), at(scene, 0.4)
    magic, version, num, degree, bits, flags, reserved = struct.unpack("<4sIIBBBB", data[:16])
    assert (magic, version, num, degree, flags, reserved) == (b"NGSP", 3, len(scene), 0, 0, 0)
    sizes = {"means": 9, "opacities": 1, "colors": 3, "scales": 3, "quats": 4}
    assert len(data) == 16 + num * sum(sizes.values())
    columns, start = {}, 16
    for name, size in sizes.items():
        columns[name] = np.frombuffer(data, "u1", num * size, start).reshape(num, size)
        start += num * size
    bytes24 = np.pad(columns["means"].reshape(num, 3, 3), ((0, 0), (0, 0), (1, 0)))  # the sign bit on top
    means = (np.ascontiguousarray(bytes24).view("<i4")[..., 0] >> 8) / 2**bits * [1, -1, -1]
    assert np.abs(means - wanted["means"]).max() <= 0.51 * 2.0**-bits
    assert np.abs(columns["opacities"][:, 0] / 255 - wanted["opacities"]).max() < 0.51 / 255
    f_dc = (columns["colors"] / 255 - 0.5) / 0.15
    assert np.abs(0.5 + SH_C0 * f_dc - wanted["colors"]).max() < 0.51 / 255 * SH_C0 / 0.15
    assert np.abs(columns["scales"] / 16 - 10 - np.log(wanted["scales"])).max() <= 0.51 / 16
    word = np.ascontiguousarray(columns["quats"]).view("<u4")[:, 0]
    parts = np.stack([word >> shift & 1023 for shift in (20, 10, 0)], axis=1).astype(np.int64)
    three = np.where(parts >> 9, -1, 1) * (parts & 511) / 511 * np.sqrt(0.5)
    xyzw = restored(word >> 30, three)
    assert angle(xyzw[:, [3, 0, 1, 2]] * [1, 1, -1, -1], wanted["quats"]) < 0.3


def test_the_same_scene_gives_the_same_bytes(scene, tmp_path):
    for format, exporter in EXPORTERS.items():
        first, second = tmp_path / f"a{exporter.suffix}", tmp_path / f"b{exporter.suffix}"
        for path in (first, second):
            export(scene, format, path, torch.tensor([0.5]))
        assert first.read_bytes() == second.read_bytes(), format


def test_npz_holds_everything(scene, tmp_path):
    (path,) = write(scene, "npz", tmp_path, TIMES)
    with np.load(path, allow_pickle=False) as data:
        assert data["times"].tolist() == pytest.approx(TIMES)
        assert data["image_size"].tolist() == [SIZE, SIZE]
        np.testing.assert_array_equal(data["static_means"], scene.static.means)
        np.testing.assert_array_equal(data["moving_scales"], scene.moving.scales)
        np.testing.assert_array_equal(data["camera_c2w"], scene.cameras.c2w)
        np.testing.assert_array_equal(data["camera_fxfycxcy"], scene.cameras.fxfycxcy)
        np.testing.assert_array_equal(data["view_times"], scene.view_times)


class Glb:
    """The JSON and the arrays of a binary glTF."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, size, length, kind = struct.unpack("<4sIII4s", data[:20])
        assert (magic, version, size, kind) == (b"glTF", 2, len(data), b"JSON")
        self.json = json.loads(data[20 : 20 + length])
        binary, kind = struct.unpack("<I4s", data[20 + length : 28 + length])
        assert kind == b"BIN\0" and length % 4 == binary % 4 == 0
        self.data = data[28 + length :]

    def array(self, index: int) -> np.ndarray:
        accessor = self.json["accessors"][index]
        view = self.json["bufferViews"][accessor["bufferView"]]
        kind = {5126: "<f4", 5121: "u1"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        assert view["byteOffset"] % 4 == 0
        return np.frombuffer(self.data, kind, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)

    def splats(self, mesh: int) -> dict[str, np.ndarray]:
        (primitive,) = self.json["meshes"][mesh]["primitives"]
        assert primitive["mode"] == 0 and primitive["extensions"]["KHR_gaussian_splatting"]["kernel"] == "ellipse"
        found = {k.removeprefix("KHR_gaussian_splatting:"): self.array(i) for k, i in primitive["attributes"].items()}
        return {
            "means": found["POSITION"] * [1, -1, -1],
            "quats": found["ROTATION"][:, [3, 0, 1, 2]] * [1, 1, -1, -1],
            "scales": found["SCALE"],
            "opacities": found["OPACITY"][:, 0],
            "colors": 0.5 + SH_C0 * found["SH_DEGREE_0_COEF_0"],
        }


def test_glb_of_one_time_holds_the_scene_and_its_cameras(scene, tmp_path):
    (path,) = write(scene, "glb", tmp_path)
    glb, wanted = Glb(path), at(scene, 0.4)
    assert glb.json["extensionsUsed"] == ["KHR_gaussian_splatting"] and "animations" not in glb.json
    for name, x in glb.splats(0).items():
        np.testing.assert_allclose(x, wanted[name], rtol=1e-6, atol=1e-6)
    views = [node for node in glb.json["nodes"] if "camera" in node]
    assert len(views) == len(scene.cameras)
    center = scene.cameras.c2w[1, :3, 3].numpy() * [1, -1, -1]
    np.testing.assert_allclose(views[1]["translation"], center, atol=1e-6)
    x, y, z, w = views[1]["rotation"]
    looks = -np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])  # along its own -z
    np.testing.assert_allclose(looks, scene.cameras.c2w[1, :3, 2].numpy() * [1, -1, -1], atol=1e-6)
    lens = glb.json["cameras"][0]["perspective"]
    assert 0.5 / np.tan(lens["yfov"] / 2) == pytest.approx(0.9) and lens["aspectRatio"] == 1


def test_glb_of_several_times_is_a_flip_book_with_tracks(scene, tmp_path):
    (path,) = write(scene, "glb", tmp_path, TIMES)
    glb = Glb(path)
    names = [node["name"] for node in glb.json["nodes"]]
    assert names[:5] == ["static", "moving_0000", "moving_0001", "moving_0002", "tracks"]
    np.testing.assert_allclose(glb.splats(2)["means"], scene.moving.means[1], atol=1e-6)
    animation = glb.json["animations"][0]
    shown = np.stack([glb.array(s["output"])[:, 0] for s in animation["samplers"]])
    np.testing.assert_array_equal(shown, np.eye(3))
    assert [channel["target"]["node"] for channel in animation["channels"]] == [1, 2, 3]
    (lines,) = glb.json["meshes"][4]["primitives"]
    ends = glb.array(lines["attributes"]["POSITION"]).reshape(NUM_MOVING, 2, 2, 3)
    np.testing.assert_allclose(ends[:, 0, 0] * [1, -1, -1], scene.moving.means[0], atol=1e-6)
    np.testing.assert_allclose(ends[:, 1, 1] * [1, -1, -1], scene.moving.means[2], atol=1e-6)
    assert lines["mode"] == 1


def test_scenes_without_cameras_or_without_moving_gaussians_are_written_in_every_format(scene, tmp_path):
    still = Scene4D(scene.static, Gaussians.empty(2), torch.tensor([0.0, 1.0]), *cameraless())
    swarm = Scene4D(Gaussians.empty(), scene.moving, scene.times, *cameraless())
    for number, odd in enumerate((still, swarm)):
        for format in EXPORTERS:
            folder = tmp_path / f"{number}-{format}"
            assert all(path.stat().st_size for path in write(odd, format, folder, (0.0, 1.0)))


def test_gaussians_that_no_renderer_draws_are_left_out_at_all_times(scene, tmp_path):
    means = scene.moving.means.clone()
    means[1, 3, 0] = float("nan")
    quats = scene.static.quats.clone()
    quats[5] = 0
    broken = Scene4D(
        Gaussians(scene.static.means, quats, scene.static.scales, scene.static.opacities, scene.static.colors),
        Gaussians(means, *(getattr(scene.moving, n) for n in ("quats", "scales", "opacities", "colors"))),
        *(scene.times, scene.cameras, scene.view_times),
    )
    paths = write(broken, "splat", tmp_path, TIMES)
    assert {path.stat().st_size for path in paths} == {32 * (len(scene) - 2)}
