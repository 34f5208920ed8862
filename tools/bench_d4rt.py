"""Time of a query and peak memory against the number of queries, of a D4RT with random weights.

`python tools/bench_d4rt.py [--preset tiny] [--budget 33554432]`
"""

import argparse
import resource
import time

import torch

from movies.d4rt.config import D4RTConfig
from movies.d4rt.network import D4RT
from movies.d4rt.queries import Queries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--budget", type=int, default=1 << 25, help="bytes a chunk of queries may take")
    parser.add_argument("--queries", type=int, nargs="+", default=[1000, 4000, 16000, 64000])
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = D4RT(D4RTConfig.preset(args.preset)).eval()
    config = model.config
    video = torch.rand(1, config.num_frames, 3, config.image_size, config.image_size)
    with torch.inference_mode():
        started = time.process_time()
        tokens = model.encode(video)
        print(f"encode {config.num_frames} frames: {1e3 * (time.process_time() - started):.0f} ms of CPU")
        print(f"{model.chunk_size(1, args.budget)} queries a chunk")
        model.query(tokens, Queries.of(torch.rand(100, 2), 0, 0, 0))
        for count in args.queries:
            queries = Queries.of(torch.rand(count, 2), *torch.randint(config.num_frames, (3, count)))
            started = time.process_time()
            model.query(tokens, queries, args.budget)
            each = 1e6 * (time.process_time() - started) / count
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{count} queries: {each:.0f} us of CPU each, peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
