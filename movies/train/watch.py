"""Watch: which samples and parameters of a step are not finite, seen before processes mix their gradients."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

MOST = 10  # names told of a kind


@dataclass(frozen=True)
class _Batch:
    names: tuple[str, ...]
    totals: Tensor  # [B] losses
    clean: Tensor  # [] bool: all gradients finite so far


class Watch:
    """Sums of the gradients of every parameter, taken while they are made; a NaN or an infinity stays in its sum.

    Attach it to a network before an engine does. Nothing is read back from the device until it is asked for.
    """

    def __init__(self, model: nn.Module) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trained]
        self._sums: dict[str, Tensor] = {}
        self._batches: list[_Batch] = []
        self._hooks = [parameter.register_hook(partial(self._see, name)) for name, parameter in trained]

    def _see(self, name: str, gradient: Tensor) -> None:
        total = gradient.sum()
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def clear(self) -> None:
        """Before a step."""
        self._sums, self._batches = {}, []

    def batch(self, names: tuple[str, ...], totals: Tensor) -> None:  # [B]
        """After the backward of each batch, with its samples and their losses."""
        clean = torch.stack(list(self._sums.values())).isfinite().all() if self._sums else totals.new_ones(()).bool()
        self._batches.append(_Batch(names, totals.detach(), clean))

    def finite(self) -> bool:
        """True where every loss and every gradient of the step is a number."""
        return bool(torch.stack([batch.clean & batch.totals.isfinite().all() for batch in self._batches]).all())

    def loss(self) -> float:
        """The mean over the step's samples."""
        return torch.cat([batch.totals for batch in self._batches]).float().mean().item()

    def silent(self) -> list[str]:
        """Parameters that got no gradient at all."""
        return [name for name in self.names if name not in self._sums]

    def broken_parameters(self) -> list[str]:
        """Those whose gradient is not finite, up to MOST of them."""
        return [name for name, total in self._sums.items() if not total.isfinite()][:MOST]

    def broken_samples(self) -> list[str]:
        """Those whose loss is not finite; where all are, those of the batch with which gradients ceased to be."""
        samples = [name for batch in self._batches for name in self._not_finite(batch)]
        first = next((batch.names for batch in self._batches if not batch.clean), ())
        return (samples or list(first))[:MOST]

    def worst_samples(self, count: int = 3) -> list[str]:
        """Those of the largest losses."""
        losses = {name: value for b in self._batches for name, value in zip(b.names, b.totals.tolist(), strict=True)}
        return sorted(losses, key=losses.get, reverse=True)[:count]

    @staticmethod
    def _not_finite(batch: _Batch) -> list[str]:
        return [name for name, finite in zip(batch.names, batch.totals.isfinite().tolist(), strict=True) if not finite]

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
