"""RunLog: one JSON object a line for machines, TensorBoard where it is installed, a progress bar for people."""

import json
import math
import resource
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch

from movies.train.engine import Engine

SHOWN = ("loss", "motion_error", "absrel", "psnr", "rotation")


class RunLog:
    """The log of one stage, written by the main process. Means are kept between writes; a NaN does not count."""

    def __init__(self, folder: Path, name: str, first_step: int, steps: int, engine: Engine) -> None:
        self._engine, self._values, self._pending = engine, defaultdict(list), []
        self._counts = dict.fromkeys(("samples", "images"), 0.0)
        self._since = time.monotonic()
        if engine.is_main:
            from tqdm import tqdm  # a progress bar is nothing that reading a stage should need

            folder.mkdir(parents=True, exist_ok=True)
            self._file = _whole_lines(folder / "log.jsonl").open("a", buffering=1)
            self._board = _tensorboard(folder / "tensorboard", first_step)
            self._bar = tqdm(total=steps, initial=first_step, desc=name, dynamic_ncols=True, mininterval=2.0)

    def event(self, kind: str, **values) -> None:
        """Something that all processes know; the main one writes it."""
        if self._engine.is_main:
            self._write({"event": kind, "time": round(time.time(), 2), **values})

    def report(self, kind: str, **values) -> None:
        """Something that this process alone knows: written at once by the main one, at `share` of the others."""
        if self._engine.is_main:
            self.event(kind, **values)
        else:
            self._pending.append({"event": kind, "time": round(time.time(), 2), **values, "rank": self._engine.rank})

    def share(self) -> list[dict]:
        """Write what the other processes reported; all must call it. Returns it."""
        found, self._pending = self._engine.gathered(self._pending), []
        for event in found if self._engine.is_main else []:
            self._write(event)
        return found

    def _write(self, event: dict) -> None:
        """Numbers that are not finite become null, which JSON can hold."""
        safe = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in event.items()}
        self._file.write(json.dumps(safe) + "\n")

    def add(self, values: dict[str, float]) -> None:
        """Values of one batch, to be averaged."""
        for name, value in values.items():
            self._values[name].append(value)

    def step(self, step: int, every: int, lr: float, counts: dict[str, float], state: dict[str, float]) -> None:
        """Advance the bar; every `every` steps write the means since the last write, over all processes.

        `counts` are the step's samples and images on all processes; `state` is written as it is.
        """
        for name in self._counts:
            self._counts[name] += counts[name]
        if self._engine.is_main:
            self._bar.update(1)
        if step % every:
            return
        self.share()
        elapsed, means = time.monotonic() - self._since, self._means()
        rates = {f"{name}_per_second": round(count / elapsed, 2) for name, count in self._counts.items()}
        values = {"lr": lr, **rates, "memory_gb": round(peak_memory(self._engine.device) / 1e9, 2), **state, **means}
        self.event("train", step=step, **values)
        self._show(step, values)
        self._values.clear()
        self._counts, self._since = dict.fromkeys(self._counts, 0.0), time.monotonic()

    def _means(self) -> dict[str, float]:
        """Over the batches of all processes."""
        finite = {name: [v for v in values if math.isfinite(v)] for name, values in self._values.items()}
        sums = {name: (sum(values), len(values)) for name, values in finite.items()}
        flat = {f"{name}/{i}": float(part) for name, pair in sums.items() for i, part in enumerate(pair)}
        whole = self._engine.sums(flat)
        return {n: round(whole[f"{n}/0"] / whole[f"{n}/1"], 6) if whole[f"{n}/1"] else math.nan for n in sums}

    def _show(self, step: int, values: dict[str, float]) -> None:
        if not self._engine.is_main:
            return
        shown = {name: f"{values[name]:.3g}" for name in SHOWN if name in values}
        shown |= {"clips/s": f"{values['samples_per_second']:.3g}", "images/s": f"{values['images_per_second']:.3g}"}
        shown |= {"GB": values["memory_gb"], "skipped": values.get("skipped_steps", 0)}
        self._bar.set_postfix(shown, refresh=False)
        self.board("train", step, values)

    def board(self, group: str, step: int, values: dict[str, float]) -> None:
        """Scalars for TensorBoard."""
        for name, value in values.items() if self._engine.is_main and self._board else ():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        if self._engine.is_main:
            self._bar.close()
            self._file.close()
            if self._board:
                self._board.close()


def peak_memory(device: torch.device) -> float:
    """Bytes: the most that the device's allocator, or on CPU this process, has held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _whole_lines(path: Path) -> Path:
    """The log without the piece of a line that a killed run may have left."""
    if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])
    return path


def _tensorboard(folder: Path, first_step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step or None)
