"""The command line: what it prints, its exit status, and that nothing half-written is left of anything that fails."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import CONFIG

from movies import cli, doctor
from movies import outputs as module
from movies.camera_files import save_cameras
from movies.cameras import Cameras
from movies.errors import InputError
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import save_weights
from movies.scene import Scene4D
from movies.video import read_frames, write_video


@pytest.fixture(autouse=True)
def short_films(monkeypatch) -> None:
    monkeypatch.setattr(module, "NOVEL_FRAMES", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A good clip of four frames, good cameras and good weights."""
    path = tmp_path_factory.mktemp("inputs")
    ramp = torch.linspace(0, 1, 64).expand(4, 3, 40, 64) * torch.linspace(0.5, 1, 4)[:, None, None, None]
    write_video(path / "clip.mp4", ramp, fps=4)
    c2w = torch.eye(4).repeat(4, 1, 1)
    c2w[:, 0, 3] = torch.linspace(0, 0.2, 4)
    save_cameras(Cameras(c2w, torch.tensor([0.8, 1.0, 0.5, 0.5]).repeat(4, 1)), path / "cameras.json")
    torch.manual_seed(0)
    save_weights(MoVieS(CONFIG), path / "movies.safetensors")
    save_weights(VGGT(CONFIG), path / "vggt.safetensors")
    return path


def command(folder: Path, out: Path, clip: str | Path = "clip.mp4", **options) -> list[str]:
    """A `movies reconstruct` line; options replace those of a good one."""
    given = {"weights": folder / "movies.safetensors", "camera-weights": folder / "vggt.safetensors", **options}
    flags = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
    return ["reconstruct", str(folder / clip), "--out", str(out), *flags]


def fails(capsys, arguments: list[str], message: str, status: int = 2) -> None:
    """The command ends with `status` and one line on stderr, which holds `message`."""
    assert cli.main(arguments) == status
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), captured.err
    assert message in lines[0], lines[0]


# --- what works


def test_reconstruct_then_render(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(command(folder, out)) == 0
    assert "Gaussians" in capsys.readouterr().out
    assert {"scene.safetensors", "summary.json", "novel_view.mp4", "overview.png"} <= {p.name for p in out.iterdir()}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["weights"]["vggt"]["name"].endswith("vggt.safetensors")
    film = tmp_path / "film.mp4"
    scene = str(out / "scene.safetensors")
    assert cli.main(["render", scene, "--path", "dolly", "--frames", "2", "--out", str(film)]) == 0
    assert read_frames(film, 9).num_total == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["film.mp4", "out"]


def test_reconstruct_with_cameras_and_a_resolution(folder, tmp_path):
    options = {"cameras": folder / "cameras.json", "resolution": 42, "frames": 3, "dtype": "bf16"}
    assert cli.main(command(folder, tmp_path / "out", **options)) == 0
    scene = Scene4D.load(tmp_path / "out" / "scene.safetensors")
    assert max(scene.image_size) == 42 and len(scene.cameras) == 3
    assert torch.allclose(scene.cameras.centers[:, 0], torch.tensor([0.0, 0.4 / 3, 0.2]), atol=1e-4)


def test_two_frames_work(folder, tmp_path):
    write_video(tmp_path / "two.mp4", torch.rand(2, 3, 32, 32), fps=4)
    assert cli.main(command(folder, tmp_path / "out", tmp_path / "two.mp4")) == 0


@pytest.mark.parametrize("arguments", [[], ["--help"], *([name, "--help"] for name in (*cli.COMMANDS, *cli.GROUPS))])
def test_help_has_an_example(arguments, capsys):
    assert cli.main(arguments) == 0
    assert "Example: movies " in capsys.readouterr().out


def test_doctor_names_every_part(capsys):
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name in doctor.CHECKS:
        assert name in printed
    assert "numba           ok" in printed and "ffmpeg          ok" in printed


def test_doctor_says_the_mend_of_what_is_broken(monkeypatch, capsys):
    def broken() -> str:
        raise ImportError("no such thing\nmore")

    monkeypatch.setitem(doctor.CHECKS, "numba", broken)
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "numba           absent  no such thing; pip install numba" in printed
    assert "needed and absent: numba" in printed


def test_doctor_notices_a_wrong_picture(monkeypatch):
    from movies import rendering

    dark = rendering.Rendering(torch.zeros(3, 8, 8), torch.zeros(1, 8, 8), torch.zeros(1, 8, 8))
    monkeypatch.setattr(rendering, "render", lambda *_, **__: dark)
    with pytest.raises(InputError, match="came out wrong"):
        doctor._numba()


def test_weights_inspect_and_convert(folder, tmp_path, capsys):
    source, out = folder / "vggt.safetensors", tmp_path / "half.safetensors"
    assert cli.main(["weights", "inspect", str(source)]) == 0
    assert "a VGGT checkpoint" in capsys.readouterr().out
    assert cli.main(["weights", "convert", str(source), str(out), "--dtype", "fp16"]) == 0
    assert out.stat().st_size < 0.6 * source.stat().st_size


def test_train_passes_its_options_on(monkeypatch, capsys):
    from movies.train import trainer

    monkeypatch.setattr(trainer, "train", lambda *given: f"{given}")
    assert cli.main(["train", "stages/tiny", "--out", "runs/x", "--max-steps", "3", "--resume", "--dry-run"]) == 0
    assert capsys.readouterr().out.strip() == "('stages/tiny', 'runs/x', True, 3, None, None, True)"


def test_evaluate_passes_its_options_on(monkeypatch, capsys):
    from movies.evaluate import held_out, runner

    monkeypatch.setattr(held_out, "evaluate_held_out", lambda *given: (f"{given}", True))
    assert cli.main(["evaluate", "synthetic", "--clips", "2", "--out", "x"]) == 1  # a scene failed
    assert capsys.readouterr().out.strip() == "('tiny', 'tiny', 2, 0.0, 'x', 1)"
    monkeypatch.setattr(runner, "export_inputs", lambda *given: given)
    assert cli.main(["evaluate", "sintel", "--data", "d", "--scenes", "a", "b", "--write-inputs", "x"]) == 0
    assert capsys.readouterr().out.strip() == "('sintel', 'd', 'x', ('a', 'b')) cases written to x"


# --- what a user gets wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reconstruct"], "CLIP --out DIR; see `movies reconstruct --help`"),
        (["bogus"], "Unrecognized options: bogus; see `movies --help`"),
        (["reconstruct", "a", "--out", "b", "--frames", "x"], "Error parsing --frames"),
        (["render", "a", "--out", "b", "--path", "loop"], "invalid choice 'loop'"),
        (["weights", "bogus"], "see `movies weights --help`"),
        (["weights", "inspect", "none.safetensors"], "no such weights file"),
        (["render", "none.safetensors", "--out", "a.mp4"], "no such scene file"),
    ],
)
def test_arguments_that_cannot_be_read(arguments, message, capsys):
    fails(capsys, arguments, message)


def bad_inputs(folder: Path, tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    """Every mistake: a command line, and what its line of error must say."""
    out, good = tmp_path / "out", json.loads((folder / "cameras.json").read_text())
    (tmp_path / "text.mp4").write_text("hello\n" * 50)
    write_video(tmp_path / "one.mp4", torch.rand(1, 3, 32, 32), fps=4)
    (tmp_path / "mixed").mkdir()
    for i, size in enumerate([(8, 6), (8, 8)]):
        Image.new("RGB", size).save(tmp_path / "mixed" / f"{i}.png")
    (tmp_path / "few.json").write_text(json.dumps({"frames": good["frames"][:3]}))
    good["frames"][1]["transform_matrix"][0][3] = float("nan")
    (tmp_path / "nan.json").write_text(json.dumps(good))
    weights = (folder / "movies.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(weights[: len(weights) // 2])
    np.savez(tmp_path / "objects.npz", C2W=np.array([{}], dtype=object), fxfycxcy=np.ones((1, 4)))
    (tmp_path / "file").write_text("x")
    clip = folder / "clip.mp4"
    return {
        "no file": (command(folder, out, "none.mp4"), "none.mp4: no such file or folder"),
        "text": (command(folder, out, tmp_path / "text.mp4"), "cannot be read as a video"),
        "one frame": (command(folder, out, tmp_path / "one.mp4"), "at least 2 frames, this one has 1"),
        "sizes": (command(folder, out, tmp_path / "mixed"), "frames of different sizes"),
        "number": (command(folder, out, cameras=tmp_path / "few.json"), "3 cameras for"),
        "nan": (command(folder, out, cameras=tmp_path / "nan.json"), "camera 1 holds NaN"),
        "pickle": (command(folder, out, cameras=tmp_path / "objects.npz"), "without pickle"),
        "other model": (
            command(folder, out, weights=folder / "vggt.safetensors"),
            "holds weights of VGGT, not of",
        ),
        "truncated": (command(folder, out, weights=tmp_path / "cut.safetensors"), "not a readable weights file"),
        "no weights": (command(folder, out, weights="huge"), "no weights named 'huge'"),
        "out is a file": (command(folder, tmp_path / "file"), "file: cannot be written"),
        "out in a file": (command(folder, tmp_path / "file" / "out"), "cannot be written"),
        "out in proc": (command(folder, Path("/proc/nothing/out")), "cannot be written"),
        "resolution": (command(folder, out, resolution=30), "multiple of the patch size 14, got 30; try 28"),
        "frames": (command(folder, out, frames=0), "at least 1, got 0"),
        "scene": (["render", str(clip), "--out", str(tmp_path / "a.mp4")], "not a scene, or cut short"),
        "film": (["render", str(clip), "--out", str(tmp_path / "a.txt")], "videos are written as"),
    }


def test_bad_input_is_one_line_and_leaves_nothing(folder, tmp_path, capsys):
    cases = bad_inputs(folder, tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    for name, (arguments, message) in cases.items():
        fails(capsys, arguments, message)
        assert sorted(p.name for p in tmp_path.iterdir()) == before, name


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (PermissionError(13, "Permission denied", "/somewhere"), "/somewhere: Permission denied"),
        (MemoryError(), "not enough memory; lower --resolution"),
    ],
)
def test_errors_of_the_machine_are_one_line(folder, tmp_path, capsys, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(module, "write_image", fail)
    fails(capsys, command(folder, tmp_path / "out"), message)
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(InputError, match="no such scene file"):
        cli.main(["render", "none.safetensors", "--out", "a.mp4", "--debug"])


def test_defects_of_ours_keep_their_traceback(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(doctor, "examine", fail)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        cli.main(["doctor"])


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", interrupt)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(KeyboardInterrupt):
        cli.main(["doctor", "--debug"])


# --- as a process of its own


def start(arguments: list[str], **options) -> subprocess.Popen:
    line = [sys.executable, "-m", "movies", *arguments]
    # A test run started in the background of a shell ignores Ctrl-C, and so would every process it starts.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(line, text=True, preexec_fn=heed, **pipes, **options)


def test_ctrl_c_in_the_middle_leaves_nothing(folder, tmp_path):
    write_video(tmp_path / "long.mp4", torch.rand(60, 3, 128, 128), fps=10)
    out = tmp_path / "deep" / "out"
    process = start(command(folder, out, tmp_path / "long.mp4", frames=40, chunk=40, resolution=112))
    deadline = time.monotonic() + 60
    while not out.parent.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == "interrupted\n"
    assert [p.name for p in tmp_path.iterdir()] == ["long.mp4"]


def test_a_mistake_exits_with_2_and_no_traceback(tmp_path):
    process = start(["reconstruct", "none.mp4", "--out", "out"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": ROOT})
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == "" and errors == "error: none.mp4: no such file or folder\n"
    assert not list(tmp_path.iterdir())


ROOT = str(Path(cli.__file__).parents[1])


def test_help_does_not_load_torch():
    code = "import sys; from movies.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0
