"""RunLog: one JSON object a line for machines, a progress bar for people."""

import json
import math
import time
from collections import defaultdict
from pathlib import Path


class RunLog:
    """The log of one stage. Means of training values are kept between writes; a NaN does not count."""

    def __init__(self, path: Path, name: str, first_step: int, steps: int) -> None:
        from tqdm import tqdm  # a progress bar is nothing that reading a stage should need

        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", buffering=1)
        self._values: dict[str, list[float]] = defaultdict(list)
        self._bar = tqdm(total=steps, initial=first_step, desc=name, dynamic_ncols=True, mininterval=2.0)
        self._since = time.monotonic()

    def event(self, kind: str, **values) -> None:
        """Write one line; numbers that are not finite become null, which JSON can hold."""
        safe = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        self._file.write(json.dumps({"event": kind, "time": round(time.time(), 2), **safe}) + "\n")

    def add(self, values: dict[str, float]) -> None:
        """Values of one step, to be averaged."""
        for name, value in values.items():
            self._values[name].append(value)

    def step(self, step: int, every: int, lr: float, samples: int) -> None:
        """Advance the bar; every `every` steps write the means since the last write."""
        self._bar.update(1)
        if step % every:
            return
        means = {name: _mean(values) for name, values in self._values.items()}
        elapsed = time.monotonic() - self._since
        self.event("train", step=step, lr=lr, samples_per_second=round(samples * every / elapsed, 2), **means)
        shown = ("loss", "motion_error", "absrel", "psnr", "rotation")
        self._bar.set_postfix({name: f"{means[name]:.3g}" for name in shown if name in means}, refresh=False)
        self._values.clear()
        self._since = time.monotonic()

    def close(self) -> None:
        self._bar.close()
        self._file.close()


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return round(sum(finite) / len(finite), 6) if finite else math.nan
