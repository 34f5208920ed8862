"""bf16 against float32 on the bundled weights' own outputs: depth and pictures stay."""

from importlib.resources import files

import pytest
import torch

from movies import MoVieS, render
from movies.data.synthetic import SyntheticSequence
from movies.metrics import psnr

BUNDLED = files("movies") / "assets" / "movies_tiny.safetensors"
pytestmark = pytest.mark.skipif(not BUNDLED.is_file(), reason="no bundled weights in this checkout")


def test_bf16_keeps_depth_and_pictures():
    views, _ = SyntheticSequence(7, (112, 112), 13).read([0, 3, 6, 9, 12])
    cameras = views.cameras.relative_to(views.cameras[:1])
    inputs = views.images[None], cameras.reshape(1, 5), views.times[None], views.times[None]
    with torch.no_grad():
        full, half = (MoVieS.from_pretrained("tiny", dtype)(*inputs) for dtype in (torch.float32, torch.bfloat16))
    error = ((half.depth - full.depth) / full.depth).abs().median()
    assert error < 0.02
    pictures = [render(s.gaussians()[0], cameras, 112, 112).images for s in (full, half)]
    assert psnr(*pictures).mean() > 40
