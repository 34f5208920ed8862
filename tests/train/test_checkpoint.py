"""Checkpoints: everything comes back, half a checkpoint counts for nothing."""

import pytest
import torch

from movies.model.config import ModelConfig
from movies.model.network import MoVieS
from movies.train import checkpoint
from movies.train.checkpoint import Progress, latest_checkpoint, load_checkpoint, save_checkpoint
from movies.train.optim import make_optimizer


def trained(seed):
    torch.manual_seed(seed)
    model = MoVieS(ModelConfig.preset("tiny"))
    optimizer = make_optimizer(model, 1e-3, [("depth_head", 0.0)], 0.05, (0.9, 0.95))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    return model, optimizer, {"objective": torch.Generator().manual_seed(seed)}


def test_everything_comes_back(tmp_path):
    model, optimizer, generators = trained(0)
    progress = Progress(step=7, position=14, seed=3, seconds=1.5, refused_clips=2)
    place = save_checkpoint(tmp_path, progress, model, trained(5)[0], optimizer, generators)
    drawn = torch.rand(3), torch.rand(3, generator=generators["objective"])

    other, other_optimizer, other_generators = trained(1)
    average = trained(2)[0]
    assert load_checkpoint(place, other, average, other_optimizer, other_generators) == progress
    for mine, theirs in ((model, other), (trained(5)[0], average)):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    for a, b in zip(optimizer.param_groups, other_optimizer.param_groups, strict=True):
        for p, q in zip(a["params"], b["params"], strict=True):
            state, restored = optimizer.state[p], other_optimizer.state[q]
            assert set(state) == set(restored) and all(torch.equal(state[k], restored[k]) for k in state)
    load_checkpoint(place, other, None, other_optimizer, other_generators)
    assert torch.equal(torch.rand(3), drawn[0])
    assert torch.equal(torch.rand(3, generator=other_generators["objective"]), drawn[1])


def test_only_the_newest_are_kept_and_nothing_else_is_left(tmp_path):
    parts = trained(0)
    for step in (2, 10, 4):
        save_checkpoint(tmp_path, Progress(step=step), parts[0], None, *parts[1:], keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000010"]
    assert latest_checkpoint(tmp_path).name == "step-00000010"


@pytest.mark.parametrize("damage", ["cut", "missing", "no state"])
def test_a_torn_checkpoint_is_passed_over(tmp_path, damage):
    parts = trained(0)
    for step in (1, 2):
        save_checkpoint(tmp_path, Progress(step=step), parts[0], None, *parts[1:])
    torn = tmp_path / "step-00000002"
    if damage == "cut":
        (torn / "trainer.safetensors").write_bytes(b"short")
    else:
        (torn / ("model.safetensors" if damage == "missing" else "state.json")).unlink()
    assert latest_checkpoint(tmp_path).name == "step-00000001"
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_an_interrupted_write_leaves_the_old_checkpoint_alone(tmp_path, monkeypatch):
    parts = trained(0)
    save_checkpoint(tmp_path, Progress(step=1), parts[0], None, *parts[1:])

    def broken(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, Progress(step=2), parts[0], None, *parts[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
