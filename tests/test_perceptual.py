"""LPIPS against a slow formulation of its own, and its weights as users have them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from movies.errors import InputError
from movies.objective import MoviesObjective, MoviesObjectiveConfig, load_lpips
from movies.perceptual import LPIPS

# torchvision's `features`: a convolution's channels, kernel, stride and padding (a ReLU follows each), or the window
# of a pooling; and the places of the ReLUs that LPIPS looks at.
VGG16 = [(c, 3, 1, 1) if c else 2 for c in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)]
ALEXNET = [(64, 11, 4, 2), 3, (192, 5, 1, 2), 3, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)]
NETWORKS = {"vgg": (VGG16, (3, 8, 15, 22, 29)), "alex": (ALEXNET, (1, 4, 7, 9, 11))}


def random_weights(network: str) -> dict[str, torch.Tensor]:
    """Under the names of the real files, the classifier's included."""
    generator = torch.Generator().manual_seed(0)
    state, place, before, tapped = {"classifier.1.weight": torch.zeros(2, 2)}, 0, 3, 0
    for layer in NETWORKS[network][0]:
        if isinstance(layer, int):
            place += 1
            continue
        channels, kernel, _, _ = layer
        size = (2 / (kernel**2 * before)) ** 0.5
        state[f"features.{place}.weight"] = size * torch.randn(channels, before, kernel, kernel, generator=generator)
        state[f"features.{place}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        if place + 1 in NETWORKS[network][1]:
            state[f"lin{tapped}.model.1.weight"] = torch.rand(1, channels, 1, 1, generator=generator)
            tapped += 1
        before, place = channels, place + 2
    return state


@pytest.fixture(scope="module")
def weights():
    return random_weights("vgg")


def slow(network, state, image, target) -> list[np.ndarray]:  # [3, H, W] each -> [h, w] of every block
    """Layer by layer at torchvision's places; positions one by one in numpy."""
    taps = []
    for picture in (image, target):
        shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        x = ((picture * 2 - 1 - shift) / torch.tensor([0.458, 0.448, 0.450])[:, None, None])[None].double()
        found, place = [], 0
        for layer in NETWORKS[network][0]:
            if isinstance(layer, int):
                x, place = F.max_pool2d(x, layer, 2), place + 1
                continue
            kernel, bias = (state[f"features.{place}.{part}"].double() for part in ("weight", "bias"))
            x, place = F.conv2d(x, kernel, bias, stride=layer[2], padding=layer[3]).clamp(min=0), place + 2
            if place - 1 in NETWORKS[network][1]:
                found.append(x[0].numpy())
        taps.append(found)
    maps = []
    for k, (a, b) in enumerate(zip(*taps, strict=True)):
        weight, map_ = state[f"lin{k}.model.1.weight"].flatten().double().numpy(), np.zeros(a.shape[1:])
        for i, j in np.ndindex(map_.shape):
            u, v = (f[:, i, j] / max(np.linalg.norm(f[:, i, j]), 1e-10) for f in (a, b))
            map_[i, j] = (weight * (u - v) ** 2).sum()
        maps.append(map_)
    return maps


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Between the four nearest pixel centres, pixel by pixel; beyond the outermost as these."""
    (h, w), result = values.shape, np.zeros(size)
    for i, j in np.ndindex(size):
        y, x = np.clip((i + 0.5) * h / size[0] - 0.5, 0, h - 1), np.clip((j + 0.5) * w / size[1] - 0.5, 0, w - 1)
        i0, j0 = int(y), int(x)
        for k, m in np.ndindex(2, 2):
            part = abs(1 - k - (y - i0)) * abs(1 - m - (x - j0))
            result[i, j] += part * values[min(i0 + k, h - 1), min(j0 + m, w - 1)]
    return result


@pytest.mark.parametrize("network", list(NETWORKS))
def test_equals_a_slow_formulation_and_is_zero_for_equal_images(network, generator):
    images, target = torch.rand(2, 1, 2, 3, 31, 33, generator=generator)
    state = random_weights(network)
    lpips = LPIPS.from_state(state, network)
    layers = [slow(network, state, images[0, i], target[0, i]) for i in range(2)]
    expected = torch.tensor([[sum(layer.mean() for layer in found) for found in layers]]).float()
    # float32 against float64 through 13 convolutions
    torch.testing.assert_close(lpips(images, target), expected, rtol=1e-4, atol=1e-5)
    assert expected.min() > 0.01 and torch.equal(lpips(images, images), torch.zeros(1, 2))
    assert lpips(images[0, 0], target[0, 0]).shape == ()
    maps = np.stack([sum(enlarged(layer, (31, 33)) for layer in found) for found in layers])[None]
    torch.testing.assert_close(lpips.distance_map(images, target), torch.from_numpy(maps).float(), rtol=1e-4, atol=1e-4)


def test_the_map_is_zero_where_no_window_reaches(generator):
    """AlexNet's windows are 195 pixels wide at most: far from a change the map is 0."""
    image = torch.rand(3, 40, 300, generator=generator)
    changed = image.clone()
    changed[..., :8] = 0
    found = LPIPS.from_state(random_weights("alex"), "alex").distance_map(changed, image)
    assert (found[:, :8] > 1e-3).all() and not found[:, 250:].any()


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


def test_the_other_networks_weights_are_refused(weights):
    message = r"needs features.3.weight, .* more: give torchvision's alexnet and the linear layers of LPIPS for alex"
    with pytest.raises(InputError, match=message):
        LPIPS.from_state(weights, "alex")
    linear = {name: w for name, w in weights.items() if name.startswith("lin")}
    with pytest.raises(InputError, match=r"lin1.model.1.weight is .*; are these weights those for alexnet"):
        LPIPS.from_state(random_weights("alex") | linear, "alex")


def test_images_too_small_for_a_network_are_refused(weights):
    with pytest.raises(InputError, match=r"LPIPS of vgg needs images of at least 16 pixels, got \[16, 15\]"):
        LPIPS.from_state(weights)(torch.rand(3, 16, 15), torch.rand(3, 16, 15))
    alex = LPIPS.from_state(random_weights("alex"), "alex")
    assert alex(torch.rand(3, 31, 31), torch.rand(3, 31, 31)) > 0
    with pytest.raises(InputError, match=r"LPIPS of alex needs images of at least 31 pixels, got \[30, 31\]"):
        alex(torch.rand(3, 30, 31), torch.rand(3, 30, 31))
