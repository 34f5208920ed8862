"""Shapes that the clips of a batch share, and how many clips of a shape a device takes at once."""

from dataclasses import dataclass
from math import exp, log

import numpy as np

from movies.errors import InputError


@dataclass(frozen=True)
class ClipShape:
    """Clips of one bucket: their number of context views and their size in pixels."""

    num_context: int
    height: int
    width: int


@dataclass(frozen=True)
class Buckets:
    """What shapes are drawn from. Every clip of a step, on all devices, has the shape drawn for that step.

    `views` bounds the number of context views; `aspect` bounds width / height, whose logarithm is drawn uniformly, so
    that wide and tall are equally likely. The longer side has `image_size` pixels, the shorter the nearest multiple of
    `multiple`. `images_per_device` bounds the context images a device takes at once (0: no bound).
    """

    views: tuple[int, int]
    image_size: int
    aspect: tuple[float, float] = (1.0, 1.0)
    multiple: int = 1
    images_per_device: int = 0

    def draw(self, rng: np.random.Generator) -> ClipShape:
        """The shape of a step."""
        views = int(rng.integers(self.views[0], self.views[1] + 1))
        aspect = exp(rng.uniform(*map(log, self.aspect)))
        height, width = (self._side(min(1.0, ratio)) for ratio in (1 / aspect, aspect))
        return ClipShape(views, height, width)

    def _side(self, share: float) -> int:
        return max(1, round(self.image_size * share / self.multiple)) * self.multiple

    def clips_at_once(self, num_context: int, batch_size: int, clips_per_sequence: int) -> int:
        """The largest divisor of `batch_size` within the budget, of whole sequences: so every step is as large.

        Raises InputError where not even the clips of one sequence fit, or the batch does not divide.
        """
        if batch_size % clips_per_sequence:
            raise InputError(f"batch_size {batch_size} must be a multiple of clips_per_sequence {clips_per_sequence}")
        budget = self.images_per_device or batch_size * num_context
        divisors = (n for n in range(batch_size, 0, -1) if batch_size % n == 0 and n % clips_per_sequence == 0)
        fitting = next((n for n in divisors if n * num_context <= budget), 0)
        if not fitting:
            raise InputError(
                f"images_per_device {budget} must hold {clips_per_sequence} clips of {num_context} views: raise it to "
                f"{clips_per_sequence * num_context}, or lower views or clips_per_sequence"
            )
        return fitting
