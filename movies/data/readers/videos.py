"""Chosen frames of a video by their index. The only door to PyAV."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from movies.errors import InputError


def video_shape(path: Path) -> tuple[int, int, int]:
    """(frames, height, width), by listing the packets; nothing is decoded. Raises InputError as `video_frames` does."""
    with _opened(path) as (container, stream):
        return len(_index(container, stream)[0]), stream.codec_context.height, stream.codec_context.width


def video_frames(path: Path, indices: Sequence[int], size: tuple[int, int]) -> list[np.ndarray]:  # uint8 [*size, 3]
    """The frames at `indices`, in their order: exact, by the container's index and from the nearest keyframe on.

    Raises InputError naming the file: not there, not a video, truncated, or with fewer frames.
    """
    with _opened(path) as (container, stream):
        times, keys = _index(container, stream)
        if len(times) < stream.frames:
            raise InputError(f"{path}: the video is cut short, {len(times)} of {stream.frames} frames are there")
        if max(indices, default=-1) >= len(times):
            raise InputError(f"{path}: the video has {len(times)} frames, frame {max(indices)} is asked of it")
        wanted = sorted({times[index] for index in indices})
        frames = dict(zip(wanted, _decoded(container, stream, wanted, keys, size), strict=True))
    return [frames[times[index]] for index in indices]


@contextmanager
def _opened(path: Path) -> Iterator[tuple]:
    """A container and its first video stream; what goes wrong in the block is told as InputError."""
    try:
        import av
    except ImportError as error:
        raise InputError("av is needed to read this dataset: pip install 'movies[data]'") from error
    try:
        with av.open(str(path)) as container:
            yield container, container.streams.video[0]
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (av.FFmpegError, IndexError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read as a video ({error}); fetch it again") from error


def _index(container, stream) -> tuple[list[int], list[int]]:
    """Presentation times of all frames in order, and those of keyframes. Packets are listed, nothing is decoded."""
    packets = [packet for packet in container.demux(stream) if packet.pts is not None]
    return sorted(packet.pts for packet in packets), sorted(packet.pts for packet in packets if packet.is_keyframe)


def _decoded(container, stream, wanted: list[int], keys: list[int], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames at the sorted presentation times `wanted`; jumps only where a later keyframe is nearer."""
    options = {"format": "rgb24", "height": size[0], "width": size[1], "interpolation": "BILINEAR"}
    frames, group = iter(()), -1
    for time in wanted:
        if bisect_right(keys, time) != group:
            group = bisect_right(keys, time)
            container.seek(time, stream=stream)
            frames = container.decode(stream)
        yield next(frame for frame in frames if frame.pts == time).to_ndarray(**options)
