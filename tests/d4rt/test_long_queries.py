"""Clips longer than D4RT reads together: chunks of a walk answered by an oracle, joined; and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from movies import load_cameras
from movies.cli import main
from movies.d4rt.oracle import QueryOracle
from movies.data.synthetic_walk import Walk
from movies.data.walk_oracle import Errors, WalkOracle
from movies.errors import InputError
from movies.long_queries import QueryNetworks, found_again, reconstruct_long_by_queries
from movies.long_scene import LongScene
from movies.long_tracks import follow_through
from movies.long_video.carry import ChunkTracks, join_tracks
from movies.long_video.plan import make_plan
from movies.long_video.run import JOB, reconstruct_chunks
from movies.metrics import trajectory_error
from movies.model.weights import save_weights
from movies.tracks import Queries
from movies.video import write_video

SIZE = (28, 28)
WALK = Walk(3, 60, SIZE)


def reconstruct_walk(out: Path, errors: Errors = Errors(), walk: Walk = WALK) -> dict:  # noqa: B008
    oracle = WalkOracle(walk, errors)
    plan = make_plan(oracle.thumbnails(), 20, 5)
    networks = QueryNetworks(lambda: QueryOracle(oracle), SIZE, torch.device("cpu"), {"oracle": {}})
    return reconstruct_chunks(oracle, plan, networks, out)


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("walk")
    return out, reconstruct_walk(out)


def test_chunks_of_different_units_become_one_walk(walked):
    """Of a way of 1.77: turns of 0.002 a frame leave 1 % of it; the units differ by more than that."""
    out, summary = walked
    assert summary["chunks"] == 4 and summary["frames"] == 60 and not summary["warnings"]
    scales = np.array([joint["scale"] for joint in summary["joints"]])
    assert abs(np.log(scales)).max() > 0.05
    assert trajectory_error(load_cameras(out / "cameras.json").c2w, WALK.cameras.c2w) < 0.015


def test_the_most_confident_points_bear_outliers(tmp_path):
    walk = Walk(3, 35, SIZE)
    summary = reconstruct_walk(tmp_path, Errors(outliers=0.2), walk)
    assert trajectory_error(LongScene.load(tmp_path).cameras.c2w, walk.cameras.c2w) < 0.015
    assert all(0.5 < joint["inliers"] < 0.75 for joint in summary["joints"])  # 0.8 squared of the pixels are right


def test_depth_and_points_of_the_whole_clip_are_in_one_unit(walked):
    out, summary = walked
    with np.load(out / "depth.npz") as held:
        depth, frames = torch.from_numpy(held["depth"]), held["frames"]
    assert depth.shape == (60, *SIZE) and frames.tolist() == list(range(60))
    true = torch.cat([part.depth for part in WALK.rendered(list(range(60)))])
    ratios = (depth / true).flatten(1).median(dim=1).values
    assert ratios.max() / ratios.min() < 1.05  # chunks alone differ by 15 %
    rows = PlyData.read(out / "points.ply")["vertex"]
    assert len(rows["x"]) == summary["num_points"] == depth.numel()
    cloud = torch.from_numpy(np.stack([rows[name] for name in "xyz"], axis=-1)).reshape(60, -1, 3)
    cameras = load_cameras(out / "cameras.json")
    z = ((cloud - cameras.centers[:, None]) @ cameras.c2w[:, :3, 2:])[..., 0]  # [F, H W]
    assert ((z / depth.flatten(1) - 1).abs() < 0.02).float().mean() > 0.95


def test_tracks_go_on_over_joints(walked):
    parts = []
    for path in sorted((walked[0] / "tracks").iterdir()):
        with np.load(path) as held:
            parts.append(ChunkTracks(**{k: torch.from_numpy(held[k]) for k in held.files}, next_id=torch.zeros(())))
    points, visible = join_tracks(parts, 60)
    known = points.isfinite().all(dim=-1)
    lengths = known.sum(dim=0)
    assert lengths.max() > 20 and (lengths > 20).float().mean() > 0.1 and not (visible & ~known).any()
    long = (lengths > 20) & known[0]
    assert (points[:, long] - points[0, long]).norm(dim=-1)[known[:, long]].median() < 0.05


def test_a_track_goes_on_where_it_was_seen_last():
    visible = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0]]).bool()  # [V, P]
    positions = torch.arange(12.0).reshape(4, 3, 1).expand(4, 3, 2) / 12
    before = ChunkTracks(
        torch.arange(4), torch.tensor([7, 8, 9]), torch.zeros(4, 3, 3), positions, visible, torch.ones(())
    )
    ids, queries = found_again(before, torch.arange(2, 6))
    assert ids.tolist() == [7, 8] and queries.views.tolist() == [0, 1]
    assert torch.equal(queries.positions, torch.stack([positions[2, 0], positions[3, 1]]))


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    read, calls, walk = QueryNetworks._read_chunk, [], Walk(3, 35, SIZE)

    def once_too_often(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        read(*given)

    monkeypatch.setattr(QueryNetworks, "_read_chunk", once_too_often)
    with pytest.raises(KeyboardInterrupt):
        reconstruct_walk(tmp_path, walk=walk)
    assert len(list((tmp_path / JOB).glob("scene_*"))) == 1 and not (tmp_path / "scene").exists()
    summary = reconstruct_walk(tmp_path, walk=walk)
    assert [joint["fault"] for joint in summary["joints"]] == [""] and len(calls) == 2 + 1


def test_points_are_followed_through_chunks_in_both_directions():
    """Points that stand still and are asked for in the middle stay where they are for as long as they are seen."""
    walk = Walk(4, 40, SIZE)
    oracle = WalkOracle(walk, Errors(scale=0.1, turn=0.0, way=0.0, depth=0.0))
    networks = QueryNetworks(lambda: QueryOracle(oracle), SIZE, torch.device("cpu"), {})
    asked = Queries.grid(*SIZE, 4, torch.tensor([20]))
    plan = make_plan(oracle.thumbnails(), 16, 6)
    assert len(plan.chunks) == 4
    tracks = follow_through(oracle, plan, networks, asked)
    seen, own = tracks.points.isfinite().all(dim=-1), torch.arange(len(asked))
    assert seen[20].all() and tracks.visible[20].float().mean() > 0.9
    lengths = seen.sum(dim=0)
    assert lengths.max() > 20 and seen[:12].any() and seen[30:].any()
    assert torch.allclose(tracks.positions[20], asked.positions, atol=1e-4)
    way = (tracks.points - tracks.points[20, own]).norm(dim=-1)[seen]
    assert way.median() < 0.01 and way.quantile(0.9) < 0.05  # of a way of 1.2
    assert trajectory_error(tracks.cameras.c2w, walk.cameras.c2w) < 0.005


@pytest.fixture
def files(model, tmp_path) -> tuple[str, str]:
    """A video of 14 frames of 32x24, and weights that know 6."""
    frames = torch.rand(14, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    write_video(tmp_path / "clip.mp4", frames, 6.0)
    save_weights(model, tmp_path / "d4rt.safetensors")
    return str(tmp_path / "clip.mp4"), str(tmp_path / "d4rt.safetensors")


def test_the_command_takes_all_frames(files, tmp_path, capsys):
    clip, weights = files
    out = tmp_path / "out"
    given = ["reconstruct", clip, "--out", str(out), "--model", "d4rt", "--weights", weights]
    assert main([*given, "--frames", "all", "--overlap", "2"]) == 0
    said = capsys.readouterr().out
    assert "14 frames in 3 chunks of up to 6" in said and "times fewer" in said
    names = {"depth.mp4", "depth.npz", "cameras.json", "tracks", "points.ply", "scene", "input.mp4", "summary.json"}
    assert {path.name for path in out.iterdir()} == names
    summary = json.loads((out / "summary.json").read_text())
    assert len(load_cameras(out / "cameras.json")) == summary["frames"] == 14
    assert summary["naive_queries"] == 3 * 6 * 6 * 12 * 16 and summary["dense_seconds"] > 0
    assert len(LongScene.load(out).segments) == 3


def test_track_takes_all_frames(files, tmp_path, capsys):
    clip, weights = files
    given = ["track", clip, "--frames", "all", "--out", str(tmp_path / "tracks.npz"), "--points", "10,12,9"]
    video = ["--video", str(tmp_path / "tracks.mp4")]
    assert main([*given, *video, "--model", "d4rt", "--weights", weights]) == 0
    with np.load(tmp_path / "tracks.npz") as tracks:
        assert tracks["points"].shape == (14, 1, 3) and tracks["queries_xyt"].tolist() == [[10, 12, 9]]
        assert np.isfinite(tracks["points"][9]).all() and np.isfinite(tracks["positions"]).all()
    assert (tmp_path / "tracks.mp4").stat().st_size > 0
    assert main(given) == 2 and "is for --model d4rt" in capsys.readouterr().err


def test_what_fits_one_chunk_goes_the_ordinary_way(files, tmp_path):
    clip, weights = files
    for name, frames in (("a", 5), ("b", 6)):
        reconstruct_long_by_queries(clip, tmp_path / name, weights, frames)
        assert (tmp_path / name / "scene.safetensors").is_file()


def test_refusals(files, tmp_path, capsys):
    clip, weights = files
    with pytest.raises(InputError, match="read at most 6 frames together; give --chunk 6 or fewer"):
        reconstruct_long_by_queries(clip, tmp_path / "out", weights, chunk=7)
    with pytest.raises(InputError, match="chunks of 4 frames cannot share 4"):
        reconstruct_long_by_queries(clip, tmp_path / "out", weights, chunk=4, overlap=4)
    assert not (tmp_path / "out").exists()
    given = ["reconstruct", clip, "--out", str(tmp_path / "out"), "--model", "d4rt", "--weights", weights]
    assert main([*given, "--memory", "8G"]) == 2
    assert "give --chunk" in capsys.readouterr().err
