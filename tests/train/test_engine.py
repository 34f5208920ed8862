"""Which engine is chosen, what is said where its packages are missing, and the launch files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from movies.errors import InputError
from movies.train.engine import chosen_strategy, make_engine

ROOT = Path(__file__).parents[2]
LAUNCH = sorted((ROOT / "tools" / "launch").glob("*.yaml"))


def test_auto_follows_the_launcher(monkeypatch):
    assert chosen_strategy("auto") == "single" and chosen_strategy("zero3") == "zero3"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert chosen_strategy("auto") == "ddp"
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert chosen_strategy("auto") == "zero2"
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    assert chosen_strategy("auto") == "zero3"
    with pytest.raises(InputError, match=r"'single' uses one process, 2 were started; choose ddp or zero2"):
        make_engine("single", torch.device("cpu"))


@pytest.mark.parametrize(("strategy", "package"), [("ddp", "accelerate"), ("zero2", "deepspeed")])
def test_missing_packages_are_told(monkeypatch, strategy, package):
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the marks of DeepSpeed stay in here
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"'{strategy}' needs {package}: run `pip install movies\[train\]`"):
        make_engine(strategy, torch.device("cpu"))


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.stem)
def test_launch_files_are_read_by_accelerate(path):
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    processes = {"cpu_two": 2, "one_gpu": 1, "one_node": 8, "several_nodes": 32}[path.stem]
    assert (config.num_processes, config.use_cpu, config.mixed_precision) == (processes, False, "no")
    assert config.deepspeed_config.get("zero_stage", 2) == 2
    assert f"--config_file tools/launch/{path.name}" in path.read_text()


def test_two_processes_train_a_tiny_stage_under_accelerate_launch(tmp_path):
    pytest.importorskip("deepspeed")
    pytest.importorskip("accelerate")
    text = (ROOT / "stages" / "tiny" / "00_geometry.toml").read_text().replace("../../", f"{ROOT}/")
    for old, new in (("batch_size = 8", "batch_size = 2"), ("jitter = 0.15", "workers = 0"), ("[2, 5]", "[2, 2]")):
        assert old in text
        text = text.replace(old, new)
    stage = tmp_path / "00_geometry.toml"
    stage.write_text("".join(line for line in text.splitlines(True) if not line.startswith("validation =")))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", ROOT / "tools/launch/cpu_two.yaml"]
    command += ["-m", "movies", "train", stage, "--out", tmp_path / "out", "--max-steps", "2"]
    cpu = {"DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=os.environ | cpu, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count(f"trained 00_geometry into {tmp_path / 'out'}") == 1  # one process speaks
    log = (tmp_path / "out" / "00_geometry" / "log.jsonl").read_text()
    assert '"engine": "ZeRO"' in log and '"processes": 2' in log and '"event": "finished"' in log
