"""Train every variant of a folder of D4RT stages by itself, for equal steps, and tabulate held-out figures.

    python tools/ablate_d4rt.py [stages/d4rt_tiny_ablations] --out runs/ablations

Runs that are there already are taken as they are, so a table costs nothing twice. All are asked the same questions.
"""

import argparse
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from movies.clip import Batch
from movies.d4rt.network import D4RT
from movies.d4rt.objective import Asked, aspects, measures
from movies.d4rt.readouts import Reader, read_depth
from movies.d4rt.sampling import SamplerConfig, sample
from movies.metrics import boundary_error
from movies.train.checkpoint import Progress
from movies.train.stage import StageFile
from movies.train.start import FINAL
from movies.train.trainer import stage_batches, train

NUM_QUERIES = 2048
SHOWN = ("absrel", "point_error", "position_error", "motion_error", "visible_right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", type=Path, nargs="?", default=Path("stages/d4rt_tiny_ablations"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--batches", type=int, default=8, help="held-out batches that are asked about")
    given = parser.parse_args()
    files = [StageFile(path) for path in sorted(given.stages.glob("*.toml"))]
    heads = [*SHOWN, "point_error at edges", "boundary_error"]
    print(f"| variant | {' | '.join(heads)} |\n|{' --- |' * (1 + len(heads))}", flush=True)
    for file in files:
        train(file.path, given.out, resume=True, device="cpu")
        found = figures(file, given.out / file.stage.name / FINAL, given.batches)
        print(f"| {file.stage.name} | {' | '.join(f'{found[name]:.3f}' for name in heads)} |", flush=True)


@torch.no_grad()
def figures(file: StageFile, weights: Path, num_batches: int) -> dict[str, float]:
    """Medians over held-out clips; points are scaled by the ratio of mean depths. Only visibility is better higher."""
    model = D4RT.from_pretrained(weights)
    loaded = islice(stage_batches(file.stage, file.validation, Progress(), 0, 1, workers=0), num_batches)
    parts: dict[str, list[Tensor]] = {}
    for number, each in enumerate(loaded):
        for name, values in batch_figures(model, each.batch, number).items():
            parts.setdefault(name, []).append(values)
    return {name: float(torch.cat(values).nanmedian()) for name, values in parts.items()}


def batch_figures(model: D4RT, batch: Batch, seed: int) -> dict[str, Tensor]:  # [B] each
    found = measures(ask(model, batch, SamplerConfig(NUM_QUERIES), seed))
    at_edges = measures(ask(model, batch, SamplerConfig(NUM_QUERIES, edge_share=1.0), seed))
    accuracy = []
    for images, depth in zip(batch.context.images, batch.context.depth, strict=True):
        answer, _ = read_depth(Reader.of(model, images), *depth.shape[-2:])
        middle = len(depth) // 2
        accuracy.append(boundary_error(answer[middle, None].clamp(min=1e-3), depth[middle, None])[0])
    extra = {"point_error at edges": at_edges["point_error"], "boundary_error": torch.cat(accuracy)}
    return {name: found[name] for name in SHOWN} | extra


def ask(model: D4RT, batch: Batch, config: SamplerConfig, seed: int) -> Asked:
    """Queries that do not depend on the model, and its answers."""
    queries, labels = sample(batch, config, torch.Generator().manual_seed(seed))
    return Asked(queries, model(batch.context.images, aspects(batch.context), queries), labels)


if __name__ == "__main__":
    main()
