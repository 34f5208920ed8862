"""Sequence: the one interface of every dataset, a clip of frames that can be read in any selection."""

from collections.abc import Sequence as Indices
from typing import Protocol

from movies.clip import Tracks, Views


class Sequence(Protocol):
    """A recorded or generated clip with known cameras. Readers return lists of these; nothing is read before `read`."""

    @property
    def name(self) -> str:
        """Unique within its dataset."""

    @property
    def num_frames(self) -> int: ...

    @property
    def is_static(self) -> bool:
        """True where nothing in the scene moves, so that any frame supervises any time."""

    def read(self, indices: Indices[int]) -> tuple[Views, Tracks]:
        """The frames at `indices`, in their order, and world points followed through just these frames.

        Views: images [V, 3, H, W], cameras [V], times [V] in [0, 1] over the whole sequence, depth and depth_mask
        [V, H, W]. Tracks: points [V, P, 3] world, visible [V, P]; P = 0 where the dataset has none. Raises InputError
        for an index that the sequence does not have.
        """
