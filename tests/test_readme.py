"""Every command and every Python example of the README runs as printed, in order, in a folder of its own."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from movies import Cameras, cli, save_cameras
from movies.video import write_video

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("movies ")
]
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the files that the README speaks of: a short clip and its cameras."""
    path = tmp_path_factory.mktemp("readme")
    ramp = torch.linspace(0, 1, 64).expand(4, 3, 48, 64) * torch.linspace(0.5, 1, 4)[:, None, None, None]
    write_video(path / "clip.mp4", ramp, fps=4)
    c2w = torch.eye(4).repeat(4, 1, 1)
    c2w[:, 0, 3] = torch.linspace(0, 0.2, 4)
    save_cameras(Cameras(c2w, torch.tensor([0.8, 1.0, 0.5, 0.5]).expand(4, 4)), path / "cameras.json")
    for name, asset in (("movies_ckpt", "movies_tiny"), ("vggt", "vggt_tiny")):
        (path / f"{name}.safetensors").symlink_to(ROOT / f"movies/assets/{asset}.safetensors")
    (path / "stages").symlink_to(ROOT / "stages")
    (path / "data_manifests").symlink_to(ROOT / "data_manifests")
    return path


def test_readme_names_commands_and_examples():
    assert len(COMMANDS) >= 5 and EXAMPLES


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_runs(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    try:
        code = cli.main(command[1:])
    except SystemExit as stop:
        code = stop.code
    assert code in (None, 0)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example, folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(example, "README.md", "exec"), {})


def test_scripts_of_the_readme_exist():
    for script in re.findall(r"bash (\S+\.sh)", README):
        assert (ROOT / script).exists(), script
