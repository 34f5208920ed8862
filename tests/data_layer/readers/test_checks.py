"""`movies data check` finds what is broken in a download, and names the likely cause."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from layouts_dynamic import write_dynamicreplica, write_pointodyssey, write_spring, write_stereo4d
from layouts_static import (
    write_matrixcity,
    write_realestate10k,
    write_realestate10k_depth,
    write_tartanair,
    write_vkitti2,
)
from scene import Scene, broken, broken_tracks, make_scene

from movies.cli import main
from movies.data.checks import check_manifests
from movies.data.indexing import read_index
from movies.data.manifest import load_manifest
from movies.data.preview import preview_manifests
from movies.errors import InputError

SIZE = (48, 64)
HINTS = {
    "inverted": "inverted poses: world-to-camera",
    "opengl": "OpenGL axes",
    "centimetres": "centimetres read as metres",
    "hundredths": "metres read as centimetres",
    "ray_distance": "ray distance read as z-depth",
    "off_by_one": "frames off by one",
}


def _realestate10k(root: Path, scene: Scene) -> None:
    write_realestate10k(root, scene, scale=4.0)
    write_realestate10k_depth(root, scene)


@dataclass(frozen=True)
class Case:
    """How a set is written, the scene that suits it, and in which unit its depth can be wrong."""

    write: Callable
    unit: str = "hundredths"
    scene: dict = field(default_factory=dict)
    options: str = ""
    break_: Callable = broken

    def kinds(self) -> list[str]:
        return ["inverted", "opengl", "off_by_one", self.unit, "ray_distance"]


CASES = {
    "realestate10k": Case(_realestate10k, "centimetres", {"is_static": True}, 'depths = "depths"'),
    "tartanair": Case(
        write_tartanair, "centimetres", {"is_static": True, "metres": 2.0, "fxfycxcy": (0.5, 2 / 3, 0.5, 0.5)}
    ),
    "matrixcity": Case(write_matrixcity, "hundredths", {"is_static": True}),
    "vkitti2": Case(write_vkitti2, "hundredths", {"metres": 40.0}),
    "pointodyssey": Case(write_pointodyssey, "hundredths", {"metres": 40.0}),
    "dynamicreplica": Case(write_dynamicreplica, "centimetres"),
    "spring": Case(write_spring, "centimetres"),
    "stereo4d": Case(
        write_stereo4d,
        "centimetres",
        {"num_tracks": 400, "size": (64, 64), "fxfycxcy": (0.8660254, 0.8660254, 0.5, 0.5)},
        break_=broken_tracks,
    ),
}
PAIRS = [(name, kind) for name, case in CASES.items() for kind in ("", *case.kinds())]


def written(folder: Path, name: str, kind: str = "", more: str = "") -> Path:
    """A fixture of the set, whole or broken, and its manifest."""
    case = CASES[name]
    scene = make_scene(**{"size": SIZE, "num_tracks": 60} | case.scene)
    case.write(folder / "data", case.break_(scene, kind) if kind else scene)
    manifest = folder / f"{name}.toml"
    manifest.write_text(f'name = "{name}"\nreader = "{name}"\nroot = "data"\n{more}\n[options]\n{case.options}\n')
    return manifest


@pytest.mark.parametrize(("name", "kind"), PAIRS, ids=lambda text: text or "whole")
def test_breaks_are_found_and_named(tmp_path, name, kind):
    (report,) = check_manifests(written(tmp_path, name, kind), 1)
    assert "1 sequences" in report.counts or name == "vkitti2"
    if not kind:
        assert report.problems == []
        assert "nothing broken was found" in str(report)
    else:
        (problem,) = report.problems
        assert problem.startswith(report.sequences[0].name) and HINTS[kind] in problem


def test_numbers_of_a_report(tmp_path):
    (report,) = check_manifests(written(tmp_path, "tartanair"), 1)
    scene = make_scene(size=SIZE, **CASES["tartanair"].scene)
    (sequence,) = report.sequences
    assert (sequence.frames, sequence.missing, sequence.points) == (6, 0, 0)
    valid = scene.depth[1:5][scene.depth[1:5] > 0]
    assert sequence.depth == pytest.approx(np.quantile(valid, [0.02, 0.5, 0.98]), rel=1e-3)
    assert sequence.valid == pytest.approx(scene.views.depth_mask[1:5].float().mean().item())
    centers = scene.views.cameras.centers[1:5]
    assert sequence.baseline == pytest.approx((centers[-1] - centers[0]).norm().item(), rel=0.2)
    assert sequence.rotation > 0


def test_unreadable_and_missing_frames_and_counts(tmp_path, capsys):
    manifest = written(tmp_path, "tartanair", more="expected = { sequences = 2 }")
    images = tmp_path / "data/office/Easy/P001/image_left"
    (images / "000002_left.png").unlink()
    broken_image = images / "000004_left.png"
    broken_image.write_bytes(broken_image.read_bytes()[:500])
    assert main(["data", "check", str(manifest)]) == 1
    said = capsys.readouterr().out
    assert "1 sequences of 2" in said and "1 sequences where the manifest expects 2" in said
    assert "BROKEN office/Easy/P001: " in said and "000004_left.png: cannot be read as a picture" in said
    (report,) = check_manifests(manifest, 1)
    assert (report.sequences[0].frames, report.sequences[0].missing) == (5, 1)


def test_a_whole_dataset_exits_with_0(tmp_path, capsys):
    assert main(["data", "check", str(written(tmp_path, "tartanair")), "--sequences", "2"]) == 0
    assert "nothing broken was found" in capsys.readouterr().out


def test_cameras_that_cannot_be(tmp_path):
    manifest = written(tmp_path, "vkitti2")
    path = tmp_path / "data/Scene01/clone/extrinsic.txt"
    lines = path.read_text().splitlines()
    doubled = [" ".join([*line.split()[:2], *(str(2 * float(x)) for x in line.split()[2:])]) for line in lines[1:]]
    path.write_text("\n".join([lines[0], *doubled]))
    (report,) = check_manifests(manifest, 1)
    assert any("not orthonormal" in problem for problem in report.problems)


def test_index_names_sequences_without_listing(tmp_path, capsys):
    manifest = written(tmp_path, "tartanair")
    write_tartanair(tmp_path / "data", make_scene(**CASES["tartanair"].scene), "ocean/Hard/P000")
    (tmp_path / "data/ocean/Hard/P000/pose_left.txt").write_text("")
    assert main(["data", "index", str(manifest)]) == 0
    assert "2 sequences, 1 cannot be opened" in capsys.readouterr().out
    loaded = load_manifest(manifest)
    entries = list(read_index(loaded.index, loaded.identity()))
    assert entries[1] == {"name": "office/Easy/P001", "frames": 6, "size": [48, 64], "depth": True, "tracks": False}
    assert "no frame has both an image and a camera" in entries[0]["error"]
    assert [sequence.name for sequence in loaded.sequences()] == ["office/Easy/P001"]
    (report,) = check_manifests(manifest, 1)
    assert any("ocean/Hard/P000" in problem for problem in report.problems)


def test_index_of_another_root_or_damaged_is_refused(tmp_path):
    manifest = written(tmp_path, "tartanair")
    index = Path(load_manifest(manifest).index)
    index.write_text(json.dumps({"reader": "tartanair", "root": "elsewhere", "options": {}}) + "\n")
    with pytest.raises(InputError, match=r"tartanair.index.jsonl: was written for another `root`"):
        load_manifest(manifest).sequences()
    index.write_text("[]\n{")
    with pytest.raises(InputError, match=r"tartanair.index.jsonl: is not an index"):
        load_manifest(manifest).sequences()


@pytest.mark.parametrize("name", ["pointodyssey", "realestate10k"])
def test_preview_draws_a_video_and_a_sheet(tmp_path, name):
    paths = list(preview_manifests(written(tmp_path, name), tmp_path / "out", 1, 3))
    assert [path.suffix for path in paths] == [".mp4", ".png"]
    assert all(path.stat().st_size > 500 for path in paths)


@pytest.mark.parametrize("command", [check_manifests, lambda path, n: list(preview_manifests(path, "out", n, 3))])
def test_numbers_must_be_positive(tmp_path, command):
    with pytest.raises(InputError, match="at least 1"):
        command(written(tmp_path, "tartanair"), 0)
