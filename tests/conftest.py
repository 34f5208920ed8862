"""Warnings are errors in our tests: a warning is a defect nobody has looked at yet."""

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")
    # raised inside third parties, not ours to mend
    config.addinivalue_line("filterwarnings", "ignore:.*:DeprecationWarning:(imageio|tyro|numba|gsplat|torch).*")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, none here")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def generator() -> torch.Generator:
    """Seeded randomness for a test."""
    return torch.Generator().manual_seed(0)
