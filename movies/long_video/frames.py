"""Frames of a long clip, read lazily: chunk after chunk, each frame decoded once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Clip, matching_cameras
from movies.errors import InputError
from movies.long_video.plan import Chunk
from movies.video import ClipFile, VideoFrames, even_indices, open_clip, read_thumbnails


class Frames(Protocol):
    """N frames of a clip that are read when they are asked for."""

    name: str
    cameras: Cameras  # [N], or [0] where they are to be estimated

    def __len__(self) -> int: ...

    def thumbnails(self) -> Tensor:  # [N, h, w] small and grey
        ...

    def stream(self, positions: list[int]) -> Iterator[Tensor]:  # ascending -> [3, H, W] each
        ...


@dataclass(frozen=True)
class FileFrames:
    """Frames of a video, a gif or a folder of images, chosen evenly."""

    name: str
    cameras: Cameras  # [N] or [0]
    file: ClipFile
    indices: Tensor  # [N] int64 into the file

    def __len__(self) -> int:
        return len(self.indices)

    def thumbnails(self) -> Tensor:  # [N, 36, 64]
        found = read_thumbnails(self.file.path)
        if len(found) < self.file.num_total:
            raise InputError(
                f"{self.file.path}: only {len(found)} of {self.file.num_total} frames can be decoded; copy or record "
                "it again"
            )
        return found[self.indices]

    def stream(self, positions: list[int]) -> Iterator[Tensor]:
        return self.file.stream(self.indices[positions])


def open_frames(path: str | Path, num_frames: int | None, cameras: str | Path | None = None) -> FileFrames:
    """`num_frames` frames chosen evenly, all for None, with the cameras of a file. Raises InputError as Clip.load."""
    file = open_clip(path)
    if num_frames is not None and num_frames < 1:
        raise InputError(f"the number of frames must be at least 1, got {num_frames}")
    indices = even_indices(file.num_total, num_frames or file.num_total)
    if len(indices) < 2:
        raise InputError(f"{path}: a clip needs at least 2 frames, this one has {len(indices)}")
    given = Cameras(torch.zeros(0, 4, 4), torch.zeros(0, 4))
    if cameras is not None:
        first = next(file.stream(indices[:1]))
        names = tuple(file.names[i] for i in indices.tolist()) if file.names else ()
        chosen = VideoFrames(first[None], indices, file.num_total, file.fps, names)
        given = matching_cameras(cameras, chosen, path)
    return FileFrames(Path(path).stem, given, file, indices)


def chunk_clips(frames: Frames, chunks: list[Chunk]) -> Iterator[Clip]:
    """The chunks' clips in order. Only one chunk's frames are held; a frame that neighbours share is decoded once."""
    held: dict[int, Tensor] = {}
    stream: Iterator[Tensor] = iter(())
    ahead: list[int] = []  # what the stream is still to give, last first
    for number, chunk in enumerate(chunks):
        held = {i: image for i, image in held.items() if i in chunk.frames}
        missing = [i for i in chunk.frames if i not in held]
        if not set(missing) <= set(ahead):
            later = {i for after in chunks[number + 1 :] for i in after.frames if i > missing[-1]}
            ahead = sorted({*missing, *later}, reverse=True)
            stream = frames.stream(ahead[::-1])
        for i in missing:
            while ahead[-1] < i:
                ahead.pop()
                next(stream)
            held[ahead.pop()] = next(stream)
        cameras = frames.cameras[torch.tensor(chunk.frames)] if len(frames.cameras) else None
        yield Clip.of_frames(torch.stack([held[i] for i in chunk.frames]), cameras, frames.name)
