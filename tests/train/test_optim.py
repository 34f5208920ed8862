"""Groups of parameters and the schedule, by hand."""

import pytest
import torch
from torch import nn

from movies.errors import InputError
from movies.train.optim import group_multipliers, make_optimizer, schedule, set_learning_rate


def model():
    return nn.ModuleDict({"head": nn.Linear(3, 2), "trunk": nn.Linear(3, 3)})


def test_the_first_pattern_found_decides():
    names = ["head.weight", "head.bias", "trunk.weight"]
    assert group_multipliers(names, [("head.w", 2.0), ("head", 0.5)], "here") == {
        "head.weight": 2.0,
        "head.bias": 0.5,
        "trunk.weight": 1.0,
    }
    with pytest.raises(InputError, match=r"here: `optim.groups` pattern 'head.w' matches no .* begin with head, trunk"):
        group_multipliers(names, [("head", 1.0), ("head.w", 2.0)], "here")


def test_groups_have_rates_and_decay():
    optimizer = make_optimizer(model(), 1e-3, [("trunk", 0.1)], 0.05, (0.9, 0.95))
    found = {name: group for group in optimizer.param_groups for name in group["names"]}
    assert found["head.weight"]["weight_decay"] == 0.05 and found["head.bias"]["weight_decay"] == 0
    assert found["trunk.weight"]["peak_lr"] == pytest.approx(1e-4)
    set_learning_rate(optimizer, 0.5)
    assert found["head.bias"]["lr"] == pytest.approx(5e-4) and found["trunk.bias"]["lr"] == pytest.approx(5e-5)


def test_multiplier_zero_freezes():
    frozen = model()
    optimizer = make_optimizer(frozen, 1e-3, [("trunk", 0.0)], 0.05, (0.9, 0.95))
    assert not frozen["trunk"].weight.requires_grad and len(optimizer.param_groups) == 2
    with pytest.raises(InputError, match="every parameter is frozen"):
        make_optimizer(model(), 1e-3, [(".", 0.0)], 0.05, (0.9, 0.95))


def test_schedule_warms_up_and_ends_at_the_final_rate():
    assert [schedule(step, 10, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert schedule(4, 10, 4) == 1.0 and schedule(7, 10, 4) == pytest.approx(0.5)
    assert schedule(10, 10, 4, 0.1) == pytest.approx(0.1) and schedule(0, 10, 0) == 1.0


def test_tokens_do_not_decay():
    token = nn.ParameterDict({"token": nn.Parameter(torch.zeros(1, 1, 8)), "kernel": nn.Parameter(torch.zeros(2, 8))})
    optimizer = make_optimizer(token, 1e-3, [], 0.05, (0.9, 0.95))
    assert {g["names"][0]: g["weight_decay"] for g in optimizer.param_groups} == {"token": 0.0, "kernel": 0.05}
