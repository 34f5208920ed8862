"""What cannot be exported is one line, and leaves nothing behind."""

import json
import struct
import typing
from pathlib import Path

import pytest
import torch
from worlds import build_scene

from movies import cli
from movies.cameras import Cameras
from movies.commands import scenes
from movies.errors import InputError
from movies.export import EXPORTERS, choose_times, export
from movies.gaussians import Gaussians
from movies.scene import Scene4D


@pytest.fixture(scope="module")
def scene() -> Scene4D:
    return build_scene(50, 20)


@pytest.fixture
def saved(scene, tmp_path) -> Path:
    scene.save(tmp_path / "scene.safetensors")
    return tmp_path / "scene.safetensors"


def refused(capsys, *arguments: str | Path) -> str:
    """The line that the command ends with."""
    assert cli.main(["export", *map(str, arguments)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    return line


def test_the_command_writes_what_it_says(saved, tmp_path, capsys):
    assert cli.main(["export", str(saved), "--format", "ply", "--times", "2", "--out", str(tmp_path / "a.ply")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_0000.ply", "a_0001.ply", saved.name]
    assert "a_0000.ply" in capsys.readouterr().out


def test_the_command_knows_every_format():
    assert typing.get_args(typing.get_type_hints(scenes.export)["format"]) == tuple(EXPORTERS)


def test_unknown_format(scene, saved, tmp_path, capsys):
    with pytest.raises(InputError, match=r"unknown format 'obj', choose one of ply, compressed-ply, splat"):
        export(scene, "obj", tmp_path / "a.obj", scene.times)
    assert "obj" in refused(capsys, saved, "--format", "obj", "--out", tmp_path / "a.obj")


def test_a_folder_where_a_file_should_be(scene, tmp_path):
    for name, exporter in EXPORTERS.items():
        with pytest.raises(InputError, match=rf"a folder; give the file to write, such as .*scene{exporter.suffix}"):
            export(scene, name, tmp_path, scene.times)
    (tmp_path / "a_0002.ply").mkdir()
    with pytest.raises(InputError, match=r"a_0002.ply: a folder"):
        export(scene, "ply", tmp_path / "a.ply", scene.times)
    assert [path.name for path in tmp_path.iterdir()] == ["a_0002.ply"]  # not even the two before it


def test_a_file_where_a_folder_should_be(saved, capsys):
    refused(capsys, saved, "--format", "ply", "--out", saved / "a.ply")
    assert list(saved.parent.iterdir()) == [saved]


def test_a_name_of_another_format(scene, tmp_path):
    with pytest.raises(InputError, match=r"a.ply: files of format splat end in .splat"):
        export(scene, "splat", tmp_path / "a.ply", scene.times)
    assert not list(tmp_path.iterdir())


def change_metadata(path: Path, **values: str) -> None:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"].update(values)
    header["__metadata__"] = {name: value for name, value in header["__metadata__"].items() if value}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_a_scene_that_lacks_a_number(saved, tmp_path, capsys):
    change_metadata(saved, scale_unit="")
    assert "the scene lacks scale_unit" in refused(capsys, saved, "--format", "npz", "--out", tmp_path / "a.npz")


def test_a_scene_of_a_newer_version(saved, tmp_path, capsys):
    change_metadata(saved, version="2")
    line = refused(capsys, saved, "--format", "html", "--out", tmp_path / "a.html")
    assert "newer movies (scene version 2)" in line
    assert list(tmp_path.iterdir()) == [saved]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "folder", "absent"])
def test_a_corrupt_scene(saved, tmp_path, capsys, damage):
    data = saved.read_bytes()
    saved.unlink()
    if damage == "folder":
        saved.mkdir()
    elif damage != "absent":
        saved.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"ply\n" * 100}[damage])
    before = sorted(tmp_path.iterdir())
    assert saved.name in refused(capsys, saved, "--format", "html", "--out", tmp_path / "a.html")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("times", [[-0.1], [0.5, 1.01], [float("nan")]])
def test_times_outside_the_clip(scene, tmp_path, times):
    with pytest.raises(InputError, match="times run from 0 to 1 over the clip, got"):
        export(scene, "ply", tmp_path / "a.ply", torch.tensor(times))
    assert not list(tmp_path.iterdir())


def test_no_times(scene, tmp_path):
    with pytest.raises(InputError, match="at least one time is needed"):
        export(scene, "ply", tmp_path / "a.ply", torch.zeros(0))


def test_times_are_read(scene):
    assert choose_times(scene, "all").tolist() == scene.times.tolist()
    assert choose_times(scene, "3").tolist() == [0, 0.5, 1]
    assert choose_times(scene, "0.25,1").tolist() == [0.25, 1]
    for text in ("some", "0.1,x", ""):
        with pytest.raises(InputError, match="give `all`, a count as 8, or times from 0 to 1"):
            choose_times(scene, text)
    with pytest.raises(InputError, match="at least one time is needed"):
        choose_times(scene, "0")


def test_a_scene_without_gaussians(tmp_path):
    cameras = Cameras(torch.eye(4)[None], torch.ones(1, 4))
    empty = Scene4D(Gaussians.empty(), Gaussians.empty(1), torch.zeros(1), cameras, torch.zeros(1))
    with pytest.raises(InputError, match="holds no Gaussians"):
        export(empty, "html", tmp_path / "a.html", empty.times)


def test_nothing_half_written(scene, tmp_path, monkeypatch):
    """A write that fails at the third time takes the first two with it, and an older file stays as it was."""
    (tmp_path / "a_0000.splat").write_bytes(b"old")
    written = []

    def fail(scene: Scene4D, path: Path) -> None:
        path.write_bytes(b"new")
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setitem(EXPORTERS, "splat", type(EXPORTERS["splat"])(fail, ".splat", True))
    with pytest.raises(OSError, match="No space left"):
        export(scene, "splat", tmp_path / "a.splat", scene.times)
    assert [path.name for path in tmp_path.iterdir()] == ["a_0000.splat"]
    assert (tmp_path / "a_0000.splat").read_bytes() == b"old"
