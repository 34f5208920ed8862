"""Two small stages in a folder: a VGGT of random weights, and a MoVieS from it, on worlds of 28x28 pixels."""

import pytest
from train_worker import SMALL

from movies.model.config import PRESETS

MANIFEST = """
name = "worlds"
reader = "synthetic"
[options]
num_sequences = {number}
first_seed = 5
image_size = [28, 28]
num_frames = {frames}
num_tracks = 64
"""
STAGE = """
network = "{network}"
init = "{init}"
seed = 3
[model]
preset = "tiny"
patch_size = 7
[data]
train = [{{ manifest = "worlds.toml" }}]
validation = [{{ manifest = "worlds.toml" }}]
image_size = 28
views = [2, {views}]
targets = 1
gap = [1, 1]
workers = 0
[optim]
steps = {steps}
batch_size = 2
lr = 5e-4
precision = "fp32"
{optim}
[loss]
{loss}
[schedule]
validate_every = 100
validation_batches = 1
checkpoint_every = 2
log_every = 1
"""
MOVIES_LOSS = 'depth_kind = "log"\nmotion_kind = "squared"\nmotion = 1.0\nssim = 0.1\nrender_size = [28, 28]'


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The "tiny" preset, smaller still, and no launcher."""
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    for name in ("WORLD_SIZE", "RANK", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(name, raising=False)
    return SMALL


@pytest.fixture
def stages(tmp_path):
    """Writes the stages; every value of the templates can be replaced. Returns their folder."""

    def write(number=4, frames=6, views=3, steps=4, optim="", loss=MOVIES_LOSS, names=("a", "b"), extra=""):
        folder = tmp_path / "stages"
        folder.mkdir(exist_ok=True)
        (folder / "worlds.toml").write_text(MANIFEST.format(number=number, frames=frames))
        (tmp_path / "stages" / "run").mkdir(exist_ok=True)
        options = {"views": views, "steps": steps, "optim": optim}
        for name in names:
            network = "vggt" if name == "a" else "movies"
            init = "a" if name == "b" and "a" in names else "random"
            text = STAGE.format(network=network, init=init, loss="" if name == "a" else loss, **options)
            (folder / "run" / f"{name}.toml").write_text(text.replace('"worlds.toml"', '"../worlds.toml"') + extra)
        return folder / "run"

    return write
