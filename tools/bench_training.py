"""Speed and memory of every tiny stage, and whether its loader keeps up; days on many GPUs from the speed of one.

python tools/bench_training.py [--steps 10] [--stages stages/tiny]     each stage in a process of its own
python tools/bench_training.py --project 20000 [--gpus 32]             tokens a second of one GPU to days, stages/movies
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch

from movies.train.stage import Stage, StageFile, load_stages
from movies.train.trainer import train

ROOT = Path(__file__).parents[1]


def tokens_per_frame(stage: Stage) -> int:
    """Patches at the stage's largest size, with the tokens before them."""
    config = stage.model_config_()
    special = 1 + config.num_register_tokens + (2 - config.static if stage.network == "movies" else 0)
    return (stage.data.image_size // config.patch_size) ** 2 + special


def project(folder: str, speed: float, gpus: int) -> None:
    print("| stage | tokens a step | steps | days |\n| --- | --- | --- | --- |")
    for file in load_stages(folder):
        stage = file.for_processes(file.stage.engine.processes).stage
        clips = stage.optim.batch_size * stage.optim.accumulation * file.stage.engine.processes
        tokens = clips * sum(stage.data.views) / 2 * tokens_per_frame(stage)
        days = stage.optim.steps * tokens / (gpus * speed) / 86400
        print(f"| {stage.name} | {tokens:,.0f} | {stage.optim.steps:,} | {days:.2f} |")


def measure(path: str, steps: int) -> dict[str, float]:
    """Train from random weights for `steps` steps; the loader alone, in this process, for as many batches."""
    text = Path(path).read_text()
    file = StageFile(path)
    with tempfile.TemporaryDirectory() as folder:
        start = text.replace(f'init = "{file.stage.init}"', 'init = "random"').replace("../../", f"{ROOT}/")
        copy = Path(folder) / Path(path).name
        copy.write_text(start.replace("[schedule]", "[schedule]\nlog_every = 1"))
        train(copy, Path(folder) / "out", max_steps=steps)
        log = (Path(folder) / "out" / file.stage.name / "log.jsonl").read_text().splitlines()
    trained = [event for event in map(json.loads, log) if event["event"] == "train"][2:]  # the first ones compile
    images = sum(event["images_per_second"] for event in trained) / len(trained)
    clips = sum(event["samples_per_second"] for event in trained) / len(trained)
    context = images - clips * file.stage.data.targets
    return {
        "clips": clips,
        "images": images,
        "tokens": context * tokens_per_frame(file.stage),
        "memory": trained[-1]["memory_gb"],
        "loader": loader_speed(file, steps),
    }


def loader_speed(file: StageFile, batches: int) -> float:
    """Images a second of one worker, made in this process."""
    from movies.train.checkpoint import Progress
    from movies.train.trainer import stage_batches

    loader = stage_batches(file.stage, file.train, Progress(), 0, 1, workers=0)
    next(loader)
    started = time.monotonic()
    made = sum(loaded.batch.views.times.numel() for loaded in islice(loader, batches))
    return made / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--stages", default="", help="a stage file or a folder of them (default: stages/tiny)")
    parser.add_argument("--project", type=float, default=0.0, metavar="TOKENS_PER_SECOND")
    parser.add_argument("--gpus", type=int, default=32)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.project:
        return project(given.stages or str(ROOT / "stages" / "movies"), given.project, given.gpus)
    if given.one:
        return print(json.dumps(measure(given.one, given.steps)))
    print(f"{torch.get_num_threads()} threads, {given.steps} steps each")
    print("| stage | clips/s | images/s | tokens/s | peak GB | loader alone, images/s a worker |")
    print("| --- | --- | --- | --- | --- | --- |")
    stages = Path(given.stages or ROOT / "stages" / "tiny")
    for path in [stages] if stages.is_file() else sorted(stages.glob("*.toml")):
        command = [sys.executable, __file__, "--one", str(path), "--steps", str(max(given.steps, 4))]
        told = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1]
        row = json.loads(told)
        cells = f"{row['clips']:.2f} | {row['images']:.1f} | {row['tokens']:,.0f} | {row['memory']:.2f}"
        print(f"| {path.stem} | {cells} | {row['loader']:.0f} |", flush=True)
    return None


if __name__ == "__main__":
    main()
