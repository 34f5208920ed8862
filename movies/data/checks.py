"""Checks of a dataset as it lies on the disk: a sample is read, compared with itself and with its manifest."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from movies.cameras import Cameras
from movies.clip import Views
from movies.data.consistency import LIMIT, Residuals, Sample, judge
from movies.data.indexing import read_index, write_index
from movies.data.manifest import Manifest, load_mix
from movies.data.readers.frames import FrameSequence, frames_of
from movies.data.sequence import Sequence
from movies.errors import InputError
from movies.geometry import rotation_angle

SPAN = 16  # frames over which neighbours are compared
OPENED = 8  # frames of a sequence, evenly over it, that must be readable
_STEPS = (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # near neighbours and far ones: parallax needs a baseline
_NOTHING = Residuals(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class SequenceReport:
    """What was seen of one sequence. Depths in metres, `baseline` the largest distance of two of the cameras read."""

    name: str
    frames: int = 0
    missing: int = 0  # numbers that are skipped between the first and the last frame
    depth: tuple[float, float, float] = (float("nan"),) * 3  # 2nd percentile, median, 98th
    valid: float = 0.0  # share of pixels with depth
    points: int = 0  # tracks
    baseline: float = 0.0
    rotation: float = 0.0  # degrees
    residuals: Residuals = _NOTHING
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        numbers = [
            f"{self.frames:6d} {self.missing:7d} ",
            *(f"{depth:8.3g}" for depth in self.depth),
            f"{self.valid:6.0%} {self.points:7d} {self.baseline:8.3g} {self.rotation:6.1f}  ",
            *(f"{value:7.4f}" for value in (self.residuals.depth, self.residuals.color, self.residuals.tracks)),
        ]
        return f"{self.name[-40:]:40s} {' '.join(numbers)}  {'BROKEN' if self.problems else 'ok'}"


HEADER = (
    f"{'sequence':40s} frames missing  depth 2%   median      98%  valid  tracks baseline rotat.    depth"
    "   color  tracks"
)


@dataclass(frozen=True)
class DatasetReport:
    """A dataset against its manifest: `counts` found and expected, and its sequences."""

    name: str
    counts: str
    sequences: tuple[SequenceReport, ...] = ()
    own_problems: tuple[str, ...] = field(default=())

    @property
    def problems(self) -> list[str]:
        """Everything that is broken, one line each, with the name of the sequence."""
        return [*self.own_problems, *(f"{s.name}: {problem}" for s in self.sequences for problem in s.problems)]

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.counts}"]
        if self.sequences:
            lines += [HEADER, *map(str, self.sequences)]
        lines += [f"BROKEN {problem}" for problem in self.problems] or ["nothing broken was found"]
        return "\n".join(lines)


def index_manifests(path: str | Path) -> Iterator[str]:
    """Write the index of a manifest, or of all in a mix; a line for each says what was found."""
    for manifest in load_mix(path):
        number, errors = write_index(manifest.index, manifest.identity(), manifest.scan())
        yield f"wrote {manifest.index}: {number} sequences" + (f", {errors} cannot be opened" if errors else "")


def check_manifests(path: str | Path, num_sequences: int) -> list[DatasetReport]:
    """Check a manifest, or all of a mix, on `num_sequences` sequences each, taken evenly."""
    if num_sequences < 1:
        raise InputError(f"the number of sequences must be at least 1, got {num_sequences}")
    return [check_manifest(manifest, num_sequences) for manifest in load_mix(path)]


def check_manifest(manifest: Manifest, num_sequences: int) -> DatasetReport:
    """Compare the counts with those expected, read a sample, and judge it."""
    counts, problems = _counts(manifest)
    sequences = manifest.sequences()
    chosen = np.unique(np.linspace(0, len(sequences) - 1, num_sequences).round().astype(int))
    reports = tuple(check_sequence(sequences[i]) for i in chosen)
    return DatasetReport(manifest.name, counts, reports, tuple(problems))


def _counts(manifest: Manifest) -> tuple[str, list[str]]:
    """How many sequences and frames there are, against those of a whole download. Frames need an index."""
    problems, frames = [], 0
    if Path(manifest.index).exists():
        entries = list(read_index(manifest.index, manifest.identity()))
        problems = [f"{entry['name']}: {entry['error']}" for entry in entries if "error" in entry]
        number, frames = len(entries), sum(entry.get("frames", 0) for entry in entries)
    else:
        number = len(manifest.scan())
    parts = []
    for what, found, wanted in (
        ("sequences", number, manifest.expected.sequences),
        ("frames", frames, manifest.expected.frames if frames else 0),
    ):
        if found or what == "sequences":
            parts.append(f"{found} {what}" + (f" of {wanted}" if wanted else ""))
        if found < wanted and not manifest.expected.partial:
            problems.append(f"{manifest.name}: {found} {what} where the manifest expects {wanted}; is it all unpacked?")
    return ", ".join(parts), problems


def check_sequence(sequence: Sequence) -> SequenceReport:
    """Read some frames of one sequence and judge whether images, cameras, depth and tracks agree."""
    report = SequenceReport(sequence.name)
    try:
        number = sequence.num_frames
        problems = _unreadable(sequence, number)
        report = SequenceReport(sequence.name, number, _gaps(sequence), problems=problems)
        indices, views, tracks, sample = _sample(sequence, number)
    except (InputError, OSError) as error:
        return SequenceReport(sequence.name, report.frames, report.missing, problems=report.problems or (str(error),))
    verdict = judge(sample)
    found = [*problems, *_camera_problems(views)]
    if not verdict.agrees:
        found.append(_disagreement(verdict.hint, verdict.residuals, indices))
    centers, rotation = views.cameras.centers, views.cameras.c2w[:, :3, :3]
    return SequenceReport(
        sequence.name,
        number,
        report.missing,
        _depth_range(views),
        views.depth_mask.float().mean().item(),
        len(tracks),
        torch.cdist(centers, centers).max().item(),
        rotation_angle(rotation[:1], rotation).max().item(),
        verdict.residuals,
        tuple(found),
    )


def _depth_range(views: Views) -> tuple[float, float, float]:
    depth = views.depth[views.depth_mask]
    if len(depth) == 0:
        return (float("nan"),) * 3
    some = depth[:: max(1, len(depth) // 100_000)]
    low, middle, high = torch.quantile(some, torch.tensor([0.02, 0.5, 0.98])).tolist()
    return low, middle, high


def _unreadable(sequence: Sequence, number: int) -> tuple[str, ...]:
    problems = []
    for index in np.unique(np.linspace(0, number - 1, OPENED).round().astype(int)).tolist():
        try:
            sequence.read([index])
        except (InputError, OSError) as error:
            problems.append(str(error))
    return tuple(problems)


def _gaps(sequence: Sequence) -> int:
    """How many frame numbers are skipped, measured by the usual step from one to the next."""
    if not isinstance(sequence, FrameSequence):
        return 0
    steps = np.diff(frames_of(sequence).numbers)
    usual = np.median(steps) if len(steps) else 1
    return int((np.round(steps / max(usual, 1)) - 1).clip(0).sum())


def _sample(sequence: Sequence, number: int):
    """Frames in the middle of the sequence, with the cameras of their neighbours. -> (indices, views, tracks, sample)

    Sequences too short for neighbours on both sides stand in with the frames themselves.
    """
    first, last = (1, number - 2) if number >= 4 else (0, number - 1)
    span = min(SPAN, last - first)
    start = first + (last - first - span) // 2
    indices = list(range(start, start + span + 1)) if span < 6 else [start + round(span * step) for step in _STEPS]
    views, tracks = sequence.read(indices)
    before, after = (_cameras(sequence, [min(max(i + by, 0), number - 1) for i in indices]) for by in (-1, 1))
    return indices, views, tracks, Sample(views, tracks, before, after)


def _cameras(sequence: Sequence, indices: list[int]) -> Cameras:
    return (
        frames_of(sequence).cameras[indices]
        if isinstance(sequence, FrameSequence)
        else sequence.read(indices)[0].cameras
    )


def _camera_problems(views: Views) -> list[str]:
    cameras = views.cameras
    if not (cameras.c2w.isfinite().all() and cameras.fxfycxcy.isfinite().all()):
        return ["cameras hold numbers that are not finite"]
    rotation = cameras.c2w[:, :3, :3].double()
    if (rotation @ rotation.transpose(-1, -2) - torch.eye(3, dtype=torch.float64)).abs().max() > 1e-3:
        return ["rotations of the cameras are not orthonormal"]
    if (torch.linalg.det(rotation) < 0).any():
        return ["rotations of the cameras mirror the world: an axis is flipped once too often"]
    focal = cameras.fxfycxcy[:, :2]
    if (focal < 0.1).any() or (focal > 20).any():
        return [f"focal lengths of {focal.min():.3g} to {focal.max():.3g} image sizes; are they in another unit?"]
    return []


def _disagreement(hint: str, residuals: Residuals, indices: list[int]) -> str:
    likely = f"likely {hint}" if hint else f"more than {LIMIT:.0%} and no single mistake explains it"
    values = {"depth": residuals.depth, "color": residuals.color, "tracks": residuals.tracks}
    told = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if value == value)
    return f"frames {indices[0]} to {indices[-1]} do not agree ({told}): {likely}"
