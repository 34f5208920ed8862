"""docs/conventions.md: every file as printed there is read, and shows its point at the number printed there.

Written by hand in the way of each format's own documentation; test_camera_files.py has what our writers write.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from movies.camera_files import load_cameras, read_camera_file
from movies.geometry import project

PAGE = (Path(__file__).parents[1] / "docs" / "conventions.md").read_text()
FILES = re.findall(r"File `([^`]+)`:\n\n```(\w+)\n(.*?)```", PAGE, re.DOTALL)
GROUPS = [["transforms.json"], ["cameras.txt", "images.txt"], ["trajectory.tum"], ["clip_sgd_cvd_hr.npz"],
          ["pose/clip.npz"], ["cameras.npz"]]  # fmt: skip


def make(names: list[str]) -> None:
    """Write the page's files into the working folder: as text, or by running the lines that make them."""
    for name, language, content in FILES:
        if name in names:
            if language == "python":
                exec(content, {"np": np, "os": os, "Path": Path})
            else:
                Path(name).write_text(content)


def test_the_page_has_every_format():
    assert sorted(name for name, _, _ in FILES) == sorted(name for group in GROUPS for name in group)


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_the_worked_number(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(names)
    camera = load_cameras(names[-1])[0]
    position, depth = project(torch.tensor([[5.0, 3.0, 2.0]]), camera.fxfycxcy, camera.c2w)
    assert torch.allclose(position * torch.tensor([160, 120]), torch.tensor([[100.0, 80.0]]), atol=1e-4)
    assert float(depth) == pytest.approx(4, abs=1e-5)
    expected = [[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]]
    assert torch.allclose(camera.c2w, torch.tensor(expected).float(), atol=1e-6)


def test_names_and_sizes_are_told_where_the_format_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make([name for group in GROUPS for name in group])
    told = {names[-1]: read_camera_file(names[-1]) for names in GROUPS}
    assert told["transforms.json"].names == ("images/0001.png",) and told["images.txt"].names == ("0001.png",)
    assert {name: file.size for name, file in told.items() if file.size != (0, 0)} == dict.fromkeys(
        ("transforms.json", "images.txt", "clip_sgd_cvd_hr.npz"), (120, 160)
    )
