"""ClipDataset: many sequences mixed by their repeats, and clips made from them."""

from dataclasses import dataclass, field, replace
from math import ceil
from typing import NamedTuple

import numpy as np
import torch

from movies.clip import Batch, Clip, Tracks, Views
from movies.data.augmentation import VideoAugmentation, augment
from movies.data.buckets import ClipShape
from movies.data.sampling import Draw, Refusal, SamplingConfig, draw_frames
from movies.data.transforms import color_jitter, normalized, random_crop, trim_depth
from movies.errors import InputError
from movies.geometry import rotation_angle

MAX_ATTEMPTS = 20  # draws in a row without a clip before the data counts as unusable
SETTLING = 100  # draws before a share of them says anything


@dataclass(frozen=True)
class ClipConfig:
    """How clips are drawn and changed, and which are refused (`max_rotation` in degrees from the first camera).

    `video_augmentation` is D4RT's: crops of any aspect and stronger changes of colour, in place of `min_crop` and
    `jitter`.
    """

    sampling: SamplingConfig
    clips_per_sequence: int = 1
    min_crop: float = 1.0
    jitter: float = 0.0
    video_augmentation: bool = False
    max_rotation: float = 45.0


@dataclass(frozen=True)
class SourceRules:
    """What one dataset changes: its own `gap` (empty: everyone's), which depths count, how far labels are trusted.

    `depth_quantiles` are of the valid depth of each view; clips with less than `min_valid_depth` of it are refused. The
    weights scale the depth and motion losses of its samples.
    """

    gap: tuple[int, int] | tuple[()] = ()
    depth_quantiles: tuple[float, float] = (0.0, 1.0)
    depth_weight: float = 1.0
    motion_weight: float = 1.0
    min_valid_depth: float = 0.1


class Source(NamedTuple):
    """One dataset of a mix: every sequence counts `repeats` times."""

    sequences: list
    repeats: int = 1
    rules: SourceRules = SourceRules()


@dataclass(frozen=True)
class BatchPlan:
    """What one batch is made of: `entries` of the dataset, their clips' shape, a seed for everything random in them.

    A device's step may take several batches: this one is a `share` of it, and `ends_step` says that it is the last.
    """

    entries: tuple[int, ...]
    shape: ClipShape
    seed: tuple[int, int]  # and the place of its first entry in the order of all
    share: float = 1.0
    ends_step: bool = True


@dataclass(frozen=True)
class Rejects:
    """Draws that did not become clips, as (sequence, reason): `refused` by a filter, `broken` by what the data hold."""

    refused: list[tuple[str, str]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.refused) + len(self.broken)


@dataclass(frozen=True)
class LoadedBatch:
    """A batch with its plan, and what was replaced while making it."""

    batch: Batch
    plan: BatchPlan
    rejects: Rejects

    @property
    def num_draws(self) -> int:
        """How often a sequence was drawn for it."""
        return len(self.plan.entries) + len(self.rejects)


class ClipDataset(torch.utils.data.Dataset):
    """Batches from plans: `dataset[plan]` is a pure function of the plan.

    An entry is one sequence; a source of `repeats` r gives r entries per sequence (sources are given as Source, or as
    tuples of its first fields). Several clips come from every sequence read, which shares out the cost of reading it.
    """

    def __init__(self, sources: list[Source | tuple], config: ClipConfig) -> None:
        sources = [Source(*source) for source in sources]
        self.sequences = [sequence for source in sources for sequence in source.sequences]
        self.rules = [source.rules for source in sources]
        counts = [len(source.sequences) for source in sources]
        self.source_of = np.repeat(np.arange(len(sources)), counts)  # of each sequence
        starts = np.cumsum([0, *counts])
        parts = [np.tile(np.arange(s, s + n), x.repeats) for s, n, x in zip(starts, counts, sources, strict=False)]
        self.entries = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        self.config = config
        if len(self.entries) == 0:
            raise InputError("the data sources hold no sequence")

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, plan: BatchPlan) -> LoadedBatch:
        rejects, clips = Rejects(), []
        seed, first = plan.seed
        for place, entry in enumerate(plan.entries, first):
            clips += self._usable_clips(np.random.default_rng([seed, place]), entry, plan.shape, rejects)
        return LoadedBatch(Batch.stack(clips), plan, rejects)

    def _usable_clips(self, rng: np.random.Generator, entry: int, shape: ClipShape, rejects: Rejects) -> list[Clip]:
        """Clips of the entry, or of others drawn in its place while they are refused or broken."""
        for _ in range(MAX_ATTEMPTS):
            position = self.entries[entry]
            sequence, rules = self.sequences[position], self.rules[self.source_of[position]]
            try:
                return [normalized(clip) for clip in self._clips(rng, sequence, rules, shape)]
            except Refusal as refusal:
                kind, reason = rejects.refused, str(refusal)
            except Exception as error:  # whatever a damaged file makes a library raise: counted, fatal when frequent
                kind, reason = rejects.broken, str(error) if isinstance(error, InputError) else repr(error)
            kind.append((sequence.name, reason))
            entry = int(rng.integers(len(self.entries)))
        raise InputError(f"{MAX_ATTEMPTS} draws in a row gave no clip, the last from {sequence.name}: {reason}")

    def _clips(self, rng: np.random.Generator, sequence, rules: SourceRules, shape: ClipShape) -> list[Clip]:
        """Clips of one sequence, its frames read once for all of them. Raises Refusal for what a filter turns down."""
        config = self.config
        if not config.video_augmentation:  # which crops smaller and wider
            sequence = decoding_less(sequence, shape, config.min_crop)
        sampling = replace(config.sampling, gap=rules.gap or config.sampling.gap)
        number = range(config.clips_per_sequence)
        draws = [draw_frames(rng, sequence.num_frames, shape.num_context, sampling) for _ in number]
        frames = np.unique(np.concatenate([(*draw.context, *draw.target) for draw in draws]))
        views, tracks = sequence.read(frames.tolist())
        cut = (cut_clip(views, tracks, frames, draw, sequence) for draw in draws)
        if getattr(sequence, "off_path", 0.0):  # a world that can be seen from anywhere
            cut = (sequence.with_targets_off_path(clip, d.target, rng) for clip, d in zip(cut, draws, strict=True))
        clips = [self._changed(rng, clip, rules, shape) for clip in cut]
        for clip in clips:
            check_finite(clip)
            check_quality(clip, config, rules)
        return clips

    def _changed(self, rng: np.random.Generator, clip: Clip, rules: SourceRules, shape: ClipShape) -> Clip:
        """The clip cropped, its depth trimmed, its colours jittered."""
        clip = replace(clip, depth_weight=rules.depth_weight, motion_weight=rules.motion_weight)
        if self.config.video_augmentation:
            clip = augment(rng, clip, shape.height, shape.width, VideoAugmentation())
            return trim_depth(clip, *rules.depth_quantiles)
        clip = random_crop(rng, clip, shape.height, shape.width, self.config.min_crop)
        clip = trim_depth(clip, *rules.depth_quantiles)
        return color_jitter(rng, clip, self.config.jitter)


def decoding_less(sequence, shape: ClipShape, min_crop: float):
    """The sequence with pictures decoded no larger than a crop needs, where its manifest does not say how large."""
    if getattr(sequence, "short_side", -1) != 0:
        return sequence
    return replace(sequence, short_side=ceil(max(shape.height, shape.width) / min_crop))


def cut_clip(views: Views, tracks: Tracks, frames: np.ndarray, draw: Draw, sequence) -> Clip:
    """The clip of `draw` out of views and tracks read for the sorted `frames`."""
    index = torch.from_numpy(np.searchsorted(frames, (*draw.context, *draw.target)))
    name = f"{sequence.name}[{','.join(map(str, draw.context))}]"
    return Clip(views.select(index), tracks.select(index), len(draw.context), True, sequence.is_static, name)


def check_finite(clip: Clip) -> None:
    """Raises InputError for numbers that no filter may pass on; where depth does not count it may be anything."""
    views = clip.views
    values = {"images": views.images, "cameras": views.cameras.c2w, "intrinsics": views.cameras.fxfycxcy}
    values["depth"] = torch.where(views.depth_mask, views.depth, 0.0)
    bad = [name for name, value in values.items() if not value.isfinite().all()]
    if bad:
        raise InputError(f"{clip.name}: {' and '.join(bad)} hold numbers that are not finite")


def check_quality(clip: Clip, config: ClipConfig, rules: SourceRules) -> None:
    """Raises Refusal for a clip of sound data that would not teach anything."""
    context = clip.context
    share = context.depth_mask.float().mean().item()
    if share < rules.min_valid_depth:
        raise Refusal(f"only {share:.2%} of the context's depth is valid")
    rotation = context.cameras.c2w[:, :3, :3]
    angle = rotation_angle(rotation[:1], rotation).max().item()
    if angle > config.max_rotation:
        raise Refusal(f"the camera turns by {angle:.0f} degrees")


def check_broken_share(drawn: int, broken: int, max_rate: float, last: tuple[str, str]) -> None:
    """Raises InputError where more than `max_rate` of the draws were broken; the first draws count as SETTLING.

    `last` is the newest of them, (sequence, reason).
    """
    if broken > max_rate * max(drawn, SETTLING):
        raise InputError(
            f"{broken} of {drawn} samples were broken, more than `data.max_broken_rate` {max_rate:g} allows; the last: "
            f"{last[0]}: {last[1]}; see `movies data check`"
        )
