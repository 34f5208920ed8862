"""Every pixel of a video followed through all of it, without following the same point twice (D4RT, section 2.3)."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from movies.d4rt.queries import QueryAnswers
from movies.d4rt.readouts import Reader, read_tracks
from movies.d4rt.surfaces import pixel_of
from movies.geometry import pixel_grid


@dataclass(frozen=True)
class DenseTracks:
    """M points, each seen by a pixel that no earlier one covers, over the T frames of a video."""

    source: Tensor  # [M] int64 frame
    uv: Tensor  # [M, 2] of that frame
    answers: QueryAnswers  # [T, M], in the camera of each time
    num_queries: int
    num_pixels: int  # T * H * W
    seconds: float

    @property
    def num_naive(self) -> int:
        """The queries that follow every pixel of every frame through all frames."""
        return self.num_pixels * len(self.answers.points)

    @property
    def saved(self) -> float:
        """How many times fewer queries than that."""
        return self.num_naive / max(self.num_queries, 1)

    def counts(self) -> Tensor:  # [4] float64
        """Tracks, queries, queries without the grid, seconds."""
        return torch.tensor([len(self.source), self.num_queries, self.num_naive, self.seconds], dtype=torch.float64)


def track_all(reader: Reader, height: int, width: int, at_once: int = 1024) -> DenseTracks:
    """Unvisited pixels of every frame in turn become sources; where their points are seen, pixels count as visited.

    `at_once` sources are followed together: fewer save more queries, more save time. They are spread over the frame,
    as neighbours visit other pixels than their own the least.
    """
    started = time.perf_counter()
    num_frames = reader.num_frames
    centers = pixel_grid(height, width, reader.tokens.features.device).flatten(0, 1)  # [H*W, 2]
    visited = torch.zeros(num_frames, height * width, dtype=torch.bool, device=centers.device)
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(0)).to(centers.device)
    sources, places, answers = [], [], []
    for frame in range(num_frames):
        for group in order.split(at_once):
            pixels = group[~visited[frame, group]]
            if not len(pixels):
                continue
            source = torch.full_like(pixels, frame)
            found = read_tracks(reader, centers[pixels], source)
            visited |= _covered(found, height, width)
            visited[frame, pixels] = True
            sources.append(source)
            places.append(centers[pixels])
            answers.append(found)
    joined = QueryAnswers.cat(answers)
    count = joined.visibility.numel()
    seconds = time.perf_counter() - started
    return DenseTracks(torch.cat(sources), torch.cat(places), joined, count, visited.numel(), seconds)


def _covered(answers: QueryAnswers, height: int, width: int) -> Tensor:  # answers [T, P] -> [T, H*W] bool
    """The pixels in which the points are seen."""
    pixel, inside = pixel_of(answers.positions, height, width)
    covered = pixel.new_zeros(len(pixel), height * width)
    return covered.scatter_reduce(1, pixel, (inside & answers.visible).long(), "amax") > 0
