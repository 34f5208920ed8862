"""The trainer end to end: it learns, resumes to the bit, stops cleanly, and keeps what is not finite out."""

import itertools
import json
import os
import signal
from dataclasses import replace

import pytest
import torch
import train_worker
from safetensors.torch import load_file

from movies import objective
from movies.data.synthetic import SyntheticSequence
from movies.errors import InputError
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.train import trainer
from movies.train.engine import Engine
from movies.train.optim import AdamW
from movies.train.stage import load_stages
from movies.train.start import start_model
from movies.train.trainer import MAX_SKIPPED_IN_A_ROW, StageRun, train
from movies.video import image_size


def weights(out, stage):
    return load_file(out / stage / "model.safetensors")


def events(out, stage, kind):
    lines = (out / stage / "log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def assert_equal(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_folder_runs_in_order_each_stage_from_the_one_before(stages, tmp_path):
    out = tmp_path / "out"
    assert train(stages(), out, max_steps=2, device="cpu") == f"trained a, b into {out}"
    model = MoVieS.from_pretrained(out / "b" / "model.safetensors")
    assert model.config.patch_size == 7
    # MoVieS started from VGGT: two steps of 5e-4 have not moved it far
    theirs, own = weights(out, "a"), weights(out, "b")
    name = "frame_blocks.0.attn.qkv.weight"
    assert (theirs[f"aggregator.{name}"] - own[f"backbone.{name}"]).abs().max() < 2e-3
    (validation,) = events(out, "b", "validation")
    assert {"loss", "depth", "motion", "mse", "ssim", "psnr", "absrel", "motion_error"} <= validation.keys()
    for stage, rows in (("a", 3), ("b", 6)):  # a column for each of two clips
        (sheet,) = (out / stage / "pictures").iterdir()
        assert sheet.name == "step-00000002.png" and image_size(sheet)[0] > rows * 28 and image_size(sheet)[1] > 2 * 28
    assert ["LPIPS term is off" in event["text"] for event in events(out, "b", "note")] == [True]
    assert len(events(out, "b", "train")) == 2 and events(out, "a", "finished")[0]["step"] == 2
    before = (out / "b" / "model.safetensors").stat().st_mtime_ns
    train(stages(), out, resume=True, device="cpu")  # all finished: nothing happens
    assert (out / "b" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("optim", ["", "ema = 0.9\naccumulation = 2\nwarmup = 2\nclip = 0.1"])
def test_a_run_killed_and_resumed_equals_an_uninterrupted_one(stages, tmp_path, monkeypatch, optim):
    folder = stages(names=("b",), optim=optim)
    train(folder, tmp_path / "whole", device="cpu")

    class Killed(BaseException):
        pass

    advance = StageRun.advance

    def killed(run, sums, seconds):
        advance(run, sums, seconds)
        if run.progress.step == 3:
            raise Killed  # after the checkpoint of step 2

    with monkeypatch.context() as patch:
        patch.setattr(StageRun, "advance", killed)
        with pytest.raises(Killed):
            train(folder, tmp_path / "parts", device="cpu")
    train(folder, tmp_path / "parts", resume=True, device="cpu")
    assert events(tmp_path / "parts", "b", "start")[1]["step"] == 2
    assert_equal(weights(tmp_path / "whole", "b"), weights(tmp_path / "parts", "b"))


def test_the_deadline_stops_at_a_checkpoint_and_resume_goes_on(stages, tmp_path):
    folder, out = stages(names=("b",)), tmp_path / "out"
    told = train(folder, out, max_minutes=0, device="cpu")
    assert told == "stopped in stage b at step 1; continue with --resume"
    assert [path.name for path in out.glob("b/step-*")] == ["step-00000001"]
    train(folder, out, resume=True, device="cpu")
    train(folder, tmp_path / "whole", device="cpu")
    assert_equal(weights(tmp_path / "whole", "b"), weights(out, "b"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_a_checkpoint_first(stages, tmp_path, monkeypatch, number):
    accumulate = StageRun.accumulate

    def interrupted(run):
        for _ in range(2):  # in the middle of a step; a launcher passes on what the group was told
            os.kill(os.getpid(), number)
        return accumulate(run)

    monkeypatch.setattr(StageRun, "accumulate", interrupted)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        train(stages(names=("b",)), tmp_path / "out", device="cpu")
    assert [path.name for path in (tmp_path / "out").glob("b/*step-*")] == ["step-00000001"]
    assert signal.getsignal(number) is before


def test_a_later_request_interrupts_at_once(stages, tmp_path, monkeypatch):
    monkeypatch.setattr("movies.train.trainer.ONE_REQUEST", 0.0)
    monkeypatch.setattr(StageRun, "accumulate", lambda run: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        train(stages(names=("b",)), tmp_path / "out", device="cpu")
    assert not list((tmp_path / "out").glob("b/*step-*"))


def test_gradients_that_are_not_finite_never_reach_the_weights(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(StageRun, "predict", train_worker.poisoned(StageRun.predict, (1, 2)))
    train(stages(names=("b",)), tmp_path / "out", device="cpu")
    skipped = events(tmp_path / "out", "b", "skipped")
    assert [event["step"] for event in skipped] == [1, 2]
    assert any("depth_head" in name for name in skipped[0]["where"])
    assert len(skipped[0]["samples"]) == 2 and skipped[0]["samples"][0].startswith("synthetic")
    assert events(tmp_path / "out", "b", "train")[-1]["skipped_steps"] == 2
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "out", "b").values())


def test_a_loss_that_is_not_finite_names_its_sample(stages, tmp_path, monkeypatch):
    depth_loss = objective.losses.log_depth_loss

    def poisoned(depth, target, mask):
        values = depth_loss(depth, target, mask)
        return values + torch.tensor([0.0, float("inf")]) if torch.is_grad_enabled() else values

    monkeypatch.setattr(objective.losses, "log_depth_loss", poisoned)
    with pytest.raises(InputError, match=f"b: {MAX_SKIPPED_IN_A_ROW} steps in a row without a finite gradient; see"):
        train(stages(names=("b",), steps=20), tmp_path / "out", device="cpu")
    skipped = events(tmp_path / "out", "b", "skipped")
    assert [len(event["samples"]) for event in skipped] == [1] * MAX_SKIPPED_IN_A_ROW


def test_loss_spikes_and_parameters_without_a_gradient_are_reported(stages, tmp_path, monkeypatch):
    forward = StageRun.forward

    def spiking(run, loaded, model=None):
        terms = forward(run, loaded, model)
        if run.progress.step == 3:
            return replace(terms, losses={name: 50 * value for name, value in terms.losses.items()})
        return terms

    monkeypatch.setattr(StageRun, "forward", spiking)
    monkeypatch.setattr(trainer, "SPIKE_SETTLING", 2)
    unrendered = 'depth_kind = "log"\nmotion_kind = "squared"\nmotion = 1.0\nmse = 0.0\nlpips = 0.0'
    train(stages(names=("b",), loss=unrendered), tmp_path / "out", device="cpu")
    (spike,) = events(tmp_path / "out", "b", "spike")
    assert spike["step"] == 3 and spike["loss"] > 10 * spike["usual"] and len(spike["samples"]) == 2
    (silent,) = events(tmp_path / "out", "b", "no gradient")
    assert silent["count"] == len(silent["where"]) and {n.split(".")[0] for n in silent["where"]} >= {"splat_head"}


def test_clipping_acts_at_every_step(stages, tmp_path, monkeypatch):
    norms, step = [], Engine.step

    def watched(engine):
        result = step(engine)
        norms.append(float(result))
        return result

    seen, inner = [], AdamW.step

    def updated(optimizer, closure=None):
        seen.append(torch.cat([p.grad.flatten() for g in optimizer.param_groups for p in g["params"]]).norm().item())
        inner(optimizer, closure)

    monkeypatch.setattr(Engine, "step", watched)
    monkeypatch.setattr(AdamW, "step", updated)
    train(stages(names=("b",), optim="clip = 1e-3"), tmp_path / "out", device="cpu")
    assert len(seen) == 4 and min(norms) > 0.01 and max(seen) <= 1.0001e-3


def test_the_ray_embedding_learns_from_the_first_step(stages, tmp_path):
    folder, out = stages(steps=1), tmp_path / "out"
    train(folder, out, device="cpu")  # b starts from the VGGT of a, where the rays count nothing at first
    start, end = start_model(load_stages(folder / "b.toml")[0].stage, out).state_dict(), weights(out, "b")
    moved = {name for name in end if name.startswith("plucker") and not torch.equal(start[name], end[name])}
    assert "plucker_ln.weight" in moved


def poison(monkeypatch, every):
    """Every `every`th reading of a world fails, or holds a NaN image, or a NaN depth, in turn."""
    read, count = SyntheticSequence.read, itertools.count()

    def poisoned(sequence, indices):
        number = next(count)
        views, tracks = read(sequence, indices)
        if number % every == 0:
            kind = number // every % 3
            if kind == 0:
                raise InputError("rgb_00003.png: is truncated")
            (views.images if kind == 1 else views.depth)[0, ..., 3] = float("nan")
            views.depth_mask[0] = True
        return views, tracks

    monkeypatch.setattr(SyntheticSequence, "read", poisoned)


def test_broken_samples_are_named_and_replaced_and_the_run_goes_on(stages, tmp_path, monkeypatch):
    poison(monkeypatch, every=2)
    folder = stages(names=("b",), steps=3)
    path = folder / "b.toml"
    path.write_text(path.read_text().replace("workers = 0", "workers = 0\nmax_broken_rate = 0.5"))
    train(folder, tmp_path / "out", device="cpu")
    broken = events(tmp_path / "out", "b", "broken")
    told = {event["reason"].split(": ")[-1] for event in broken}
    assert told == {"is truncated", "images hold numbers that are not finite", "depth hold numbers that are not finite"}
    assert all(event["name"].startswith("synthetic-") for event in broken)
    assert not events(tmp_path / "out", "b", "skipped") and events(tmp_path / "out", "b", "finished")
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "out", "b").values())


def test_too_many_broken_samples_end_the_run(stages, tmp_path, monkeypatch):
    poison(monkeypatch, every=2)
    folder = stages(names=("b",), steps=30)
    path = folder / "b.toml"
    path.write_text(path.read_text().replace("workers = 0", "workers = 0\nmax_broken_rate = 0.02"))
    with pytest.raises(InputError, match=r"\d of \d+ samples were broken, more than .* 0.02 allows"):
        train(folder, tmp_path / "out", device="cpu")
    assert len(events(tmp_path / "out", "b", "broken")) in (
        3,
        4,
    )  # 2 of the first hundred may be; a batch has two clips


def test_a_budget_of_images_takes_batches_in_parts_and_steps_stay_whole(stages, tmp_path):
    folder = stages(names=("b",), steps=3)
    path = folder / "b.toml"
    shapes = "images_per_device = 3\naspect = [0.5, 2.0]"
    path.write_text(path.read_text().replace("workers = 0", f"workers = 0\n{shapes}").replace("render_size", "#"))
    train(folder, tmp_path / "out", device="cpu")
    assert [event["step"] for event in events(tmp_path / "out", "b", "train")] == [1, 2, 3]


def test_one_clip_can_be_learned_by_heart(stages, tmp_path):
    folder = stages(number=1, frames=2, views=2, steps=40, names=("b",))
    train(folder, tmp_path / "out", device="cpu")
    losses = [event["loss"] for event in events(tmp_path / "out", "b", "train")]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_runs_are_not_mixed_and_beginnings_must_exist(stages, tmp_path):
    folder, out = stages(), tmp_path / "out"
    (folder / "a.toml").unlink()
    with pytest.raises(InputError, match=r"b\.toml: `init` = 'a' is neither an earlier stage \(random\) nor a"):
        train(folder, out, device="cpu")
    folder = stages(steps=1)
    train(folder / "a.toml", out, device="cpu")
    with pytest.raises(InputError, match="holds a run already; give --resume"):
        train(folder, out, device="cpu")
    train(folder / "b.toml", out, device="cpu")  # from what stage a left in OUT


def test_a_stage_starts_from_another_patch_size_and_from_the_other_network(stages, tmp_path):
    folder, out = stages(steps=1, names=("b",)), tmp_path / "out"
    train(folder, out, device="cpu")
    path = folder / "b.toml"
    text = path.read_text().replace('init = "random"', f'init = "{out / "b" / "model.safetensors"}"')
    path.write_text('name = "c"\n' + text.replace("patch_size = 7", "patch_size = 14"))
    train(folder, out, device="cpu")
    assert MoVieS.from_pretrained(out / "c" / "model.safetensors").config.patch_size == 14
    vggt = text.replace('network = "movies"', 'network = "vggt"').split("[loss]")[0]
    path.write_text('name = "d"\n' + vggt)
    train(folder, out, device="cpu")
    assert VGGT.from_pretrained(out / "d" / "model.safetensors").config.patch_size == 7


def test_dry_run_tells_the_plan_and_writes_nothing(stages, tmp_path):
    plan = train(stages(), tmp_path / "out", dry_run=True)
    assert "a: vggt" in plan and "b: movies" in plan and not (tmp_path / "out").exists()


def test_rays_count_from_the_first_step_where_a_stage_says_so(stages, tmp_path):
    folder, out = stages(steps=1), tmp_path / "out"
    train(folder / "a.toml", out, device="cpu")
    path = folder / "b.toml"
    path.write_text(path.read_text().replace("patch_size = 7", "patch_size = 7\nray_gain = 0.5"))
    stage = load_stages(path)[0].stage
    assert (start_model(stage, out).plucker_ln.weight == 0.5).all()
