"""Images a second of every reader, against bare decoding of the same files by the same libraries.

`python tools/bench_data.py [--height 360 --width 640] [--views 8] [--rounds 15]` writes each dataset's raw layout (as
the tests do), lists the files that one read opens, and times three things on one thread: reading; bare decoding to
arrays as the libraries give them; and the plainest loop, which decodes and stacks them as the float32 that training
takes. Reading ends with float images, metric valid depth, cameras and tracks. Overheads are what it adds to the others.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import av
import h5py
import numpy as np
import OpenEXR
import torch
from PIL import Image

FIXTURES = Path(__file__).parents[1] / "tests" / "data_layer" / "readers"
sys.path.insert(0, str(FIXTURES))

import layouts_dynamic  # noqa: E402
import layouts_static  # noqa: E402
from scene import Scene, make_scene  # noqa: E402

from movies.data.readers import READERS  # noqa: E402
from movies.data.readers.frames import frames_of  # noqa: E402
from movies.data.readers.packed import PackedSequence, pack_sequence  # noqa: E402


def _realestate10k(root: Path, scene: Scene) -> None:
    layouts_static.write_realestate10k(root, scene)
    layouts_static.write_realestate10k_depth(root, scene)


def _packed(root: Path, scene: Scene) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layouts_dynamic.write_pointodyssey(Path(folder), scene)
        pack_sequence(READERS["pointodyssey"](folder)[0], root / "pointodyssey.h5")


WRITERS = {
    "realestate10k": _realestate10k,
    "packed": _packed,
    "tartanair": layouts_static.write_tartanair,
    "matrixcity": layouts_static.write_matrixcity,
    "vkitti2": layouts_static.write_vkitti2,
    "pointodyssey": layouts_dynamic.write_pointodyssey,
    "dynamicreplica": layouts_dynamic.write_dynamicreplica,
    "spring": layouts_dynamic.write_spring,
    "stereo4d": layouts_dynamic.write_stereo4d,
}


def _picture(path: Path | BytesIO) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def _hdf5(path: Path) -> list[np.ndarray]:
    """Every array, and the pictures of a packed file."""
    with h5py.File(path) as file:
        arrays = [file[key][()] for key in file if key not in ("pictures", "ends")]
        if "pictures" not in file:
            return arrays
        ends, content = file["ends"][:].tolist(), file["pictures"][:]
    starts = [0, *ends[:-1]]
    return arrays + [_picture(BytesIO(content[a:b].tobytes())) for a, b in zip(starts, ends, strict=True)]


def _exr(path: Path) -> np.ndarray:
    with OpenEXR.File(str(path), separate_channels=True) as file:
        return next(iter(file.channels().values())).pixels


def _arrays(path: Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return [arrays[key] for key in arrays.files if key != "trajs_2d"]


def _video(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _tensors(path: Path) -> dict:
    return torch.load(path, weights_only=True, mmap=True)


BARE: dict[str, Callable] = {
    ".jpg": _picture, ".png": _picture, ".dsp5": _hdf5, ".h5": _hdf5, ".exr": _exr, ".npy": np.load, ".npz": _arrays,
    ".mp4": _video, ".pth": _tensors,
}  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """Images a second."""

    reader: str
    ours: float
    bare: float
    loop: float


def opened_files(sequence, indices: list[int]) -> list[Path]:
    """What one read opens: what Python itself opens, and the files that C libraries open behind its back."""
    opened: set[Path] = set()

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str | Path) and recording:
            opened.add(Path(arguments[0]))

    recording = True
    sys.addaudithook(hook)  # cannot be taken off again, hence `recording`
    sequence.read(indices)
    recording = False
    if isinstance(sequence, PackedSequence):
        return [sequence.path]
    frames = frames_of(sequence)
    opened |= {path for i in indices for path in (frames.images[i], frames.depths[i]) if path is not None}
    return sorted(path for path in opened if path.suffix in BARE and path.is_relative_to(sequence.root))


def plain_loop(files: list[Path]) -> list[torch.Tensor]:
    """Pictures of a kind as one float32 tensor, channels first."""
    decoded = [BARE[file.suffix](file) for file in files]
    flat = [array for item in decoded for array in (item if isinstance(item, list) else [item])]
    pictures = [array for array in flat if isinstance(array, np.ndarray) and array.ndim >= 2 and len(array) > 16]
    kinds = [[a for a in pictures if a.shape == shape] for shape in sorted({a.shape for a in pictures})]
    return [
        torch.from_numpy(np.stack([_planes(a) for a in kind], dtype=np.float32, casting="unsafe")) for kind in kinds
    ]


def _planes(array: np.ndarray) -> np.ndarray:
    """Channels first, where there are any."""
    return np.moveaxis(array, -1, 0) if array.ndim == 3 and array.shape[-1] == 3 else array


def fastest(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """CPU time of the fastest of `rounds` calls of each, taken in turn: other work on the machine counts for none."""
    times = []
    for _ in range(rounds):
        row = []
        for function in functions:
            started = time.process_time()
            function()
            row.append(time.process_time() - started)
        times.append(row)
    return [min(column) for column in zip(*times, strict=True)]


def measure(reader: str, root: Path, rounds: int) -> Speed:
    options = {"depths": "depths"} if reader == "realestate10k" else {}
    sequence = READERS[reader](root, **options)[0]
    indices = list(range(sequence.num_frames))
    files = opened_files(sequence, indices)
    read = partial(sequence.read, indices)
    times = fastest([read, lambda: [BARE[file.suffix](file) for file in files], partial(plain_loop, files)], rounds)
    return Speed(reader, *(len(indices) / time for time in times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("height", 360), ("width", 640), ("views", 8), ("rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--readers", nargs="+", choices=sorted(WRITERS), default=sorted(WRITERS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    scene = make_scene(size=(args.height, args.width), num_frames=args.views, num_tracks=2000)
    for reader in args.readers:
        with tempfile.TemporaryDirectory() as folder:
            WRITERS[reader](Path(folder), scene)
            speed = measure(reader, Path(folder), args.rounds)
        print(
            f"{reader}: {speed.ours:.0f} images/s; bare {speed.bare:.0f}, overhead {speed.bare / speed.ours - 1:.0%}; "
            f"loop to float32 {speed.loop:.0f}, overhead {speed.loop / speed.ours - 1:.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
