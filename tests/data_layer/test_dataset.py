"""ClipDataset: the mix, the filters, and purity."""

from dataclasses import dataclass

import pytest
import torch

from movies.data.buckets import ClipShape
from movies.data.dataset import MAX_ATTEMPTS, BatchPlan, ClipConfig, ClipDataset, check_broken_share
from movies.data.sampling import SamplingConfig
from movies.errors import InputError


def config(**options):
    base = {"sampling": SamplingConfig(2, (1, 2)), "clips_per_sequence": 2}
    return ClipConfig(**(base | options))


def plan(*entries, seed=7, num_context=3, size=(14, 14)):
    return BatchPlan(entries, ClipShape(num_context, *size), (seed, 0))


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
    assert torch.equal(first.batch.views.images, second.batch.views.images) and not len(first.rejects)
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
    [
        ({"turn": 30.0}, "turns by"),
        ({"valid": False}, "0.00% of the context"),
        ({"num_frames": 2}, "need more"),
    ],
)
def test_refused_draws_are_replaced_and_told(plane, bad, reason):
    dataset = ClipDataset([([plane("bad", **bad), plane("good")], 1)], config(max_rotation=20.0))
    loaded = dataset[plan(0)]
    assert all(name.startswith("good") for name in loaded.batch.names)
    (name, told), *more = loaded.rejects.refused
    assert name == "bad" and reason in told and not loaded.rejects.broken
    assert loaded.num_draws == 2 + len(more)


def poisoned(plane, **poison):
    """A sequence whose reading fails, or gives views with one number that is not finite."""

    class Poisoned(plane):
        def read(self, indices):
            if "error" in poison:
                raise poison["error"]
            views, tracks = super().read(indices)
            view, name = poison["at"]
            tensor = views.cameras.c2w if name == "c2w" else getattr(views, name)
            tensor[view][(0,) * (tensor.dim() - 1)] = float("nan")
            return views, tracks

    return Poisoned("poisoned")


@pytest.mark.parametrize(
    ("poison", "told"),
    [
        ({"error": InputError("00012.png: is truncated")}, "00012.png: is truncated"),
        ({"error": OSError("disk on fire")}, "OSError('disk on fire')"),
        ({"error": KeyError("what a library did not foresee")}, "KeyError"),
        ({"at": (0, "images")}, "images hold numbers that are not finite"),
        ({"at": (-1, "images")}, "images hold"),  # any view: targets are compared with too
        ({"at": (0, "depth")}, "depth hold numbers"),
        ({"at": (1, "c2w")}, "cameras hold"),
    ],
)
def test_broken_samples_are_replaced_and_named(plane, poison, told):
    dataset = ClipDataset([([poisoned(plane, **poison), plane("good")], 1)], config())
    loaded = dataset[plan(0)]
    assert all(name.startswith("good") for name in loaded.batch.names) and loaded.batch.views.images.isfinite().all()
    name, reason = loaded.rejects.broken[0]
    assert name == "poisoned" and told in reason and not loaded.rejects.refused


def test_depth_that_does_not_count_may_be_anything(plane):
    class Holes(plane):
        def read(self, indices):
            views, tracks = super().read(indices)
            views.depth_mask[:, 0, 0] = False
            views.depth[:, 0, 0] = float("nan")
            return views, tracks

    assert not len(ClipDataset([([Holes("holes")], 1)], config())[plan(0)].rejects)


def test_nothing_usable_is_an_error_not_a_loop(plane):
    dataset = ClipDataset([([plane("bad", valid=False)], 1)], config())
    with pytest.raises(InputError, match=f"{MAX_ATTEMPTS} draws in a row gave no clip, the last from bad: only 0"):
        dataset[plan(0)]
    with pytest.raises(InputError, match="hold no sequence"):
        ClipDataset([([], 1)], config())


def test_clips_have_the_shape_of_their_plan(plane):
    batch = ClipDataset([([plane("a", size=40)], 1)], config())[plan(0, num_context=4, size=(14, 28))].batch
    assert batch.views.images.shape == (2, 6, 3, 14, 28) and batch.num_context == 4
    # A window of 20 x 40 at half the size: the focal length is 1 of 40 pixels, so 2 of 20 and 1 of 40.
    assert torch.allclose(batch.context.cameras.fxfycxcy[..., :2], torch.tensor([1.0, 2.0]))


def test_pictures_are_decoded_no_larger_than_a_crop_needs(plane):
    asked = []

    @dataclass(frozen=True)
    class Recording(plane):
        short_side: int = 0

        def read(self, indices):
            asked.append(self.short_side)
            return super().read(indices)

    for sequence in (Recording("open"), Recording("said", short_side=40)):
        ClipDataset([([sequence], 1)], config(min_crop=0.5))[plan(0, size=(14, 28))]
    assert asked == [56, 40]  # a window of half the largest, twice as long as high, wherever it lies


@pytest.mark.parametrize("num_context", [2, 3, 4])
def test_the_scale_is_of_the_context_views_drawn_however_many(plane, num_context):
    """Targets turn away from the plane and see it far off: they must not count."""
    batch = ClipDataset([([plane("a", turn=5.0, is_static=False)], 1)], config())[
        plan(0, num_context=num_context)
    ].batch
    context, views = batch.context, batch.views
    assert len(context) == num_context and len(views) == num_context + 2
    distance = context.points().norm(dim=-1)  # all of the depth is valid
    assert torch.allclose(distance.flatten(1).mean(dim=1), torch.ones(2), atol=1e-4)
    assert not torch.allclose(views.points().norm(dim=-1).flatten(1).mean(dim=1), torch.ones(2), atol=1e-4)


def test_too_many_broken_samples_are_fatal():
    last = ("clip", "is truncated")
    check_broken_share(3, 5, 0.05, last)  # of the first hundred draws
    check_broken_share(1000, 50, 0.05, last)
    for drawn, broken in ((3, 6), (1000, 51)):
        with pytest.raises(InputError, match=f"{broken} of {drawn} samples were broken.*the last: clip: is truncated"):
            check_broken_share(drawn, broken, 0.05, last)
