"""Time to read synthetic clips on one thread, by the clock and of the core alone.

`python tools/bench_synthetic.py [--scenes 24] [--device cpu]`
"""

import argparse
import time

import torch

from movies.data.synthetic import read_sequences, synthetic_sequences


def seconds_per_scene(
    size: int, views: int, scenes: int, batch: int, difficulty: str, device: str
) -> tuple[float, float]:
    """(wall, CPU) mean over `scenes`, drawing the worlds included, after a warm-up read."""
    sequences = synthetic_sequences(num_sequences=scenes + batch, image_size=(size, size), difficulty=difficulty)
    frames = [round(i * (sequences[0].num_frames - 1) / (views - 1)) for i in range(views)]
    read_sequences(sequences[:batch], [frames] * batch, device)
    started, cpu_started = time.perf_counter(), time.process_time()
    for first in range(batch, scenes + batch, batch):
        read = read_sequences(sequences[first : first + batch], [frames] * batch, device)
    float(read[0].images.sum())  # waits for a GPU
    return (time.perf_counter() - started) / scenes, (time.process_time() - cpu_started) / scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--sizes", type=int, nargs="+", default=[56, 112])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for difficulty in ("easy", "wide"):
        for size in args.sizes:
            for batch in args.batch:
                wall, cpu = seconds_per_scene(size, args.views, args.scenes, batch, difficulty, args.device)
                what = f"{difficulty} {args.views} views {size}x{size} batch {batch}"
                print(f"{what}: {1e3 * wall:.1f} ms a scene, {1e3 * cpu:.1f} ms of CPU")


if __name__ == "__main__":
    main()
