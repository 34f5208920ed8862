"""movies track: from a clip, from the folder that reconstruct leaves, and from a scene that knows of no clip."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import CONFIG

from movies import cli
from movies import outputs as module
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import save_weights
from movies.scene import Scene4D
from movies.video import read_frames, read_mask, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """clip.mp4 of three frames of 64x40, weights, and the clip reconstructed with arrays: views of 28x14."""
    path = tmp_path_factory.mktemp("track")
    ramp = torch.linspace(0, 1, 64).expand(3, 3, 40, 64) * torch.linspace(0.5, 1, 3)[:, None, None, None]
    write_video(path / "clip.mp4", ramp, fps=4)
    torch.manual_seed(0)
    save_weights(MoVieS(CONFIG), path / "movies.safetensors")
    save_weights(VGGT(CONFIG), path / "vggt.safetensors")
    command = ["reconstruct", str(path / "clip.mp4"), "--out", str(path / "out"), "--arrays", *weights(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NOVEL_FRAMES", 4)
        assert cli.main(command) == 0
    return path


def weights(path: Path) -> list[str]:
    return ["--weights", str(path / "movies.safetensors"), "--camera-weights", str(path / "vggt.safetensors")]


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def test_a_clip_and_its_scene_are_followed_alike(folder, tmp_path, capsys):
    """The untrained network moves nothing: what is predicted and what is stored must say the same of every pixel."""
    asked = ["--points", "32,20,0", "10.5,25,2", "--grid", "4", "--grid-frame", "1"]
    clip = ["track", str(folder / "clip.mp4"), *asked, *weights(folder)]
    assert cli.main([*clip, "--out", str(tmp_path / "clip.npz"), "--video", str(tmp_path / "clip.mp4")]) == 0
    scene = ["track", str(folder / "out"), *asked]
    assert cli.main([*scene, "--out", str(tmp_path / "scene.npz"), "--video", str(tmp_path / "scene.mp4")]) == 0
    assert "10 points at 3 times" in capsys.readouterr().out
    predicted, stored = load(tmp_path / "clip.npz"), load(tmp_path / "scene.npz")
    # 4 across the longer side are 2 across the shorter one
    assert predicted["points"].shape == stored["points"].shape == (3, 2 + 4 * 2, 3)
    for tracks in (predicted, stored):
        assert np.allclose(tracks["queries_xyt"][:2], [[32, 20, 0], [10.5, 25, 2]], atol=1e-4)
        assert (tracks["queries_xyt"][2:, 2] == 1).all() and tracks["image_size"].tolist() == [40, 64]
        own = tracks["query_views"], np.arange(10)
        assert np.allclose(tracks["tracks_xy"][own], tracks["queries_xyt"][:, :2], atol=0.01)  # it starts where asked
    for name in ("clip.mp4", "scene.mp4"):
        assert read_frames(tmp_path / name, 9).num_total == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "clip.npz", "scene.mp4", "scene.npz"]


def test_a_scene_alone_knows_its_own_pixels(folder, tmp_path):
    shutil.copy(folder / "out" / "scene.safetensors", tmp_path / "alone.safetensors")
    (tmp_path / "summary.json").write_text('{"window": "of something else"}')
    command = ["track", str(tmp_path / "alone.safetensors"), "--out", str(tmp_path / "a.npz"), "--points", "14,7,0"]
    assert cli.main(command) == 0
    tracks = load(tmp_path / "a.npz")
    assert tracks["image_size"].tolist() == [14, 28] and np.allclose(tracks["query_positions"], [[0.5, 0.5]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": ["70,20,0"]}, "point 70,20,0: outside the frame of 64x40"),
        ({"points": ["32,20,3"]}, "no frame 3; frames read are 0 to 2"),
        ({"points": ["32;20;0"]}, "give x,y,frame"),
        ({"points": ["32,1,0"]}, "margin that is cut off"),
        ({}, "nothing to follow"),
        ({"grid": ["0"]}, "at least 1 point across"),
        ({"grid": ["2"], "grid-frame": ["3"]}, "no frame 3 for the grid"),
        ({"grid": ["2"], "out": ["a.txt"]}, "tracks are written as .npz"),
        ({"grid": ["2"], "video": ["a.gif"]}, "videos are written as"),
    ],
)
@pytest.mark.parametrize("source", ["clip.mp4", "out"])
def test_what_cannot_be_followed(folder, tmp_path, monkeypatch, capsys, source, options, message):
    monkeypatch.chdir(tmp_path)
    words = [word for name, given in ({"out": ["a.npz"]} | options).items() for word in (f"--{name}", *given)]
    assert cli.main(["track", str(folder / source), *words, *weights(folder)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_scene_that_is_not_there(tmp_path, capsys):
    command = ["track", str(tmp_path / "none.safetensors"), "--grid", "2", "--out", str(tmp_path / "a.npz")]
    assert cli.main(command) == 2
    assert "no such scene file" in capsys.readouterr().err


# --- what reconstruct leaves beside


def test_masks_and_arrays_of_every_pixel(folder):
    out = folder / "out"
    arrays, scene = load(out / "arrays.npz"), Scene4D.load(out / "scene.safetensors")
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes["depth"] == shapes["rendered_depth"] == shapes["moving"] == (3, 14, 28)
    assert shapes["scene_flow"] == (2, 14, 28, 3) and shapes["optical_flow"] == (2, 14, 28, 2)
    assert shapes["novel_depth"] == (4, 14, 28) and shapes["novel_c2w"] == (4, 4, 4)
    masks = [read_mask(out / "masks" / f"{v:04d}.png") for v in range(3)]
    assert np.array_equal(np.stack(masks), arrays["moving"])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["moving_share"] == round(float(arrays["moving"].mean()), 4)
    assert summary["window"]["height"] == 40 and len(scene.cameras) == 3
    tracks = load(out / "tracks.npz")
    assert tracks["points"].shape[1] == summary["num_tracks"] == 3 * 14 * 28
    # a pixel's track starts at the depth that the arrays give it
    own = tracks["query_views"], np.arange(3 * 14 * 28)
    assert np.allclose(tracks["tracks_XYZ"][own][:, 2], arrays["depth"].ravel(), rtol=1e-4)


def test_arrays_of_segments_are_refused(folder, tmp_path, capsys):
    command = ["reconstruct", str(folder / "clip.mp4"), "--out", str(tmp_path / "out"), "--arrays", "--frames", "all"]
    assert cli.main(command) == 2
    assert "--arrays is for clips of one chunk" in capsys.readouterr().err
