"""Estimated depth and cameras brought to one unit with RealEstate10K's: the factors are found despite outliers."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts_static import RE10K_SCALE, timestamp, write_realestate10k
from scene import make_scene

from movies.data.readers import READERS
from movies.geometry import look_at, transform_points

SCENE = make_scene(is_static=True)
UNIT = 0.3  # of the estimates, in metres
CLIP = "0123456789abcdef"
MOVED = look_at(torch.tensor([3.0, -1.0, 2.0]), torch.zeros(3), torch.tensor([0.1, 1.0, 0.0])).double().numpy()


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("align_re10k", Path(__file__).parents[3] / "tools/align_re10k.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def estimates(kind="depth", outliers=0.25, noise=0.0, points=True):
    """What a user has: another world frame and unit, one bad camera, points of which some are wrong."""
    rng = np.random.default_rng(0)
    c2w = MOVED @ SCENE.c2w
    c2w[:, :3, 3] /= UNIT
    c2w[4, :3, 3] += [1, 2, -1]
    depth = SCENE.depth.astype(np.float64) / UNIT
    with np.errstate(divide="ignore"):
        maps = {"depth": (depth - 0.7) / 1.7, "disparity": (1 / depth + 0.02) / 0.4}[kind]
    maps = np.where(depth > 0, maps, 0)
    frames, row, column = (index[::7].numpy() for index in SCENE.views.depth_mask.nonzero(as_tuple=True))
    frames, row, column = frames[frames != 4], row[frames != 4], column[frames != 4]
    seen = SCENE.views.points()[frames, row, column].double()
    world = transform_points(torch.from_numpy(MOVED), seen).numpy() / UNIT
    wrong = rng.random(len(world)) < outliers
    world[wrong] += rng.normal(size=(wrong.sum(), 3)) * 8 / UNIT
    arrays = {"timestamps": np.array([timestamp(i) for i in range(6)]), "c2w": c2w[:, :3], kind: maps}
    return arrays | ({"points": world, "point_frames": frames} if points else {})


def write(tmp_path, arrays, clip=CLIP):
    write_realestate10k(tmp_path, SCENE, clip, scale=RE10K_SCALE)
    (tmp_path / "estimates").mkdir(exist_ok=True)
    np.savez(tmp_path / "estimates" / f"{clip}.npz", **arrays)


def run(tool, monkeypatch, capsys, root):
    monkeypatch.setattr("sys.argv", ["align_re10k.py", str(root), str(root / "estimates"), str(root / "aligned")])
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    said = capsys.readouterr()
    return stopped.value.code, said.out + said.err


@pytest.mark.parametrize("kind", ["depth", "disparity"])
def test_depth_and_cameras_come_to_one_unit(tool, tmp_path, monkeypatch, capsys, kind):
    write(tmp_path, estimates(kind))
    code, said = run(tool, monkeypatch, capsys, tmp_path)
    assert code == 0 and said.startswith(f"{CLIP}: 6 frames, cameras x ")
    (sequence,) = READERS["realestate10k"](tmp_path, depths=str(tmp_path / "aligned"))
    views, _ = sequence.read(range(6))
    known = SCENE.views.depth_mask & (SCENE.views.depth < 100)
    ratio = (views.depth * UNIT / SCENE.views.depth)[known]
    assert views.depth_mask[known].all() and not views.depth_mask[SCENE.views.depth == 0].any()
    assert (ratio - 1).abs().max() < 2e-3  # half floats, and a fit beside outliers
    torch.testing.assert_close(views.cameras.centers * UNIT, SCENE.views.cameras.centers, rtol=1e-3, atol=1e-3)
    header, line = (tmp_path / "aligned" / "report.tsv").read_text().splitlines()
    report = dict(zip(header.split("\t"), line.split("\t"), strict=True))
    assert float(report["camera_scale"]) == pytest.approx(RE10K_SCALE / UNIT, rel=1e-3)
    scale, shift = {"depth": (1.7, 0.7), "disparity": (0.4, -0.02)}[kind]
    assert float(report["depth_scale"]) == pytest.approx(scale, rel=1e-3)
    assert float(report["depth_shift"]) == pytest.approx(shift, abs=1e-3)


def test_robust_line_ignores_a_third(tool):
    rng = np.random.default_rng(1)
    x = rng.random(300) + 1
    y = 3 * x - 0.5
    y[:100] += rng.random(100) * 50
    assert tool.robust_line(x, y) == pytest.approx((3, -0.5), abs=1e-4)


def test_depth_of_one_network_needs_no_points(tool, tmp_path, monkeypatch, capsys):
    arrays = estimates(points=False) | {"depth": SCENE.depth / UNIT}
    write(tmp_path, arrays)
    code, said = run(tool, monkeypatch, capsys, tmp_path)
    assert code == 0 and "depth x 1 + 0 (nan% at 0)" in said
    views, _ = READERS["realestate10k"](tmp_path, depths=str(tmp_path / "aligned"))[0].read([0])
    torch.testing.assert_close(views.depth * UNIT, SCENE.views.depth[:1], rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c2w": np.tile(np.eye(4), (6, 1, 1))}, "the cameras do not move"),
        ({"c2w": np.random.default_rng(0).normal(size=(6, 4, 4))}, "the cameras do not fit those of the text file"),
        ({"timestamps": np.arange(6)}, r"timestamp 0 is not in .*\.txt"),
        ({"timestamps": np.arange(5)}, "timestamps, c2w and depth are not of one number of frames"),
        ({"depth": np.where(SCENE.depth > 0, 1.0, 0)}, "everywhere the same"),
        ({"depth": np.where(SCENE.depth > 0, 1 / SCENE.depth.clip(1), 0)}, "run against each other"),
        ({"depth": np.random.default_rng(0).random((6, 24, 32)) * SCENE.depth}, "depth does not fit the points"),
        ({"depth": np.zeros((6, 24, 32))}, "only 0 points fall on known depth, 20 are needed"),
        ({"c2w": np.array([{}])}, "holds pickled objects"),
    ],
)
def test_clips_that_do_not_fit_are_named(tool, tmp_path, monkeypatch, capsys, change, message):
    write(tmp_path, estimates() | change)
    write(tmp_path, estimates(), "00000000000000ff")
    code, said = run(tool, monkeypatch, capsys, tmp_path)
    left_out = [line for line in said.splitlines() if line.startswith("left out: ")]
    assert code == 1 and len(left_out) == 1 and CLIP in left_out[0]
    assert re.search(message, left_out[0])
    assert [path.stem for path in (tmp_path / "aligned" / "train").iterdir()] == ["00000000000000ff"]


def test_disparity_alone_and_no_estimates(tool, tmp_path, monkeypatch, capsys):
    write(tmp_path, estimates("disparity", points=False))
    code, said = run(tool, monkeypatch, capsys, tmp_path)
    assert code == 1 and "disparity has no scale of its own" in said
    (tmp_path / "estimates" / f"{CLIP}.npz").unlink()
    code, said = run(tool, monkeypatch, capsys, tmp_path)
    assert code == 2 and said.endswith("estimates: no <clip>.npz lies there\n")
