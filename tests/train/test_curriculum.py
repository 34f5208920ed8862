"""Every stage of the miniature curriculum learns, and one clip can be learned by heart."""

import json
import re
from pathlib import Path

import pytest

from movies.train.trainer import train

ROOT = Path(__file__).parents[2]
WORLD = (
    (r"num_sequences = \d+", "num_sequences = 1"),
    (r"num_frames = \d+", "num_frames = 6"),
    (r"num_tracks = \d+", "num_tracks = 128"),
    (r"image_size = .*", "image_size = [56, 56]"),
)
STAGE = (
    (r'init = ".*"', 'init = "random"'),
    (r"(?s)train = \[(\s*{[^}]*}).*?\]\n", r"train = [\1]\n"),
    (r"validation = .*\n", ""),
    (r"views = .*", "views = [5, 5]"),
    (r"gap = .*", "gap = [1, 1]"),
    (r"jitter = .*", "workers = 0"),
    (r"clips_per_sequence = \d", "clips_per_sequence = 1"),
    (r"batch_size = \d", "batch_size = 1"),
    (r"warmup = \d+", "warmup = 2"),
    (r"\[schedule\]", "[schedule]\nlog_every = 1"),
)


def changed(text: str, changes: tuple) -> str:
    for pattern, new in changes:
        text = re.sub(pattern, new, text)
    return text


def test_every_tiny_stage_takes_twenty_steps_and_the_loss_falls(tmp_path):
    """With its own losses and rates, but a small network from random weights and five small views of one world."""
    for folder in ("stages/tiny", "data_manifests"):
        (tmp_path / folder).mkdir(parents=True)
    for path in (ROOT / "data_manifests").glob("synthetic*.toml"):
        (tmp_path / "data_manifests" / path.name).write_text(changed(path.read_text(), WORLD))
    stages = sorted((ROOT / "stages" / "tiny").glob("*.toml"))
    for path in stages:
        text = changed(path.read_text(), STAGE)
        side = 28 if "patch_size = 7" in text else 56
        sizes = (
            (r"image_size = \d+", f"image_size = {side}"),
            (r"render_size = .*", f"render_size = [{side}, {side}]"),
        )
        (tmp_path / "stages" / "tiny" / path.name).write_text(changed(text, sizes))
    train(tmp_path / "stages" / "tiny", tmp_path / "out", max_steps=20, device="cpu")
    for path in stages:
        log = (tmp_path / "out" / path.stem / "log.jsonl").read_text().splitlines()
        losses = [event["loss"] for event in map(json.loads, log) if event["event"] == "train"]
        assert len(losses) == 20 and sum(losses[-5:]) < sum(losses[:5]), (path.stem, losses)


@pytest.mark.slow
def test_one_clip_is_learned_to_thirty_decibels(stages, tmp_path):
    loss = 'depth_kind = "log"\nmotion_kind = "squared"\nmotion = 1.0\nmse = 20.0\nlpips = 0.0'
    optim = "warmup = 20\nfinal_lr = 0.05\n"
    folder = stages(number=1, frames=3, views=2, steps=300, names=("b",), loss=loss, optim=optim)
    path = folder / "b.toml"
    text = path.read_text().replace("lr = 5e-4", "lr = 2e-3").replace("checkpoint_every = 2", "checkpoint_every = 500")
    path.write_text(text.replace("batch_size = 2", "batch_size = 1"))
    train(folder, tmp_path / "out", device="cpu")
    events = map(json.loads, (tmp_path / "out" / "b" / "log.jsonl").read_text().splitlines())
    psnr = [event["psnr"] for event in events if event["event"] == "train"]
    assert sum(psnr[-20:]) / 20 > 30
