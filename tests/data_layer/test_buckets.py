"""Shapes of batches, and how many clips a budget of images allows."""

import numpy as np
import pytest

from movies.data.buckets import Buckets, ClipShape
from movies.errors import InputError


def drawn(buckets, number=400):
    return [buckets.draw(np.random.default_rng([0, i])) for i in range(number)]


def test_shapes_keep_within_their_bounds_and_use_them():
    shapes = drawn(Buckets((2, 13), 518, (0.5, 2.0), 14))
    assert {shape.num_context for shape in shapes} == set(range(2, 14))
    assert all(max(shape.height, shape.width) == 518 for shape in shapes)
    assert all(shape.height % 14 == shape.width % 14 == 0 for shape in shapes)
    ratios = [shape.width / shape.height for shape in shapes]
    # The shorter side is rounded to whole patches: half a patch of 14 in 259 pixels.
    assert 0.5 * 0.97 <= min(ratios) < 0.55 and 1.8 < max(ratios) <= 2 / 0.97
    assert 0.4 < np.mean([ratio > 1 for ratio in ratios]) < 0.6


def test_one_shape_where_nothing_is_left_to_draw():
    assert set(drawn(Buckets((5, 5), 56, multiple=14), 5)) == {ClipShape(5, 56, 56)}


@pytest.mark.parametrize(
    ("views", "budget", "clips_per_sequence", "clips"),
    [(13, 26, 1, 2), (2, 26, 1, 8), (5, 26, 1, 4), (5, 0, 1, 8), (4, 8, 2, 2)],
)  # fmt: skip
def test_batches_are_as_large_as_the_budget_allows(views, budget, clips_per_sequence, clips):
    buckets = Buckets((2, 13), 518, images_per_device=budget)
    assert buckets.clips_at_once(views, 8, clips_per_sequence) == clips


def test_a_batch_that_does_not_divide_or_fit_is_refused():
    with pytest.raises(InputError, match="batch_size 6 must be a multiple of clips_per_sequence 4"):
        Buckets((2, 2), 28).clips_at_once(2, 6, 4)
    with pytest.raises(InputError, match="images_per_device 12 must hold 1 clips of 13 views: raise it to 13"):
        Buckets((2, 13), 28, images_per_device=12).clips_at_once(13, 8, 1)
