"""Which frames make a chunk: from the clip's length and cuts, the model's limit and a memory budget."""

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.clip_quality import COARSE, cuts
from movies.errors import InputError

CHUNK, OVERLAP = 13, 5  # frames that MoVieS was trained with at most; frames that neighbouring chunks share
BLANK = 0.01  # standard deviation of a grey picture that shows nothing
LOOP_ALIKE, LOOP_GAP = 0.8, 3  # correlation of frames that may show one place; chunks between that make it a return
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
# Bytes held at the peak, measured (docs/long_video.md): by the program itself, by a pixel of a view at each time
# (predictions, and the scene made of them), by a pixel of a view (levels of tokens, the decoders' pictures), and by a
# pixel of a frame as it is decoded.
PROGRAM, PER_PIXEL_TIME, PER_PIXEL, PER_FRAME_PIXEL = 700 * 10**6, 130, 1600, 24


@dataclass(frozen=True)
class Chunk:
    """Frames that the network reads together, as positions among the frames of the clip that are read."""

    shot: int
    frames: tuple[int, ...]  # ascending


@dataclass(frozen=True)
class Plan:
    """Chunks in order of time, neighbours of one shot sharing frames; frames that no chunk reads are left out."""

    num_frames: int
    digest: str  # of the small pictures, which tells clips apart
    chunks: tuple[Chunk, ...]
    loops: tuple[Chunk, ...]  # chunks of two places far apart in time that look alike
    left_out: tuple[int, ...]

    @property
    def num_shots(self) -> int:
        return len({chunk.shot for chunk in self.chunks})

    def described(self, memory: int = 0) -> str:
        """In a line, with what the memory is thought to be, where that is told."""
        lengths = [len(chunk.frames) for chunk in self.chunks]
        joined = sum(a.shot == b.shot for a, b in pairwise(self.chunks))
        text = f"{self.num_frames} frames in {len(lengths)} chunks of up to {max(lengths)} with {joined} joints"
        text += f", {len(self.loops)} places seen again" if self.loops else ""
        text += f"; {self.num_shots} shot{'s' * (self.num_shots > 1)}"
        return f"{text}; about {memory / 1e9:.1f} GB of memory" if memory else text

    def said(self) -> list[str]:
        """What the user should know of it."""
        found = []
        if self.num_shots > 1:
            starts = [c.frames[0] for a, c in pairwise(self.chunks) if a.shot != c.shot]
            found.append(f"the clip has cuts: a scene of its own begins at frame {', '.join(map(str, starts))}")
        if self.left_out:
            first, last, count = self.left_out[0], self.left_out[-1], len(self.left_out)
            found.append(f"{count} frames between {first} and {last} show nothing or stand alone, and are left out")
        return found


def make_plan(thumbnails: Tensor, length: int = CHUNK, overlap: int = OVERLAP, loops: bool = False) -> Plan:
    """Chunks of at most `length` frames for a clip with these small grey pictures [N, h, w].

    Chunks of a shot are spread evenly and share `overlap` frames or more. A cut begins a new shot; frames that show
    nothing are left out, and so are shots of one frame. Raises InputError for numbers that do not fit, and for a clip
    of which nothing is left.
    """
    if not 1 <= overlap < length:
        raise InputError(f"chunks of {length} frames cannot share {overlap}: the overlap is 1 to {length - 1}")
    seen = (thumbnails.flatten(1).std(dim=1) > BLANK).nonzero()[:, 0]  # [n]
    starts = [0, *cuts(thumbnails[seen]), len(seen)]
    shots = [seen[a:b].tolist() for a, b in pairwise(starts) if b - a > 1]
    if not shots:
        raise InputError("no two frames of the clip show anything that could be reconstructed")
    chunks = [
        Chunk(number, tuple(shot[first : first + length]))
        for number, shot in enumerate(shots)
        for first in _starts(len(shot), length, overlap)
    ]
    read = {frame for chunk in chunks for frame in chunk.frames}
    left_out = tuple(i for i in range(len(thumbnails)) if i not in read)
    found = _loops(thumbnails, chunks, length) if loops else ()
    digest = hashlib.sha256(thumbnails.numpy().tobytes()).hexdigest()
    return Plan(len(thumbnails), digest, tuple(chunks), found, left_out)


def _starts(num_frames: int, length: int, overlap: int) -> list[int]:
    if num_frames <= length:
        return [0]
    count = -(-(num_frames - overlap) // (length - overlap))
    return torch.linspace(0, num_frames - length, count, dtype=torch.float64).round().long().tolist()


def _loops(thumbnails: Tensor, chunks: list[Chunk], length: int) -> tuple[Chunk, ...]:
    """Chunks made of two places of a shot that look alike, the best of each neighbourhood first.

    The middle frame of each chunk is compared with all frames of much later ones.
    """
    coarse = F.adaptive_avg_pool2d(thumbnails[:, None], COARSE).flatten(1)  # [N, 144]
    coarse = F.normalize(coarse - coarse.mean(dim=1, keepdim=True), dim=1, eps=1e-3)
    pairs = []
    for j, later in enumerate(chunks):
        for i, earlier in enumerate(chunks[: max(j - LOOP_GAP, 0)]):
            if earlier.shot == later.shot:
                value, k = (coarse[list(later.frames)] @ coarse[earlier.frames[len(earlier.frames) // 2]]).max(dim=0)
                pairs.append((float(value), i, j, int(k)))
    found: list[tuple[int, int]] = []
    loops = []
    for value, i, j, k in sorted(pairs, reverse=True):
        near = any(abs(i - a) <= LOOP_GAP and abs(j - b) <= LOOP_GAP for a, b in found)
        if value > LOOP_ALIKE and not near:
            found.append((i, j))
            middle = len(chunks[i].frames) // 2
            frames = _around(chunks[i], middle, length // 2) + _around(chunks[j], k, length // 2)
            loops.append(Chunk(chunks[i].shot, frames))
    return tuple(loops)


def _around(chunk: Chunk, position: int, count: int) -> tuple[int, ...]:
    first = min(max(position - count // 2, 0), max(len(chunk.frames) - count, 0))
    return chunk.frames[first : first + count]


# --- memory ------------------------------------------------------------------------------------------------------


def parse_memory(text: str) -> int:
    """Bytes of "8G", "800M" or a plain number. Raises InputError for anything else."""
    match = re.fullmatch(r"([\d.]+)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if not match or match[1].count(".") > 1 or not float(match[1].strip(".") or 0) > 0:
        raise InputError(f"memory {text!r}: give bytes as 8G or 800M")
    return int(float(match[1]) * UNITS[match[2].upper()])


@dataclass(frozen=True)
class Sizes:
    """What memory depends on besides the length of a chunk."""

    view: tuple[int, int]  # (height, width) that the network sees
    frame: tuple[int, int]  # of the clip
    weights: int  # bytes of the larger network

    def bytes_needed(self, num_views: int) -> int:
        """What a chunk of V views takes at the peak."""
        (height, width), (rows, columns) = self.view, self.frame
        pixels, decoded = height * width * num_views, rows * columns * num_views
        return PROGRAM + self.weights + decoded * PER_FRAME_PIXEL + pixels * (PER_PIXEL + PER_PIXEL_TIME * num_views)


def fit_memory(budget: int, length: int, overlap: int, sizes: Sizes) -> int:
    """The longest chunk up to `length` within a budget of bytes. Raises InputError where not even the shortest fits."""
    for views in range(length, overlap, -1):
        if sizes.bytes_needed(views) <= budget:
            return views
    least, (height, width) = sizes.bytes_needed(overlap + 1), sizes.view
    raise InputError(
        f"chunks of {overlap + 1} frames of {width}x{height} need about {least / 1e9:.1f}G of memory, more than "
        f"{budget / 1e9:.1f}G; lower --resolution or --overlap, or use --dtype bf16"
    )
