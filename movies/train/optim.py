"""AdamW over named groups of parameters, and its schedule."""

import math
import re

import torch
from torch import nn

from movies.errors import InputError


class AdamW(torch.optim.AdamW):
    """AdamW that changes nothing while it is `held`: so a step is skipped whatever wraps the optimiser."""

    held = False

    def step(self, closure=None) -> None:
        if not self.held:
            super().step(closure)


def group_multipliers(names: list[str], groups: list[tuple[str, float]], where: str) -> dict[str, float]:
    """The multiplier of every parameter: that of the first pattern found in its name, else 1.

    Raises InputError for a pattern that is no regular expression and for one that decides about no parameter.
    """
    multipliers: dict[str, float] = {}
    for pattern, multiplier in groups:
        try:
            found = [name for name in names if name not in multipliers and re.search(pattern, name)]
        except re.error as error:
            raise InputError(
                f"{where}: `optim.groups` pattern {pattern!r} is no regular expression ({error})"
            ) from error
        if not found:
            tops = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise InputError(
                f"{where}: `optim.groups` pattern {pattern!r} matches no parameter that an earlier pattern left; "
                f"parameters begin with {tops}"
            )
        multipliers |= dict.fromkeys(found, multiplier)
    return {name: multipliers.get(name, 1.0) for name in names}


def make_optimizer(
    model: nn.Module, lr: float, groups: list[tuple[str, float]], weight_decay: float, betas: tuple[float, float]
) -> AdamW:
    """AdamW with one group for each multiplier and kind; biases, gains and tokens do not decay, multiplier 0 freezes.

    Each group carries the `names` of its parameters and its `peak_lr`, for the schedule and the checkpoint.
    """
    parameters = dict(model.named_parameters())
    multipliers = group_multipliers(list(parameters), groups, "optimiser")
    found: dict[tuple[float, bool], list[str]] = {}
    for name, parameter in parameters.items():
        parameter.requires_grad_(multipliers[name] > 0)
        if multipliers[name] > 0:
            found.setdefault((multipliers[name], _decays(parameter)), []).append(name)
    made = [
        {
            "params": [parameters[name] for name in names],
            "names": names,
            "peak_lr": lr * multiplier,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (multiplier, decays), names in found.items()
    ]
    if not made:
        raise InputError("every parameter is frozen: raise a multiplier of `optim.groups` above 0")
    return AdamW(made, lr=lr, betas=betas, foreach=True)


def _decays(parameter: nn.Parameter) -> bool:
    """Matrices and kernels decay; vectors (biases, gains) do not, nor do tokens, whose only real size is the last."""
    return sum(size > 1 for size in parameter.shape) > 1


def schedule(step: int, steps: int, warmup: int, final: float = 0.0) -> float:
    """The factor on the learning rate at `step` (from 0): linear to 1 over `warmup` steps, then a cosine to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
