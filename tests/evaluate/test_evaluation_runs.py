"""Running protocols: networks, folders of answers, refusals, resuming."""

import json
import re
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_protocols import SHORT, predict, root_of, short

from movies.errors import InputError
from movies.evaluate import runner
from movies.evaluate.cases import Case
from movies.evaluate.methods import MethodSpec
from movies.evaluate.predictions import Prediction, protocol_mark, write_mark
from movies.evaluate.protocol import Frames, Protocol, load_protocol
from movies.evaluate.readers import open_scenes


@pytest.mark.parametrize("name", list(SHORT))
def test_every_protocol_runs_with_networks(name, data, tmp_path, small_networks):
    report = runner.evaluate(short(name), small_networks, root_of(data, name), tmp_path)
    assert not report.failed and set(report.json()["absent"]) <= {"lpips_vgg", "lpips_alex"}
    assert all(value is not None for value in report.mean.values())
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["protocol"]["id"] == name and len(stored["method"]["weights"]["sha256"]) == 64
    assert stored["counts"]["failed"] == 0 and stored["cost"]["seconds"] > 0
    assert len(list((tmp_path / "pictures").glob("*.png"))) >= len(report.scenes)
    assert "| lowest" in (tmp_path / "report.md").read_text()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["synthetic_worlds", "synthetic_cameras", "synthetic"])
def test_cuda_answers_as_the_cpu_does(name, small_networks):
    if name == "synthetic":
        options = {"num_clips": 1, "difficulty": 0.0, "size": 28}
        protocol = load_protocol(name).model_copy(update={"options": options, "num_scenes": 2})
    else:
        protocol = short(name)
    reports = [runner.evaluate(protocol, replace(small_networks, device=device)) for device in ("cpu", "cuda")]
    assert not reports[1].failed and reports[1].mean == pytest.approx(reports[0].mean, rel=0.02, abs=0.02)


def test_models_beside_one_another(data, tmp_path):
    """Their columns stand in one table, but not where one of them failed on a scene."""
    protocol, root = short("tapvid3d"), root_of(data, "tapvid3d")
    spec = predict(tmp_path / "answers", protocol, root)
    (tmp_path / "answers/protocol.json").write_text(json.dumps(protocol_mark(protocol) | {"method": "the truth"}))
    text, failed = runner.evaluate_beside(("still",), protocol, spec, root, tmp_path / "out")
    assert not failed and re.search(r"\| tapvid3d v1 +\| the truth \| nothing moves \| \(1\) D4RT", text)
    assert re.search(r"\| oa ↑ +\| 1 +\| 0\.", text) and (tmp_path / "out/still/report.json").exists()
    (tmp_path / "answers/adt/video1.npz").unlink()
    text, failed = runner.evaluate_beside(("still",), protocol, spec, root, None)
    assert failed and "FAILED adt/video1" in text and "not side by side: only one of them scored adt/video1" in text


def test_a_method_that_estimates_cameras_sees_none(data):
    protocol = short("sintel")
    (case,) = runner.cases_of(open_scenes(protocol, root_of(data, "sintel"))[0], protocol)
    still = torch.eye(4).expand(4, 4, 4)
    assert torch.equal(case.inputs.cameras.c2w, still) and not torch.equal(case.context.cameras.c2w, still)
    assert case.inputs.cameras.fxfycxcy[0, 0] != case.context.cameras.fxfycxcy[0, 0]


def test_inputs_for_methods_elsewhere(data, tmp_path):
    protocol = short("tapvid3d_13")
    assert runner.export_inputs(protocol, root_of(data, "tapvid3d_13"), tmp_path) == 2
    with np.load(tmp_path / "adt/video1.npz") as file:
        assert file["images"].shape == (3, 3, 24, 32) and file["images"].dtype == np.uint8
        assert file["c2w"].shape == (3, 4, 4) and file["queries"].shape[1] == 3
    report = runner.evaluate(protocol, MethodSpec(predictions=str(tmp_path)), root_of(data, "tapvid3d_13"))
    assert "video1.npz: unknown array " in report.failed["adt/video1"]  # inputs are no answers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: replace(p, c2w=p.c2w[:2]), "`c2w` has length 2, the protocol asks for 4"),
        (lambda p: replace(p, c2w=p.c2w.index_fill(0, torch.tensor([1]), torch.nan)), "`c2w` holds 16 of 64 numbers"),
        (lambda p: replace(p, c2w=p.c2w[:, :3]), r"c2w` must have shape \[4, 4, 4\], got \[4, 3, 4\]"),
    ],
)
def test_wrong_predictions_fail_their_scene_and_are_counted(data, tmp_path, change, message):
    protocol = short("kitti_odometry")
    spec = predict(tmp_path, protocol, root_of(data, "kitti_odometry"), lambda prediction, case: change(prediction))
    report = runner.evaluate(protocol, spec, root_of(data, "kitti_odometry"))
    assert not report.scenes and report.json()["counts"] == {"scored": 0, "failed": 1}
    assert re.search(message, report.failed["00"])
    assert "1 of 1 scenes failed and are not in the mean:" in report.markdown()


def test_missing_scenes_are_listed(data):
    protocol = load_protocol("sintel")
    with pytest.raises(InputError, match=r"13 of the 14 scenes of sintel are missing: ambush_4, .*temple_3; download"):
        runner.evaluate(protocol, MethodSpec(), root_of(data, "sintel"))
    with pytest.raises(InputError, match="kitti_depth has 13 scenes, 1 are there: 2011_09_26_drive"):
        runner.evaluate("kitti_depth", MethodSpec(), root_of(data, "kitti_depth"))
    with pytest.raises(InputError, match="sintel has no scene 'alley_9'; it has alley_2, ambush_4"):
        runner.evaluate(protocol, MethodSpec(), root_of(data, "sintel"), scenes=("alley_9",))
    with pytest.raises(InputError, match="sintel needs --data"):
        runner.evaluate(protocol, MethodSpec())


def test_predictions_for_another_version_are_refused(data, tmp_path):
    protocol = short("kitti_odometry")
    spec = predict(tmp_path, protocol, root_of(data, "kitti_odometry"))
    with pytest.raises(InputError, match="made for version 1, the protocol 'kitti_odometry' has 2"):
        runner.evaluate(protocol.model_copy(update={"version": 2}), spec, root_of(data, "kitti_odometry"))


def test_a_run_goes_on_and_equals_an_unbroken_one(data, tmp_path, monkeypatch):
    """A scene without its prediction fails; put there, it alone is scored, and the report is that of one run."""
    protocol, root = short("tapvid3d"), root_of(data, "tapvid3d")
    spec = predict(tmp_path / "answers", protocol, root)
    lost, kept = tmp_path / "answers/adt/video1.npz", tmp_path / "kept.npz"
    lost.rename(kept)
    broken = runner.evaluate(protocol, spec, root, tmp_path / "run")
    assert "no such file; this case has no prediction" in broken.failed["adt/video1"] and len(broken.scenes) == 1
    kept.rename(lost)
    scored = []
    score = runner.Worker.score
    monkeypatch.setattr(runner.Worker, "score", lambda self, scene: (scored.append(scene.name), score(self, scene))[1])
    report = runner.evaluate(protocol, spec, root, tmp_path / "run")
    assert scored == ["adt/video1"] and not report.failed
    runner.evaluate(protocol, spec, root, tmp_path / "other")
    first, second = (json.loads((tmp_path / place / "report.json").read_text()) for place in ("run", "other"))
    assert first.pop("cost") and second.pop("cost") and first == second
    with pytest.raises(InputError, match=r"run holds a run with protocol.choices.frames.limit = 4, this one has 5"):
        changed = protocol.model_copy(update={"frames": Frames(limit=5)})
        runner.evaluate(changed, predict(tmp_path / "answers", changed, root), root, tmp_path / "run")


def test_processes_give_what_one_gives(data, tmp_path):
    protocol, root = short("tapvid3d"), root_of(data, "tapvid3d")
    spec = predict(tmp_path, protocol, root)
    alone, together = (runner.evaluate(protocol, spec, root, workers=n).json() for n in (1, 2))
    assert alone.pop("cost") and together.pop("cost") and alone == together
    with pytest.raises(InputError, match="workers must be at least 1"):
        runner.evaluate(protocol, spec, root, workers=0)


def test_a_process_that_dies_takes_its_scenes_alone(data, tmp_path, monkeypatch):
    class Broken(ThreadPoolExecutor):
        def __init__(self, *given):
            super().__init__(1)

        def submit(self, function, scene):
            future = Future()
            future.set_exception(BrokenProcessPool("terminated abruptly"))
            return future

    monkeypatch.setattr(runner, "ProcessPoolExecutor", Broken)
    protocol, root = short("tapvid3d"), root_of(data, "tapvid3d")
    report = runner.evaluate(protocol, predict(tmp_path, protocol, root), root, workers=2)
    assert report.json()["counts"] == {"scored": 0, "failed": 2}
    assert report.failed["adt/video1"] == "its process died (terminated abruptly); fewer --workers need less"


def test_answers_that_are_no_arrays_fail_their_scene(data, tmp_path):
    protocol, root = short("tapvid3d"), root_of(data, "tapvid3d")
    spec = predict(tmp_path, protocol, root)
    path = tmp_path / "adt/video1.npz"
    path.write_bytes(path.read_bytes()[:100])
    report = runner.evaluate(protocol, spec, root)
    assert "video1.npz: cannot be read as arrays (.npz)" in report.failed["adt/video1"] and len(report.scenes) == 1


def test_a_defect_in_one_scene_does_not_end_the_run(data, tmp_path, monkeypatch):
    protocol, root = short("tapvid3d"), root_of(data, "tapvid3d")
    spec = predict(tmp_path, protocol, root)
    load = runner.Worker._score_cases

    def fail_once(self, scene):
        if scene.name == "adt/video1":
            raise ZeroDivisionError("three by naught")
        return load(self, scene)

    monkeypatch.setattr(runner.Worker, "_score_cases", fail_once)
    report = runner.evaluate(protocol, spec, root)
    assert report.failed == {"adt/video1": "ZeroDivisionError: three by naught"} and len(report.scenes) == 1


def test_what_is_not_answered_is_said(data, tmp_path):
    protocol = short("synthetic_worlds")

    def change(prediction: Prediction, case: Case) -> Prediction:
        return replace(prediction, flow=Prediction().flow)

    spec = predict(tmp_path, protocol, "", change, ("static/000",))
    report = runner.evaluate(protocol, spec, scenes=("static/000",))
    assert report.json()["absent"]["flow"] == "the method gives no flow" and "flow_epe" not in report.mean
    assert report.json()["absent"]["lpips_vgg"] == "no file of its weights was given (--lpips)"


def test_sequences_that_are_too_short_fail(data, tmp_path):
    protocol = short("tapvid3d").model_copy(update={"frames": Frames(context=13)})
    report = runner.evaluate(protocol, predict_nothing(tmp_path, protocol), root_of(data, "tapvid3d"))
    assert report.failed["adt/video1"] == "adt/video1: 6 input frames, 13 are needed"


def predict_nothing(folder: Path, protocol: Protocol) -> MethodSpec:
    write_mark(folder, protocol)
    return MethodSpec(predictions=str(folder))
