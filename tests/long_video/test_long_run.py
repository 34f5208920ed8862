"""A short walk reconstructed chunk by chunk by an oracle with errors: joints, segments, films, resuming, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from movies.data.synthetic_walk import Walk
from movies.data.walk_oracle import Errors, WalkOracle
from movies.long_paths import long_path
from movies.long_scene import LongScene
from movies.long_video import run as module
from movies.long_video.carry import ChunkTracks, join_tracks
from movies.long_video.plan import make_plan
from movies.long_video.run import JOB, Networks, reconstruct_chunks
from movies.metrics import trajectory_error
from movies.model.config import ModelConfig

WALK = Walk(3, 26, (28, 28))
ERRORS = Errors()
CHUNK, OVERLAP = 8, 3


def networks_of(oracle: WalkOracle) -> Networks:
    config = ModelConfig.preset("tiny")
    return Networks(lambda: oracle.look, lambda: oracle.splatter(config), 28, 14, torch.device("cpu"), {"oracle": {}})


def reconstruct_walk(
    out: Path, walk: Walk = WALK, errors: Errors = ERRORS, given: bool = False, say=lambda _: None, **options
) -> dict:
    oracle = WalkOracle(walk, errors, given)
    plan = make_plan(oracle.thumbnails(), **{"length": CHUNK, "overlap": OVERLAP, **options})
    return reconstruct_chunks(oracle, plan, networks_of(oracle), out, say)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.suffix in (".safetensors", ".npz", ".json")}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A world's frames are rendered in batches, and threads share these out: a resumed run's would round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def without_films(monkeypatch) -> None:
    """Films take most of the time, and are looked at once."""
    monkeypatch.setattr(module, "_films", lambda job, frames, networks, scene, folder: torch.zeros(len(scene.cameras)))


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("walk")
    return out, reconstruct_walk(out)


def test_chunks_of_different_units_become_one_walk(done):
    out, summary = done
    scene = LongScene.load(out)
    assert summary["chunks"] == len(scene.segments) == 5 and summary["frames"] == 26
    assert not summary["warnings"] and all(joint["fault"] == "" for joint in summary["joints"])
    scales = np.array([joint["scale"] for joint in summary["joints"]])
    assert abs(np.log(scales)).max() > 0.05  # the chunks' units do differ
    # Of a way of 0.75; turns of 0.002 a frame leave about 1 % of it
    assert trajectory_error(scene.cameras.c2w, WALK.cameras.c2w) < 0.02
    assert summary["input_psnr"] > 18
    assert sorted(p.name for p in out.iterdir()) == [
        "cameras.json", "input.mp4", "novel_view.mp4", "scene", "summary.json", "tracks"
    ]  # fmt: skip


def test_no_jump_at_the_joints(done):
    """The scene as the smoothed path sees it: steps in overlaps are like those elsewhere."""
    scene = LongScene.load(done[0])
    from movies.novel_views import render_path

    cameras, times = long_path("follow", scene, 51)
    pictures = torch.stack(list(render_path(scene, cameras, times, (28, 28))))
    steps = (pictures[1:] - pictures[:-1]).abs().mean(dim=(1, 2, 3))
    shown = [scene.weights(float(time)) for time in times[1:]]
    at_joints = torch.tensor([sum(moving > 0 for _, moving in weights.values()) > 1 for weights in shown])
    assert 0 < at_joints.sum() < 50
    assert steps[at_joints].mean() < 1.5 * steps[~at_joints].mean()


def test_a_killed_run_goes_on_where_it_was(done, tmp_path, monkeypatch, without_films):
    calls = []
    real = module.reconstruct

    def once_too_often(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "reconstruct", once_too_often)
    with pytest.raises(KeyboardInterrupt):
        reconstruct_walk(tmp_path)
    assert len(list((tmp_path / JOB).glob("scene_*"))) == 2 and not (tmp_path / "scene").exists()
    said = []
    summary = reconstruct_walk(tmp_path, say=said.append)
    assert said == ["going on: 2 of 5 chunks are there"]
    assert len(calls) == 3 + 3  # chunks 2, 3 and 4 only
    whole, resumed = (contents(folder) for folder in (done[0], tmp_path))
    assert whole.keys() == resumed.keys() and [k for k in whole if whole[k] != resumed[k]] == ["summary.json"]
    assert summary["joints"] == done[1]["joints"]


def test_a_job_of_another_clip_is_begun_anew(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "reconstruct", stop)
    for seed in (3, 4):
        with pytest.raises(KeyboardInterrupt):
            reconstruct_walk(tmp_path, Walk(seed, 12, (28, 28)))
    assert json.loads((tmp_path / JOB / "job.json").read_text())["clip"] == "walk-4-12"


def test_what_a_chunk_gives_depends_on_its_frames_alone(tmp_path, monkeypatch):
    """The chunk of the first frames is the same file whatever the overlap, and whatever was done before it."""
    monkeypatch.setattr(module, "_merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    files = []
    for overlap, frames in ((2, 14), (6, 20)):
        oracle = WalkOracle(Walk(3, 26, (28, 28)), ERRORS)
        plan = make_plan(oracle.thumbnails()[:frames], CHUNK, overlap)
        out = tmp_path / str(overlap)
        with pytest.raises(KeyboardInterrupt):
            reconstruct_chunks(oracle, plan, networks_of(oracle), out)
        files.append((out / JOB / "scene_0000.safetensors").read_bytes())
    assert files[0] == files[1]


def test_outliers_are_borne(tmp_path, without_films):
    summary = reconstruct_walk(tmp_path, errors=Errors(outliers=0.2))
    scene = LongScene.load(tmp_path)
    assert trajectory_error(scene.cameras.c2w, WALK.cameras.c2w) < 0.025
    assert all(0.5 < joint["inliers"] < 0.75 for joint in summary["joints"])  # 0.8 squared of the pixels are right


def test_given_cameras_stay_where_they_are(tmp_path, without_films):
    reconstruct_walk(tmp_path, given=True)
    found = LongScene.load(tmp_path).cameras
    torch.testing.assert_close(found.c2w, WALK.cameras.c2w, atol=2e-5, rtol=0)


def test_a_loop_is_closed(tmp_path, without_films):
    walk, drifting = Walk(5, 100, (28, 28), loop=True), Errors(turn=0.02, scale=0.1)
    errors = []
    for loops in (True, False):
        summary = reconstruct_walk(tmp_path / str(loops), walk, drifting, length=13, loops=loops)
        errors.append(trajectory_error(LongScene.load(tmp_path / str(loops)).cameras.c2w, walk.cameras.c2w))
        assert bool(summary["loops"]) == loops
        if loops:
            assert summary["loop_error"]["after"] < 0.5 * summary["loop_error"]["before"]
    assert errors[0] < 0.7 * errors[1]


def test_tracks_go_on_over_joints(done):
    out, _ = done
    parts = []
    for path in sorted((out / "tracks").iterdir()):
        with np.load(path) as held:
            values = {name: torch.from_numpy(held[name]) for name in held.files}
        parts.append(ChunkTracks(**values, next_id=torch.zeros(())))
    points, visible = join_tracks(parts, 26)
    known = points.isfinite().all(dim=-1)  # [F, P]
    lengths = known.sum(dim=0)
    assert lengths.max() > 2 * CHUNK and (lengths > CHUNK).float().mean() > 0.15
    # what is followed from the first frame on and stands still is where it was
    long = (lengths > CHUNK) & known[0]
    way = (points[:, long] - points[0, long]).norm(dim=-1)
    assert way[known[:, long]].median() < 0.05
    assert (visible & ~known).sum() == 0


def test_where_the_folder_cannot_be(tmp_path):
    from movies.errors import InputError

    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        reconstruct_walk(tmp_path / "file")


def test_a_full_disk_keeps_what_is_done(tmp_path, monkeypatch, without_films):
    from movies.long_video import chunks

    real, written = chunks.replacing_file, []

    def full(path):
        written.append(path)
        if len(written) > 8:
            raise OSError(28, "No space left on device", str(path))
        return real(path)

    monkeypatch.setattr(chunks, "replacing_file", full)
    with pytest.raises(OSError, match="No space left"):
        reconstruct_walk(tmp_path)
    assert list((tmp_path / JOB).glob("estimate_*")) and not (tmp_path / "scene").exists()
    monkeypatch.setattr(chunks, "replacing_file", real)
    assert reconstruct_walk(tmp_path)["chunks"] == 5


class Hall(Walk):
    """A walk that stands still, stumbles over two frames that are the same, or goes through the dark."""

    def times(self, positions):
        return super().times([{6: 5}.get(p, p) if self.seed == 3 else p for p in positions])

    def cameras_at(self, times, aside=0.0):
        return super().cameras_at(torch.full_like(times, 0.5) if self.seed == 4 else times, aside)

    def rendered(self, positions):
        first = 0
        for part in super().rendered(positions):
            dark = [self.seed == 5 and 9 <= p <= 12 for p in positions[first : first + len(part.images)]]
            first += len(part.images)
            yield replace(part, images=torch.where(torch.tensor(dark)[:, None, None, None], 0.0, part.images))


def test_two_identical_frames(tmp_path, without_films):
    summary = reconstruct_walk(tmp_path, Hall(3, 20, (28, 28)))
    assert not summary["warnings"] and summary["frames"] == 20


def test_a_camera_that_stands_still_is_said(tmp_path, without_films):
    summary = reconstruct_walk(tmp_path, Hall(4, 20, (28, 28)), Errors(turn=0.0))
    assert any("camera hardly moves" in text for text in summary["warnings"])
    assert all(joint["fault"] == "" for joint in summary["joints"])


def test_a_black_stretch_is_left_out(tmp_path):
    summary = reconstruct_walk(tmp_path, Hall(5, 26, (28, 28)))
    assert summary["frames"] == 22 and summary["shots"] == 1
    assert summary["warnings"] == ["4 frames between 9 and 12 show nothing or stand alone, and are left out"]


class Spliced:
    """Two walks one after the other."""

    def __init__(self, *oracles: WalkOracle) -> None:
        self.oracles, self.cameras, self.name = oracles, oracles[0].cameras, "spliced"

    def __len__(self) -> int:
        return sum(map(len, self.oracles))

    def thumbnails(self) -> torch.Tensor:
        return torch.cat([oracle.thumbnails() for oracle in self.oracles])

    def stream(self, positions):
        first, second = self.oracles
        yield from first.stream([p for p in positions if p < len(first)])
        yield from second.stream([p - len(first) for p in positions if p >= len(first)])


def test_a_cut_begins_a_world_of_its_own(tmp_path, without_films):
    oracles = [WalkOracle(Walk(seed, 10, (28, 28)), ERRORS) for seed in (3, 6)]
    oracles[1]._frames = oracles[0]._frames  # who is asked knows the frames of both
    frames, plan = Spliced(*oracles), make_plan(Spliced(*oracles).thumbnails(), CHUNK, OVERLAP)
    summary = reconstruct_chunks(frames, plan, networks_of(oracles[0]), tmp_path)
    assert summary["shots"] == 2 and [joint["chunks"] for joint in summary["joints"]] == [[0, 1], [2, 3]]
    assert "begins at frame 10" in summary["warnings"][0]
    scene = LongScene.load(tmp_path)
    torch.testing.assert_close(scene.cameras.c2w[10], torch.eye(4), atol=1e-4, rtol=0)
