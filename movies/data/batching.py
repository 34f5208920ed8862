"""Batches in a seeded order that can be taken up at any position, loaded in the background."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch.utils.data import DataLoader

from movies.data.dataset import BatchPlan, ClipDataset
from movies.errors import InputError


@dataclass(frozen=True)
class PlanSampler:
    """The endless sequence of batch plans of a seed, from `position` on: its whole state is (seed, position).

    Every epoch is a permutation of the entries. The number of context views is drawn for each batch within `views`.
    """

    num_entries: int
    entries_per_batch: int
    views: tuple[int, int]
    seed: int
    position: int = 0

    def __iter__(self) -> Iterator[BatchPlan]:
        position = self.position
        while True:
            yield self.plan(position)
            position += 1

    def plan(self, position: int) -> BatchPlan:
        """The plan of the batch at `position`, a pure function of (seed, position)."""
        first = position * self.entries_per_batch
        entries = [self._entry(first + i) for i in range(self.entries_per_batch)]
        rng = np.random.default_rng([self.seed, position, 0])
        return BatchPlan(tuple(entries), int(rng.integers(self.views[0], self.views[1] + 1)), (self.seed, position))

    def _entry(self, index: int) -> int:
        epoch, offset = divmod(index, self.num_entries)
        return int(_permutation(self.seed, epoch, self.num_entries)[offset])


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 1]).permutation(size)


def make_loader(dataset: ClipDataset, sampler: PlanSampler, num_workers: int) -> DataLoader:
    """LoadedBatches in the sampler's order, the same for any number of workers.

    Workers are spawned, not forked: a forked child inherits OpenMP and numba thread pools that do not work there.
    """
    if num_workers == 0:
        return DataLoader(dataset, batch_size=None, sampler=sampler)
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        multiprocessing_context="spawn",
        worker_init_fn=_ignore_interrupt,
        persistent_workers=True,
        prefetch_factor=4,
    )


def _ignore_interrupt(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process ends the workers


def entries_per_batch(batch_size: int, clips_per_sequence: int) -> int:
    """How many sequences make a batch. Raises InputError where the batch does not divide."""
    if batch_size % clips_per_sequence:
        raise InputError(f"batch_size {batch_size} must be a multiple of clips_per_sequence {clips_per_sequence}")
    return batch_size // clips_per_sequence
