"""Held-out synthetic worlds, which need no download: everything about them is known, so every task can be scored.

Their seeds are apart from those of training. Lengths are in the unit of the clip (input points at mean distance 1 from
the first camera).
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from movies.clip import Tracks, Views
from movies.data.synthetic import SyntheticSequence, synthetic_sequences
from movies.errors import InputError
from movies.evaluate import synthetic
from movies.evaluate.cases import Case, make_case
from movies.evaluate.methods import Method, MoVieSMethod
from movies.evaluate.protocol import Protocol
from movies.geometry import rigid_inverse, transform_points

KINDS = (("dynamic", False), ("static", True))


def _sequences(num_clips: int, difficulty: float, size: int) -> Iterator[tuple[str, SyntheticSequence]]:
    options = {"num_frames": synthetic.NUM_FRAMES, "image_size": (size, size), "num_tracks": 64}
    for kind, static in KINDS:
        first = {"num_sequences": num_clips, "first_seed": synthetic.FIRST_SEED, "difficulty": difficulty}
        for number, sequence in enumerate(synthetic_sequences(**first, **options, static=static)):
            yield f"{kind}/{number:03d}", sequence


def world_scenes(root: str = "", *, num_clips: int = 8, difficulty: float = 0.0, size: int = 112) -> list:
    """`num_clips` dynamic worlds and as many static ones, with truth for every task. `root` is not used."""
    return [WorldScene(name, sequence) for name, sequence in _sequences(num_clips, difficulty, size)]


def held_out_scenes(root: str = "", *, num_clips: int = 32, difficulty: float = 0.0, size: int = 112) -> list:
    """The same worlds as the README measures them, MoVieS beside its baselines. `root` is not used."""
    return [HeldOutScene(name, sequence) for name, sequence in _sequences(num_clips, difficulty, size)]


@dataclass(frozen=True)
class WorldScene:
    """One world; 5 frames go in, 4 novel cameras at novel times are asked for."""

    name: str
    sequence: SyntheticSequence

    def cases(self, protocol: Protocol) -> Iterator[Case]:
        """One case, with true tracks, flow and moving masks."""
        clip = synthetic.held_out_clip(self.sequence, self.sequence.image_size[0])
        context, target = clip.context, clip.target
        blank = torch.zeros_like(target.depth)
        views = Views(target.images, clip.cameras, clip.times, blank, blank.bool())
        moved = synthetic.true_positions(self.sequence, context.times, clip.first, clip.scale)  # [V, V, H, W, 3]
        flow = torch.stack([moved[v + 1, v] - moved[v, v] for v in range(len(context) - 1)])
        known = flow.isfinite().all(dim=-1)  # not in the sky
        moving = (moved - context.points()).norm(dim=-1).nan_to_num(0).amax(dim=0) >= synthetic.MOVING
        truth = {"flow": flow.nan_to_num(0), "flow_mask": known, "moving": moving & context.depth_mask}
        tracks = self.sequence.read(synthetic.CONTEXT)[1]
        points = clip.scale * transform_points(rigid_inverse(clip.first.c2w), tracks.points)
        tracks = Tracks(points, tracks.visible)
        given = protocol.cameras == "given"
        yield make_case(self.name, context, views, target.moving, tracks, given, torch.zeros(0, 3), **truth)


@dataclass(frozen=True)
class HeldOutScene:
    """One world with the contenders of the README's table."""

    name: str
    sequence: SyntheticSequence

    def score(self, method: Method, pictures: Path | None) -> dict[str, float | None]:
        """The fields of synthetic.ClipScores. Raises InputError for a method that is not MoVieS."""
        if not isinstance(method, MoVieSMethod):
            raise InputError("the held-out worlds compare MoVieS with its own baselines")
        picture = pictures / f"{self.name.replace('/', '_')}.png" if pictures else None
        size = self.sequence.image_size[0]
        networks = method.model.cpu(), method.vggt.cpu()  # where the worlds are, and the README's figures come from
        scores = synthetic.score_sequence(*networks, self.sequence, size, picture)
        return {name: None if math.isnan(value) else value for name, value in asdict(scores).items()}
