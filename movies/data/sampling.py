"""Which frames of a sequence become context and which become targets: pure functions of a generator."""

from dataclasses import dataclass

import numpy as np

from movies.errors import InputError


class Refusal(InputError):
    """Sound data that is not fit for a clip: another one is drawn in its place."""


@dataclass(frozen=True)
class Draw:
    """Frame indices of one clip: `context` in order of time, `target` in any order."""

    context: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class SamplingConfig:
    """How clips are drawn: the number of targets, the smallest and largest gap between neighbouring context frames.

    `context_probability` is how often the targets begin with context frames (MoVieS, training details: 0.25).
    """

    num_targets: int
    gap: tuple[int, int]
    context_probability: float = 0.25


def draw_frames(rng: np.random.Generator, num_frames: int, num_context: int, config: SamplingConfig) -> Draw:
    """Context frames evenly spaced by a random gap, starting anywhere; targets anywhere between them.

    A sequence too short for the smallest gap raises Refusal; one too short for the largest gets a smaller one.
    """
    smallest, largest = config.gap
    steps = max(num_context - 1, 1)
    largest = min(largest, (num_frames - 1) // steps)
    if num_context > num_frames or largest < smallest:
        raise Refusal(f"{num_context} context frames with a gap of {smallest} need more than {num_frames} frames")
    gap = int(rng.integers(smallest, largest + 1))
    start = int(rng.integers(0, num_frames - gap * (num_context - 1)))
    context = tuple(start + gap * i for i in range(num_context))
    return Draw(context, _draw_targets(rng, context, config))


def _draw_targets(rng: np.random.Generator, context: tuple[int, ...], config: SamplingConfig) -> tuple[int, ...]:
    """Frames between the first and the last context frame; without repetition while there are enough of them."""
    between = [i for i in range(context[0], context[-1] + 1) if i not in context]
    seen = list(context)
    rng.shuffle(between)
    rng.shuffle(seen)
    order = seen + between if rng.random() < config.context_probability else between + seen
    repeats = -(-config.num_targets // len(order))
    return tuple(int(i) for i in (order * repeats)[: config.num_targets])
