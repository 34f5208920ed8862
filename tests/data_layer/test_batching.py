"""Plans: a pure function of (seed, position), whatever the number of workers."""

from itertools import islice

import pytest
import torch

from movies.data.batching import PlanSampler, entries_per_batch, make_loader
from movies.data.dataset import ClipConfig, ClipDataset
from movies.data.sampling import SamplingConfig
from movies.errors import InputError


def test_any_position_can_be_taken_up():
    whole = list(islice(PlanSampler(10, 4, (2, 5), seed=3), 12))
    assert whole[5:] == list(islice(PlanSampler(10, 4, (2, 5), seed=3, position=5), 7))
    assert whole != list(islice(PlanSampler(10, 4, (2, 5), seed=4), 12))
    assert {plan.num_context for plan in whole} == {2, 3, 4, 5}


def test_every_epoch_holds_every_entry_once():
    plans = list(islice(PlanSampler(6, 4, (2, 2), seed=0), 3))
    entries = [entry for plan in plans for entry in plan.entries]
    assert sorted(entries[:6]) == sorted(entries[6:]) == list(range(6)) and entries[:6] != entries[6:]


def test_a_batch_that_does_not_divide_is_refused():
    assert entries_per_batch(8, 2) == 4
    with pytest.raises(InputError, match="batch_size 6 must be a multiple of clips_per_sequence 4"):
        entries_per_batch(6, 4)


def test_workers_change_nothing(plane):
    from movies.data.readers import READERS

    sequences = READERS["synthetic"]("", num_sequences=2, first_seed=0, image_size=(14, 14), num_frames=5, num_tracks=8)
    dataset = ClipDataset([(sequences, 1)], ClipConfig(SamplingConfig(1, (1, 1)), 14, 14))
    sampler = PlanSampler(len(dataset), 1, (2, 2), seed=0)
    alone, helped = (next(iter(make_loader(dataset, sampler, workers))) for workers in (0, 1))
    assert torch.equal(alone.batch.views.images, helped.batch.views.images)
