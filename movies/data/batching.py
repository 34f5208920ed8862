"""Batches in a seeded order that can be taken up at any step, loaded in the background."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch.utils.data import DataLoader

from movies.data.buckets import Buckets
from movies.data.dataset import BatchPlan, ClipDataset, LoadedBatch
from movies.errors import InputError


@dataclass(frozen=True)
class PlanSampler:
    """The endless batch plans that device `rank` of `world` takes, from `step` on: the whole state is (seed, step).

    Every epoch is a permutation of the entries, which the steps take in order. A step is `batch_size` clips times
    `accumulation` on each device, all of one shape; where they are over the budget of images, in more and smaller
    batches. So neither budget nor views change how many clips a step has, and devices can be traded for accumulation:
    the batches of a step are the same, dealt to the devices in turn.
    """

    num_entries: int
    buckets: Buckets
    batch_size: int
    accumulation: int = 1
    clips_per_sequence: int = 1
    seed: int = 0
    step: int = 0
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[BatchPlan]:
        step = self.step
        while True:
            yield from self.plans(step)
            step += 1

    def plans(self, step: int) -> list[BatchPlan]:
        """What this device takes in one step, a pure function of (seed, step)."""
        shape = self.buckets.draw(np.random.default_rng([self.seed, step, 0]))
        at_once = self.buckets.clips_at_once(shape.num_context, self.batch_size, self.clips_per_sequence)
        number = self.batch_size * self.accumulation // at_once  # of batches for each device
        size = at_once // self.clips_per_sequence  # of a batch, in entries
        first = step * number * size * self.world
        plans = []
        for part in range(number):
            start = first + (part * self.world + self.rank) * size
            entries = tuple(self._entry(start + i) for i in range(size))
            plans.append(BatchPlan(entries, shape, (self.seed, start), 1 / number, part == number - 1))
        return plans

    def _entry(self, index: int) -> int:
        epoch, offset = divmod(index, self.num_entries)
        return int(_permutation(self.seed, epoch, self.num_entries)[offset])


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 1]).permutation(size)


def make_loader(dataset: ClipDataset, sampler: PlanSampler, num_workers: int) -> Iterator[LoadedBatch]:
    """LoadedBatches in the sampler's order, the same for any number of workers, which begin at once.

    Workers are spawned, not forked: a forked child inherits OpenMP and numba thread pools that do not work there.
    """
    options = {}
    if num_workers:
        options = {"multiprocessing_context": "spawn", "persistent_workers": True, "prefetch_factor": 4}
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        worker_init_fn=_outlive_a_request,
        **options,
    )
    return _told_in_one_line(iter(loader))


def _told_in_one_line(batches: Iterator[LoadedBatch]) -> Iterator[LoadedBatch]:
    """Batches; an InputError of a worker comes with its traceback as the message, of which the last line is meant."""
    try:
        yield from batches
    except InputError as error:
        raise InputError(
            str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
        ) from error


def _outlive_a_request(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach workers too, but the main process, which has a step to finish, ends them.

    A second SIGTERM is its last resort.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
