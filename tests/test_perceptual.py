"""LPIPS against a slow formulation of its own, and its weights as users have them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from movies.errors import InputError
from movies.objective import MoviesObjective, MoviesObjectiveConfig, load_lpips
from movies.perceptual import LPIPS

# torchvision's vgg16().features up to relu5_3: a convolution's channels (each followed by a ReLU), or a pooling.
VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)
TAPPED = (3, 8, 15, 22, 29)  # places of relu1_2, relu2_2, relu3_3, relu4_3, relu5_3


@pytest.fixture(scope="module")
def weights():
    """Random weights under the names of the real files, the classifier's included."""
    generator = torch.Generator().manual_seed(0)
    state, place, before = {"classifier.0.weight": torch.zeros(2, 2)}, 0, 3
    for channels in VGG16:
        if channels != "pool":
            size = (2 / (9 * before)) ** 0.5
            state[f"features.{place}.weight"] = size * torch.randn(channels, before, 3, 3, generator=generator)
            state[f"features.{place}.bias"] = 0.1 * torch.randn(channels, generator=generator)
            before = channels
        place += 1 if channels == "pool" else 2
    for k, channels in enumerate((64, 128, 256, 512, 512)):
        state[f"lin{k}.model.1.weight"] = torch.rand(1, channels, 1, 1, generator=generator)
    return state


def slow(state, image, target):  # [3, H, W] each
    """Layer by layer at torchvision's places; positions one by one in numpy."""
    taps = []
    for picture in (image, target):
        shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        x = ((picture * 2 - 1 - shift) / torch.tensor([0.458, 0.448, 0.450])[:, None, None])[None].double()
        found, place = [], 0
        for channels in VGG16:
            if channels == "pool":
                x, place = F.max_pool2d(x, 2, 2), place + 1
                continue
            kernel, bias = (state[f"features.{place}.{part}"].double() for part in ("weight", "bias"))
            x, place = F.conv2d(x, kernel, bias, padding=1).clamp(min=0), place + 2
            if place - 1 in TAPPED:
                found.append(x[0].numpy())
        taps.append(found)
    total = 0.0
    for k, (a, b) in enumerate(zip(*taps, strict=True)):
        weight = state[f"lin{k}.model.1.weight"].flatten().double().numpy()
        positions = list(np.ndindex(a.shape[1:]))
        for i, j in positions:
            u, v = (f[:, i, j] / max(np.linalg.norm(f[:, i, j]), 1e-10) for f in (a, b))
            total += float((weight * (u - v) ** 2).sum()) / len(positions)
    return total


def test_equals_a_slow_formulation_and_is_zero_for_equal_images(weights, generator):
    images, target = torch.rand(2, 1, 2, 3, 24, 33, generator=generator)
    network = LPIPS.from_state(weights)
    got = network(images, target)
    expected = [slow(weights, images[0, i], target[0, i]) for i in range(2)]
    # float32 against float64 through 13 convolutions
    torch.testing.assert_close(got, torch.tensor([expected]), rtol=1e-4, atol=1e-5)
    assert min(expected) > 0.01 and torch.equal(network(images, images), torch.zeros(1, 2))
    assert network(images[0, 0], target[0, 0]).shape == ()


def test_the_gradient_reaches_the_image_and_nothing_else(weights, generator):
    image, target = torch.rand(2, 3, 16, 16, generator=generator)
    image.requires_grad_(True)
    network = LPIPS.from_state(weights)
    network(image, target).backward()
    assert image.grad.isfinite().all() and (image.grad != 0).any(dim=0).all()
    assert all(not p.requires_grad for p in network.parameters())
    stepped = image.detach() - 1e-2 * image.grad / image.grad.norm()
    assert network(stepped, target) < network(image.detach(), target)


def test_weights_come_from_one_file_or_two(weights, tmp_path):
    features = {name: w for name, w in weights.items() if not name.startswith("lin")}
    linear = {name: w.half() for name, w in weights.items() if name.startswith("lin")}
    torch.save(features, tmp_path / "vgg16.pth")
    save_file(linear, tmp_path / "lpips.safetensors")
    network = load_lpips((str(tmp_path / "vgg16.pth"), str(tmp_path / "lpips.safetensors")))
    state = network.state_dict()
    assert torch.equal(state["features.28.bias"], weights["features.28.bias"])
    assert torch.equal(state["lin4.model.1.weight"], linear["lin4.model.1.weight"].float())


def test_weights_that_are_not_there_or_wrong_are_named(weights, tmp_path):
    features = {name: w for name, w in weights.items() if not name.startswith("lin")}
    save_file(features, tmp_path / "vgg16.safetensors")
    message = r"vgg16.safetensors: LPIPS needs lin0.model.1.weight, .* and 1 more: give torchvision's vgg16"
    with pytest.raises(InputError, match=message):
        MoviesObjective(MoviesObjectiveConfig(lpips_weights=(str(tmp_path / "vgg16.safetensors"),)))
    with pytest.raises(InputError, match=r"nowhere.pth: no such weights file"):
        load_lpips(("nowhere.pth",))
    wrong = weights | {"lin1.model.1.weight": torch.zeros(1, 192, 1, 1)}
    with pytest.raises(InputError, match=r"lin1.model.1.weight is \[1, 192, 1, 1\] where \[1, 128, 1, 1\] is needed"):
        LPIPS.from_state(wrong)


def test_images_too_small_to_halve_four_times_are_refused(weights):
    with pytest.raises(InputError, match=r"at least 16 pixels, got \[16, 15\]"):
        LPIPS.from_state(weights)(torch.rand(3, 16, 15), torch.rand(3, 16, 15))
