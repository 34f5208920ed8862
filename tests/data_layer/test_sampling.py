"""Context and target frames: always legal, spread as asked, repeatable."""

import numpy as np
import pytest

from movies.data.sampling import SamplingConfig, draw_frames
from movies.errors import InputError


def draws(count, num_frames=20, num_context=5, **options):
    config = SamplingConfig(**({"num_targets": 4, "gap": (1, 4)} | options))
    return [draw_frames(np.random.default_rng(seed), num_frames, num_context, config) for seed in range(count)]


def test_context_is_evenly_spaced_within_the_sequence():
    gaps = set()
    for draw in draws(200):
        steps = set(np.diff(draw.context))
        assert len(steps) == 1 and draw.context[0] >= 0 and draw.context[-1] < 20
        gaps |= steps
    assert gaps == {1, 2, 3, 4}


def test_targets_lie_in_the_window_and_include_context_a_quarter_of_the_time():
    drawn = draws(2000, gap=(3, 3))
    for draw in drawn:
        assert all(draw.context[0] <= t <= draw.context[-1] for t in draw.target) and len(set(draw.target)) == 4
    share = np.mean([draw.target[0] in draw.context for draw in drawn])
    assert abs(share - 0.25) < 0.03  # three standard deviations of 2000 draws


def test_few_frames_are_repeated_and_a_short_sequence_gets_a_smaller_gap():
    for draw in draws(20, num_frames=5, num_targets=8):
        assert draw.context == (0, 1, 2, 3, 4) and len(draw.target) == 8


def test_the_same_seed_draws_the_same_frames():
    assert draws(5) == draws(5)


def test_a_sequence_that_is_too_short_is_refused():
    with pytest.raises(InputError, match="5 context frames with a gap of 1 need more than 4 frames"):
        draws(1, num_frames=4)
    with pytest.raises(InputError, match="gap of 6 need more than 20"):
        draws(1, gap=(6, 8))
