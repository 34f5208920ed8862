"""Costs of D4RT: time of a query and peak memory against their number; queries that all-pixel tracking saves.

python tools/bench_d4rt.py queries [--preset tiny] [--budget 33554432]        random weights
python tools/bench_d4rt.py dense [--weights tiny] [--clips 8]                 held-out synthetic worlds
"""

import argparse
import resource
import time

import torch

from movies.d4rt.config import D4RTConfig
from movies.d4rt.dense import track_all
from movies.d4rt.network import D4RT
from movies.d4rt.queries import Queries
from movies.d4rt.readouts import Reader
from movies.data.synthetic import synthetic_sequences
from movies.evaluate.synthetic import FIRST_SEED

STRIDE = 3  # frames of a world's 24 that lie between those read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    queries = commands.add_parser("queries")
    queries.add_argument("--preset", default="tiny")
    queries.add_argument("--budget", type=int, default=1 << 25, help="bytes a chunk of queries may take")
    queries.add_argument("--counts", type=int, nargs="+", default=[1000, 4000, 16000, 64000])
    dense = commands.add_parser("dense")
    dense.add_argument("--weights", default="tiny")
    dense.add_argument("--clips", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    {"queries": bench_queries, "dense": bench_dense}[given.command](given)


@torch.inference_mode()
def bench_queries(given: argparse.Namespace) -> None:
    model = D4RT(D4RTConfig.preset(given.preset)).eval()
    config = model.config
    video = torch.rand(1, config.num_frames, 3, config.image_size, config.image_size)
    started = time.process_time()
    tokens = model.encode(video)
    print(f"encode {config.num_frames} frames: {1e3 * (time.process_time() - started):.0f} ms of CPU")
    print(f"{model.chunk_size(1, given.budget)} queries a chunk")
    model.query(tokens, Queries.of(torch.rand(100, 2), 0, 0, 0))
    for count in given.counts:
        queries = Queries.of(torch.rand(count, 2), *torch.randint(config.num_frames, (3, count)))
        started = time.process_time()
        model.query(tokens, queries, given.budget)
        each = 1e6 * (time.process_time() - started) / count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{count} queries: {each:.0f} us of CPU each, peak memory {peak:.0f} MB")


def bench_dense(given: argparse.Namespace) -> None:
    """All pixels of moving and of still worlds, as many of each."""
    model = D4RT.from_pretrained(given.weights)
    size = (model.config.image_size,) * 2
    for static in (False, True):
        asked = naive = seconds = 0
        for sequence in synthetic_sequences(
            num_sequences=given.clips, first_seed=FIRST_SEED, image_size=size, num_tracks=0, static=static
        ):
            images = sequence.read(range(0, STRIDE * model.config.num_frames, STRIDE))[0].images
            started = time.process_time()
            found = track_all(Reader.of(model, images), *size)
            asked, naive = asked + found.num_queries, naive + found.num_naive
            seconds += time.process_time() - started
        print(f"{'still' if static else 'moving'} worlds: {asked:,} queries instead of {naive:,} ", end="")
        print(f"({1 - asked / naive:.1%} saved, {naive / asked:.1f} times fewer), {seconds / given.clips:.1f} s of CPU")


if __name__ == "__main__":
    main()
