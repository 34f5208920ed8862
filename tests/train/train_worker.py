"""Run by the tests of several processes: trains the jobs it is given as JSON, with the networks of a test's size.

A job is the arguments of `train`; `poison` names a step at which rank 1 makes a NaN of its gradients, `kills` seeds
three SIGKILLs at random moments, each followed by a resumption.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from movies.model.config import PRESETS, ModelConfig
from movies.train import trainer

# A hundredth of "tiny", so that a step takes milliseconds.
SMALL = ModelConfig(
    image_size=56, patch_size=14, embed_dim=48, num_heads=4, vit_depth=1, vit_num_heads=4, aa_depth=4, dpt_features=16,
    dpt_out_channels=(8, 8, 16, 16), dpt_layer_idx=(0, 1, 2, 3), camera_trunk_depth=1, camera_num_heads=4,
)  # fmt: skip


class Poison(torch.autograd.Function):
    """The identity, with a gradient that is not a number."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return torch.full_like(gradient, float("nan"))


def poisoned(predict, steps):
    """A StageRun.predict whose depth has a finite value and a NaN gradient at these steps."""

    def prediction_of(run, batch, model):
        prediction = predict(run, batch, model)
        if run.progress.step in steps and torch.is_grad_enabled():
            return replace(prediction, depth=Poison.apply(prediction.depth))
        return prediction

    return prediction_of


def run(job: dict) -> None:
    poison, kills = job.pop("poison", None), job.pop("kills", None)
    if kills is not None:
        random.seed(kills)
        for _ in range(3):
            kill_while_training(job)
            job["resume"] = True
    predict = trainer.StageRun.predict
    if poison is not None and os.environ["RANK"] == "1":
        trainer.StageRun.predict = poisoned(predict, (poison,))
    trainer.train(**job, device="cpu")
    trainer.StageRun.predict = predict


def kill_while_training(job: dict) -> None:
    """Train in a child, and kill it some steps and some part of a step later. Nothing was computed here before."""
    log = Path(job["out"]) / "b" / "log.jsonl"
    before = num_steps(log)
    child = os.fork()
    if child == 0:
        trainer.train(**job, device="cpu")
        os._exit(0)
    wanted = before + random.randint(1, 4)
    while num_steps(log) < wanted:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it was to be killed while it trained"


def num_steps(log: Path) -> int:
    return log.read_text().count('"event": "train"') if log.exists() else 0


if __name__ == "__main__":
    PRESETS["tiny"] = SMALL
    torch.set_num_threads(1)
    for each in json.loads(sys.argv[1]):
        run(each)
