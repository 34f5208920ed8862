"""Plans: a pure function of (seed, position), whatever the number of workers."""

import multiprocessing
import os
import signal
from itertools import islice

import pytest
import torch

from movies.data.batching import PlanSampler, make_loader
from movies.data.buckets import Buckets
from movies.data.dataset import ClipConfig, ClipDataset
from movies.data.readers import READERS
from movies.data.sampling import SamplingConfig
from movies.errors import InputError

WIDE = Buckets((2, 13), 518, (0.5, 2.0), 14, images_per_device=26)


def test_any_step_can_be_taken_up():
    buckets = Buckets((2, 5), 28)
    whole = list(islice(PlanSampler(10, buckets, 4, seed=3), 12))
    assert whole[5:] == list(islice(PlanSampler(10, buckets, 4, seed=3, step=5), 7))
    assert whole != list(islice(PlanSampler(10, buckets, 4, seed=4), 12))
    assert {plan.shape.num_context for plan in whole} == {2, 3, 4, 5}


def test_every_epoch_holds_every_entry_once():
    plans = list(islice(PlanSampler(6, Buckets((2, 2), 28), 4), 3))
    entries = [entry for plan in plans for entry in plan.entries]
    assert sorted(entries[:6]) == sorted(entries[6:]) == list(range(6)) and entries[:6] != entries[6:]


def test_a_step_has_one_shape_and_as_many_clips_whatever_the_budget():
    sampler = PlanSampler(100, WIDE, 8, accumulation=2, clips_per_sequence=2)
    for step in range(20):
        plans = sampler.plans(step)
        assert len({plan.shape for plan in plans}) == 1
        assert sum(2 * len(plan.entries) for plan in plans) == 16
        assert all(2 * len(plan.entries) * plan.shape.num_context <= 26 for plan in plans)
        assert sum(plan.share for plan in plans) == 1
        assert [plan.ends_step for plan in plans] == [False] * (len(plans) - 1) + [True]


def test_devices_are_dealt_the_batches_that_one_device_would_accumulate():
    alone = PlanSampler(100, WIDE, 4, accumulation=4, seed=2)
    for step in range(6):
        dealt = [PlanSampler(100, WIDE, 4, accumulation=2, seed=2, rank=r, world=2).plans(step) for r in range(2)]
        assert {plan.shape for plans in dealt for plan in plans} == {alone.plans(step)[0].shape}
        together = [(plan.entries, plan.seed) for pair in zip(*dealt, strict=True) for plan in pair]
        assert together == [(plan.entries, plan.seed) for plan in alone.plans(step)]


def small_worlds() -> tuple[ClipDataset, PlanSampler]:
    sequences = READERS["synthetic"]("", num_sequences=2, first_seed=0, image_size=(14, 14), num_frames=5, num_tracks=8)
    dataset = ClipDataset([(sequences, 1)], ClipConfig(SamplingConfig(1, (1, 1))))
    return dataset, PlanSampler(len(dataset), Buckets((2, 2), 14), 1)


def test_workers_change_nothing():
    dataset, sampler = small_worlds()
    alone, helped = (next(make_loader(dataset, sampler, workers)) for workers in (0, 1))
    assert torch.equal(alone.batch.views.images, helped.batch.views.images)


def test_a_worker_outlives_what_a_scheduler_tells_every_process():
    """The main process has a step to finish, which may want another batch; a second request does end the worker."""
    before = multiprocessing.active_children()
    batches = make_loader(*small_worlds(), 1)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - set(before)
    os.kill(worker.pid, signal.SIGTERM)
    assert len(list(islice(batches, 8))) == 8 and worker.is_alive()
    os.kill(worker.pid, signal.SIGTERM)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(islice(batches, 100_000))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_the_data_is_told_in_one_line(workers):
    sequences = READERS["synthetic"]("", num_sequences=1, first_seed=0, image_size=(14, 14), num_frames=2, num_tracks=8)
    dataset = ClipDataset([(sequences, 1)], ClipConfig(SamplingConfig(1, (1, 1))))
    with pytest.raises(InputError, match=r"^\d+ draws in a row gave no clip, the last from synthetic.*frames$"):
        next(make_loader(dataset, PlanSampler(1, Buckets((3, 3), 14), 1), workers))
