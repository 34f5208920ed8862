"""LPIPS: how far two images look apart, in the features of a VGG16 (Zhang et al. 2018, version 0.1)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from movies.errors import InputError
from movies.shapes import check_shape

# Convolutions by their place in torchvision's `vgg16().features`; the pictures are halved between the blocks.
BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
CHANNELS = (64, 128, 256, 512, 512)
SMALLEST = 16  # pixels: halved four times, one is left
# Images in [-1, 1] are brought to what the VGG16 was trained on.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Frozen. Parameters are named as in torchvision's vgg16 and in LPIPS' own file of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict()
        before = 3
        for k, (block, channels) in enumerate(zip(BLOCKS, CHANNELS, strict=True)):
            for place in block:
                self.features[str(place)] = nn.Conv2d(before, channels, 3, padding=1)
                before = channels
            linear = nn.Conv2d(channels, 1, 1, bias=False)
            self.add_module(f"lin{k}", nn.ModuleDict({"model": nn.ModuleDict({"1": linear})}))
        self.requires_grad_(False)

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> "LPIPS":
        """LPIPS with the weights in `state`. Raises InputError naming those that are not there or of another shape."""
        with torch.device("meta"):
            network = LPIPS()
        wanted = network.state_dict()
        missing = [name for name in wanted if name not in state]
        if missing:
            more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
            raise InputError(
                f"LPIPS needs {', '.join(missing[:4])}{more}: give torchvision's vgg16 and the linear layers of LPIPS "
                "for vgg (lin0.model.1.weight ...), in one file or two"
            )
        wrong = next((name for name in wanted if state[name].shape != wanted[name].shape), "")
        if wrong:
            shapes = f"{list(state[wrong].shape)} where {list(wanted[wrong].shape)} is needed"
            raise InputError(f"LPIPS: {wrong} is {shapes}; are these weights of a vgg16?")
        network.load_state_dict({name: state[name].float() for name in wanted}, assign=True)
        return network.requires_grad_(False)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:  # [..., 3, H, W] each, in [0, 1] -> [...]
        """0 for equal images; differentiable in `images` only. Raises InputError for images under 16 pixels."""
        check_shape("images", images, (..., 3, None, None))
        check_shape("target", target, tuple(images.shape))
        if min(images.shape[-2:]) < SMALLEST:
            raise InputError(f"LPIPS needs images of at least {SMALLEST} pixels, got {list(images.shape[-2:])}")
        with torch.no_grad():
            wanted = self._features(target.reshape(-1, *target.shape[-3:]))
        found, distance = self._features(images.reshape(-1, *images.shape[-3:])), images.new_zeros(())
        for k, (a, b) in enumerate(zip(found, wanted, strict=True)):
            weigh = self.get_submodule(f"lin{k}.model.1")
            distance = distance + weigh((_unit(a) - _unit(b)).square()).mean(dim=(1, 2, 3))
        return distance.reshape(images.shape[:-3])

    def _features(self, images: Tensor) -> list[Tensor]:  # [L, 3, H, W] -> [L, C, h, w] of every block
        shift, scale = (images.new_tensor(numbers)[:, None, None] for numbers in (SHIFT, SCALE))
        x, found = (2 * images - 1 - shift) / scale, []
        for block in BLOCKS:
            if found:
                x = F.max_pool2d(x, 2)
            for place in block:
                x = self.features[str(place)](x).relu()
            found.append(x)
        return found


def _unit(features: Tensor) -> Tensor:  # [L, C, h, w]
    """Feature vectors of length 1; zero where there is nothing."""
    # The small number is inside the root: at zero the norm itself has no gradient.
    return features / ((features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10)
