"""A miniature D4RT with random weights, and a clip for it."""

import pytest
import torch

from movies.d4rt.config import D4RTConfig
from movies.d4rt.network import D4RT
from movies.d4rt.queries import Queries

CONFIG = D4RTConfig(
    image_size=16,
    patch_size=8,
    num_frames=6,
    embed_dim=24,
    depth=2,
    num_heads=2,
    mlp_ratio=2.0,
    decoder_dim=16,
    decoder_depth=2,
    decoder_heads=2,
)


@pytest.fixture
def model() -> D4RT:
    torch.manual_seed(0)
    model = D4RT(CONFIG).eval()
    with torch.no_grad():  # as after training: a normal of nearly no length would magnify rounding
        model.decoder.head.weight.mul_(10)
    return model


@pytest.fixture
def video() -> torch.Tensor:  # [1, 5, 3, 20, 28]
    return torch.rand(1, 5, 3, 20, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def queries() -> Queries:
    """40 queries anywhere, at any times."""
    random = torch.Generator().manual_seed(2)
    times = torch.randint(5, (3, 1, 40), generator=random)
    return Queries(torch.rand(1, 40, 2, generator=random), *times)
