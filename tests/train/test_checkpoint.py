"""Checkpoints: everything comes back, half a checkpoint counts for nothing."""

import pytest
import torch

from movies.model.config import ModelConfig
from movies.model.network import MoVieS
from movies.train import checkpoint
from movies.train.checkpoint import (
    AVERAGE,
    MODEL,
    Progress,
    clear_parts,
    latest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from movies.train.engine import Engine
from movies.train.optim import make_optimizer
from movies.train.start import load_network


def trained(seed):
    """A network after one step, and the engine that holds its optimiser."""
    torch.manual_seed(seed)
    model = MoVieS(ModelConfig.preset("tiny"))
    optimizer = make_optimizer(model, 1e-3, [("depth_head", 0.0)], 0.05, (0.9, 0.95))
    engine = Engine(torch.device("cpu"))
    engine.attach(model, optimizer, 1.0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
    engine.step()
    return model, engine


def save(folder, step, model, engine, **options):
    return save_checkpoint(folder, Progress(step=step), model, None, engine.moments(), **options)


def test_everything_comes_back(tmp_path):
    model, engine = trained(0)
    progress = Progress(step=7, seed=3, seconds=1.5, refused_clips=2, usual_loss=0.25)
    average = trained(5)[0]
    place = save_checkpoint(tmp_path, progress, model, average, engine.moments())

    for mine, file in ((model, MODEL), (average, AVERAGE)):
        theirs = load_network(place / file)
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    read, moments = read_checkpoint(place)
    assert read == progress
    other = trained(1)[1]
    other.set_moments(moments)
    again = other.moments()
    assert again.keys() == moments.keys() and all(torch.equal(again[k], v) for k, v in engine.moments().items())
    assert {key.split("/")[0] for key in again} == {"step", "exp_avg", "exp_avg_sq"}
    assert not any("depth_head" in key for key in again)  # frozen


def test_only_the_newest_are_kept_and_nothing_else_is_left(tmp_path):
    parts = trained(0)
    (tmp_path / ".step-00000001.77.part").mkdir()  # of a killed run
    for step in (2, 10, 4):
        save(tmp_path, step, *parts, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000010"]
    assert latest_checkpoint(tmp_path).name == "step-00000010"


@pytest.mark.parametrize("damage", ["cut", "missing", "no state"])
def test_a_torn_checkpoint_is_passed_over_and_written_again(tmp_path, damage):
    parts = trained(0)
    for step in (1, 2):
        save(tmp_path, step, *parts)
    torn = tmp_path / "step-00000002"
    if damage == "cut":
        (torn / "moments.safetensors").write_bytes(b"short")
    else:
        (torn / ("model.safetensors" if damage == "missing" else "state.json")).unlink()
    assert latest_checkpoint(tmp_path).name == "step-00000001"
    assert latest_checkpoint(tmp_path / "nowhere") is None
    save(tmp_path, 2, *parts)
    assert latest_checkpoint(tmp_path).name == "step-00000002"


def test_an_interrupted_write_leaves_the_old_checkpoint_alone(tmp_path, monkeypatch):
    parts = trained(0)
    save(tmp_path, 1, *parts)

    def broken(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, 2, *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    clear_parts(tmp_path / "nowhere")  # nothing there, nothing happens
