"""ClipDataset: many sequences mixed by their repeats, and clips made from them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from movies.clip import Batch, Clip, Tracks, Views
from movies.data.sampling import Draw, SamplingConfig, draw_frames
from movies.data.transforms import color_jitter, normalized, random_crop, trim_depth
from movies.errors import InputError
from movies.geometry import rotation_angle

MAX_ATTEMPTS = 20  # refused draws in a row before the data counts as unusable


@dataclass(frozen=True)
class ClipConfig:
    """What every clip looks like and which are refused (`max_rotation` in degrees from the first context camera)."""

    sampling: SamplingConfig
    height: int
    width: int
    clips_per_sequence: int = 1
    min_crop: float = 1.0
    jitter: float = 0.0
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
    """What one batch is made of: `entries` of the dataset, a seed for everything random in it."""

    entries: tuple[int, ...]
    num_context: int
    seed: tuple[int, int]


@dataclass(frozen=True)
class LoadedBatch:
    """A batch and the draws refused while making it, as (sequence, reason)."""

    batch: Batch
    refused: tuple[tuple[str, str], ...]


class ClipDataset(torch.utils.data.Dataset):
    """Batches from plans: `dataset[plan]` is a pure function of the plan.

    An entry is one sequence; a source of `repeats` r gives r entries per sequence (sources are given as Source, or as
    tuples of its first fields). Several clips come from every
    sequence read, which shares out the cost of reading it.
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
        refused: list[tuple[str, str]] = []
        clips: list[Clip] = []
        for position, entry in enumerate(plan.entries):
            rng = np.random.default_rng([*plan.seed, position])
            clips += self._usable_clips(rng, entry, plan.num_context, refused)
        return LoadedBatch(Batch.stack(clips), tuple(refused))

    def _usable_clips(self, rng: np.random.Generator, entry: int, num_context: int, refused: list) -> list[Clip]:
        """Clips of the entry, or of another one drawn in its place when they are refused."""
        for _ in range(MAX_ATTEMPTS):
            position = self.entries[entry]
            sequence, rules = self.sequences[position], self.rules[self.source_of[position]]
            try:
                clips = list(self._clips(rng, sequence, rules, num_context))
                reason = next((why for clip in clips if (why := refusal(clip, self.config, rules))), "")
            except (InputError, OSError) as error:
                reason = str(error)
            if not reason:
                return [normalized(clip) for clip in clips]
            refused.append((sequence.name, reason))
            entry = int(rng.integers(len(self.entries)))
        name, reason = refused[-1]
        raise InputError(f"{MAX_ATTEMPTS} draws in a row were refused, the last from {name}: {reason}")

    def _clips(self, rng: np.random.Generator, sequence, rules: SourceRules, num_context: int) -> Iterator[Clip]:
        """Clips of one sequence, its frames read once for all of them."""
        config = self.config
        sampling = replace(config.sampling, gap=rules.gap or config.sampling.gap)
        number = range(config.clips_per_sequence)
        draws = [draw_frames(rng, sequence.num_frames, num_context, sampling) for _ in number]
        frames = np.unique(np.concatenate([(*draw.context, *draw.target) for draw in draws]))
        views, tracks = sequence.read(frames.tolist())
        for draw in draws:
            clip = cut_clip(views, tracks, frames, draw, sequence)
            clip = random_crop(rng, clip, config.height, config.width, config.min_crop)
            clip = trim_depth(clip, *rules.depth_quantiles)
            clip = replace(clip, depth_weight=rules.depth_weight, motion_weight=rules.motion_weight)
            yield color_jitter(rng, clip, config.jitter)


def cut_clip(views: Views, tracks: Tracks, frames: np.ndarray, draw: Draw, sequence) -> Clip:
    """The clip of `draw` out of views and tracks read for the sorted `frames`."""
    index = torch.from_numpy(np.searchsorted(frames, (*draw.context, *draw.target)))
    name = f"{sequence.name}[{','.join(map(str, draw.context))}]"
    return Clip(views.select(index), tracks.select(index), len(draw.context), True, sequence.is_static, name)


def refusal(clip: Clip, config: ClipConfig, rules: SourceRules) -> str:
    """Why the clip is not fit for training; empty where it is."""
    context = clip.context
    finite = context.images.isfinite().all() and context.cameras.c2w.isfinite().all()
    if not (finite and torch.where(context.depth_mask, context.depth, 0.0).isfinite().all()):
        return "images, cameras or depth hold numbers that are not finite"
    share = context.depth_mask.float().mean().item()
    if share < rules.min_valid_depth:
        return f"only {share:.0%} of the context's depth is valid"
    rotation = context.cameras.c2w[:, :3, :3]
    angle = rotation_angle(rotation[:1], rotation).max().item()
    if angle > config.max_rotation:
        return f"the camera turns by {angle:.0f} degrees"
    return ""
