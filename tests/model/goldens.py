"""Recorded runs of the reference networks with random weights, float32 in eval mode: inputs, activations, outputs.

Two of the four live in tests/data: `vggt_b` and `movies_b` (two clips a batch, uneven levels, two of three sizes off
the stored position grid). `vggt_a` and `movies_a` are read where the environment's MOVIES_GOLDENS names their folder.
The stored files are safetensors whose bytes were sorted by their place in the four-byte word, then xz.
"""

import json
import lzma
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from movies.model.config import ModelConfig

DATA = Path(__file__).parents[1] / "data"
# The reference itself is within 4e-6 of a float64 run; 2e-5 leaves room for other orders of summation.
TOLERANCE = 2e-5


def read_bytes(name: str) -> bytes:
    packed = DATA / f"golden_{name}.safetensors.xz"
    if packed.exists():
        planes = np.frombuffer(lzma.decompress(packed.read_bytes()), dtype=np.uint8)
        return planes.reshape(4, -1).T.tobytes()
    folder = os.environ.get("MOVIES_GOLDENS")
    if not folder:
        pytest.skip(f"golden_{name} is not stored here; set MOVIES_GOLDENS to the folder that has it")
    return (Path(folder) / f"golden_{name}.safetensors").read_bytes()


class Golden:
    """One recorded run; remembers which of its tensors a test has compared."""

    def __init__(self, name: str) -> None:
        content = read_bytes(f"{name}.io")
        self.tensors = load(content)
        self.weights = load(read_bytes(f"{name}.weights"))
        size = int.from_bytes(content[:8], "little")
        values = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["config"])
        values["image_size"] = values["img_size"]
        self.config = ModelConfig(**{f.name: values[f.name] for f in fields(ModelConfig) if f.name in values})
        self.unchecked = {key for key in self.tensors if not key.startswith("in/")}

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def check(self, key: str, value: Tensor, tolerance: float = TOLERANCE) -> None:
        """Largest difference against the largest magnitude of the recorded tensor; shapes and integers exactly."""
        self.unchecked.discard(key)
        wanted = self.tensors[key]
        assert value.shape == wanted.shape, key
        if not wanted.is_floating_point():
            assert torch.equal(value.to(wanted.dtype), wanted), key
            return
        error = (value - wanted).abs().max() / wanted.abs().max()
        assert error <= tolerance, f"{key}: {error:.1e}"
