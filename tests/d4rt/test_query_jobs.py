"""`movies reconstruct --model d4rt` from a video to its folder, with miniature random weights."""

import json

import numpy as np
import pytest
import torch
from plyfile import PlyData

from movies import Scene4D, load_cameras
from movies.cli import main
from movies.errors import InputError
from movies.export.points import write_points
from movies.model.weights import save_weights
from movies.query_jobs import reconstruct_by_queries
from movies.video import write_video


@pytest.fixture
def files(model, tmp_path) -> tuple[str, str]:
    """A video of 8 frames of 32x24, and weights."""
    frames = torch.rand(8, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    write_video(tmp_path / "clip.mp4", frames, 6.0)
    save_weights(model, tmp_path / "d4rt.safetensors")
    return str(tmp_path / "clip.mp4"), str(tmp_path / "d4rt.safetensors")


def test_a_video_becomes_a_folder(files, tmp_path):
    clip, weights = files
    out = tmp_path / "out"
    assert main(["reconstruct", clip, "--out", str(out), "--model", "d4rt", "--weights", weights]) == 0
    names = {"depth.mp4", "depth.npz", "cameras.json", "tracks.npz", "points.ply", "scene.safetensors", "scene.html"}
    assert {path.name for path in out.iterdir()} == names | {"input.mp4", "overview.png", "summary.json"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 6 and summary["queries_saved"] >= 1  # as many as the weights know
    assert summary["num_queries"] == 6 * summary["num_dense_tracks"]
    assert len(load_cameras(out / "cameras.json")) == 6
    scene = Scene4D.load(out / "scene.safetensors")
    assert len(scene) == summary["num_dense_tracks"] and len(scene.times) == 6
    depth = np.load(out / "depth.npz")["depth"]
    assert depth.shape == (6, 12, 16) and summary["num_points"] == depth.size
    assert np.load(out / "tracks.npz")["points"].shape[0] == 6


def test_any_resolution_is_asked_for_with_original_patches(files, tmp_path):
    clip, weights = files
    summary = reconstruct_by_queries(clip, tmp_path / "fine", weights, 2, resolution=24)
    fine = np.load(tmp_path / "fine" / "depth.npz")["depth"]
    assert fine.shape == (2, 18, 24) and summary["naive_queries"] == 2 * 2 * 18 * 24
    with pytest.raises(InputError, match="--resolution must be at least 1, got 0"):
        reconstruct_by_queries(clip, tmp_path / "out", weights, 2, resolution=0)


def test_refusals(files, tmp_path, capsys):
    clip, weights = files
    with pytest.raises(InputError, match="read at most 6 frames together; give --frames 6 or fewer"):
        reconstruct_by_queries(clip, tmp_path / "out", weights, frames=7)
    assert not (tmp_path / "out").exists()
    given = ["reconstruct", clip, "--out", str(tmp_path / "out"), "--model", "d4rt", "--weights", weights]
    assert main([*given, "--cameras", "cameras.json"]) == 2
    assert "reads cameras from its own answers" in capsys.readouterr().err


def test_points_as_others_read_them(tmp_path):
    points = torch.tensor([[0.0, 1, 2], [torch.nan, 0, 0], [3, 4, 5]])
    colors = torch.tensor([[0.0, 0.5, 1], [0, 0, 0], [1, 1, 2]])
    assert write_points([(points, colors), (points[:1], colors[:1])], tmp_path / "points.ply") == 3
    rows = PlyData.read(tmp_path / "points.ply")["vertex"]
    assert rows["z"].tolist() == [2, 5, 2] and rows["green"].tolist() == [128, 255, 128]
    assert rows["blue"].tolist() == [255, 255, 255]


def test_points_of_a_clip_are_followed(files, tmp_path, capsys):
    clip, weights = files
    given = ["track", clip, "--model", "d4rt", "--weights", weights, "--out", str(tmp_path / "tracks.npz")]
    assert main([*given, "--points", "10,12,2", "--grid", "4", "--video", str(tmp_path / "tracks.mp4")]) == 0
    tracks = np.load(tmp_path / "tracks.npz")
    assert tracks["points"].shape == (6, 1 + 4 * 3, 3) and tracks["query_views"].tolist() == [2] + [0] * 12
    assert tracks["queries_xyt"][0].tolist() == [10, 12, 2]
    assert all(np.isfinite(tracks[name]).all() for name in ("points", "positions", "confidence"))
    assert (tmp_path / "tracks.mp4").stat().st_size > 0
    assert main(given) == 2 and "nothing to follow" in capsys.readouterr().err
