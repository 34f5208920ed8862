"""ClipDataset: the mix, the filters, and purity."""

import pytest
import torch

from movies.data.dataset import BatchPlan, ClipConfig, ClipDataset
from movies.data.sampling import SamplingConfig
from movies.errors import InputError


def config(**options):
    base = {"sampling": SamplingConfig(2, (1, 2)), "height": 14, "width": 14, "clips_per_sequence": 2}
    return ClipConfig(**(base | options))


def plan(*entries, seed=7, num_context=3):
    return BatchPlan(entries, num_context, (seed, 0))


def test_repeats_multiply_entries(plane):
    dataset = ClipDataset([([plane("a"), plane("b")], 3), ([plane("c")], 1)], config())
    assert len(dataset) == 7
    names = [dataset.sequences[i].name for i in dataset.entries]
    assert names.count("a") == 3 and names.count("c") == 1


def test_a_batch_holds_clips_of_every_sequence_and_is_pure(plane):
    dataset = ClipDataset([([plane("a"), plane("b", is_static=False)], 1)], config(jitter=0.3))
    first, second = dataset[plan(0, 1)], dataset[plan(0, 1)]
    assert [name[0] for name in first.batch.names] == ["a", "a", "b", "b"]
    assert first.batch.is_static.tolist() == [True, True, False, False]
    assert first.batch.views.images.shape == (4, 5, 3, 14, 14)
    assert torch.equal(first.batch.views.images, second.batch.views.images) and not first.refused
    assert not torch.equal(dataset[plan(0, 1, seed=8)].batch.views.images, first.batch.views.images)


def test_clips_are_cut_from_one_reading(plane):
    reads = []

    class Counting(plane):
        def read(self, indices):
            reads.append(list(indices))
            return super().read(indices)

    ClipDataset([([Counting("a")], 1)], config(clips_per_sequence=4))[plan(0)]
    assert len(reads) == 1 and reads[0] == sorted(set(reads[0]))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [({"turn": 30.0}, "turns by"), ({"valid": False}, "0% of the context's depth"), ({"num_frames": 2}, "need more")],
)
def test_refused_draws_are_replaced_and_told(plane, bad, reason):
    dataset = ClipDataset([([plane("bad", **bad), plane("good")], 1)], config(max_rotation=20.0))
    loaded = dataset[plan(0)]
    assert all(name.startswith("good") for name in loaded.batch.names)
    assert loaded.refused and loaded.refused[0][0] == "bad" and reason in loaded.refused[0][1]


def test_unreadable_sequences_are_replaced(plane):
    class Broken(plane):
        def read(self, indices):
            raise OSError("truncated file")

    loaded = ClipDataset([([Broken("broken"), plane("good")], 1)], config())[plan(0)]
    assert loaded.refused[0] == ("broken", "truncated file")


def test_nan_images_are_refused(plane):
    class Poisoned(plane):
        def read(self, indices):
            views, tracks = super().read(indices)
            views.images[0, 0, 0, 0] = float("nan")
            return views, tracks

    loaded = ClipDataset([([Poisoned("poisoned"), plane("good")], 1)], config())[plan(0)]
    assert "not finite" in loaded.refused[0][1]


def test_nothing_usable_is_an_error_not_a_loop(plane):
    dataset = ClipDataset([([plane("bad", valid=False)], 1)], config())
    with pytest.raises(InputError, match="20 draws in a row were refused, the last from bad: only 0%"):
        dataset[plan(0)]
    with pytest.raises(InputError, match="hold no sequence"):
        ClipDataset([([], 1)], config())
