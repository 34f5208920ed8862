"""Several processes: every engine computes the same, kills lose nothing, one process's NaN stops all of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from movies.train.trainer import train

WORKER = Path(__file__).with_name("train_worker.py")


def start(jobs: list[dict], processes: int = 1) -> list[subprocess.Popen]:
    """As a launcher would, without its own start-up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[2])}
    return [
        subprocess.Popen(
            [sys.executable, WORKER, json.dumps(jobs)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def finish(workers: list[subprocess.Popen]) -> None:
    """Wait for all; where one fails the others are ended, as a launcher would."""
    try:
        for worker in workers:
            told = worker.communicate(timeout=1500)[1]
            assert worker.returncode == 0, told[-3000:]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def events(out: Path, kind: str) -> list[dict]:
    lines = (out / "b" / "log.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def losses(out: Path, name: str = "loss") -> torch.Tensor:
    return torch.tensor([event[name] for event in events(out, "train")])


@pytest.fixture
def stage(stages):
    """Writes stage b for an engine, with batches of one clip and `accumulation` of them on each process."""

    def write(strategy: str, accumulation: int, steps: int, optim: str = "") -> str:
        # A rate that does not change, so that a shorter run is the beginning of a longer one.
        optim = f"accumulation = {accumulation}\nfinal_lr = 1.0\n{optim}"
        run = stages(names=("b",), steps=steps, views=2, optim=optim)
        text = (run / "b.toml").read_text().replace("batch_size = 2", "batch_size = 1")
        # At five times this rate rounding alone grows to 1e-3 of the loss in 20 steps: equal up to the sixth, then not.
        text = text.replace("lr = 5e-4", "lr = 1e-4")
        path = run.parent / f"{strategy}{accumulation}" / "b.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'name = "b"\n{text}[engine]\nstrategy = "{strategy}"\n')
        return str(path)

    return write


def assert_close(own: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(own, theirs, rtol=0, atol=tolerance)


def test_every_engine_computes_the_same_and_forgets_nothing(stage, tmp_path):
    pytest.importorskip("deepspeed")
    pytest.importorskip("accelerate")
    short = {"ddp": 12, "zero1": 10, "zero2": 10, "zero3": 10}
    jobs = [{"path": stage("ddp", 2, 20), "out": str(tmp_path / "two")}]
    jobs += [{"path": stage(name, 1, count), "out": str(tmp_path / name)} for name, count in short.items()]
    jobs.append(jobs[-1] | {"out": str(tmp_path / "poisoned"), "max_steps": 4, "poison": 2})
    workers = start(jobs, processes=2)
    train(stage("single", 4, 20), tmp_path / "one", device="cpu")
    finish(workers)

    one = losses(tmp_path / "one")
    assert len(one) == 20
    assert_close(losses(tmp_path / "two"), one, 1e-4)
    norms = losses(tmp_path / "one", "gradient_norm")  # AdamW hides a wrong scale of the gradients, their norm does not
    torch.testing.assert_close(losses(tmp_path / "two", "gradient_norm"), norms, rtol=1e-2, atol=0)
    whole = losses(tmp_path / "ddp")
    for name, count in short.items():
        assert len(losses(tmp_path / name)) == count
        assert_close(losses(tmp_path / name), whole[:count], 1e-4)
        norms = losses(tmp_path / "ddp", "gradient_norm")[:count]
        torch.testing.assert_close(losses(tmp_path / name, "gradient_norm"), norms, rtol=1e-2, atol=0)

    (skipped,) = events(tmp_path / "poisoned", "skipped")  # what rank 1 saw, written by rank 0
    assert (skipped["step"], skipped["rank"]) == (2, 1) and skipped["where"] and len(skipped["samples"]) == 1
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "poisoned/b/model.safetensors").values())
    assert_close(losses(tmp_path / "poisoned")[:3], whole[:3], 1e-4)

    job = {"path": jobs[3]["path"], "out": str(tmp_path / "killed")}
    kill_at_step(start([job], processes=2), tmp_path / "killed", 5)
    finish(start([job | {"resume": True}], processes=2))
    assert events(tmp_path / "killed", "start")[1]["step"] in (4, 6)
    theirs, own = (load_file(tmp_path / name / "b" / "model.safetensors") for name in ("zero2", "killed"))
    for name in theirs:
        assert_close(own[name], theirs[name], 1e-6)

    # The same checkpoints everywhere: what two processes with ZeRO began, one without goes on with.
    (tmp_path / "zero2" / "b" / "model.safetensors").unlink()
    train(stage("single", 2, 12), tmp_path / "zero2", resume=True, device="cpu")
    assert_close(losses(tmp_path / "zero2"), whole, 1e-4)


def kill_at_step(workers: list[subprocess.Popen], out: Path, step: int) -> None:
    """SIGKILL for all of them once that many steps are in the log."""
    deadline = time.monotonic() + 600
    while not (out / "b" / "log.jsonl").exists() or len(events(out, "train")) < step:
        assert time.monotonic() < deadline and all(worker.poll() is None for worker in workers)
        time.sleep(0.01)
    for worker in workers:
        worker.kill()
    assert [worker.wait() for worker in workers] == [-signal.SIGKILL] * len(workers)
    for worker in workers:
        worker.stderr.close()


def test_kills_at_random_moments_change_nothing(stage, tmp_path):
    path = stage("single", 1, 14, optim="ema = 0.9")
    # Both as processes of their own: another number of threads would round sums differently.
    whole = start([{"path": path, "out": str(tmp_path / "whole")}])
    finish(start([{"path": path, "out": str(tmp_path / "killed"), "kills": 1}]) + whole)
    starts = [event["step"] for event in events(tmp_path / "killed", "start")]
    assert len(starts) == 4 and starts == sorted(starts)
    files = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.safetensors"))
    assert len(files) == 7  # the final weights, and weights, average and moments of the last two checkpoints
    for file in files:
        theirs, own = (load_file(tmp_path / name / file) for name in ("whole", "killed"))
        assert own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in theirs), file
