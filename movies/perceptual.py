"""LPIPS: how far two images look apart, in the features of a VGG16 or an AlexNet (Zhang et al. 2018, version 0.1)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from movies.errors import InputError
from movies.shapes import check_shape

# Images in [-1, 1] are brought to what the networks were trained on.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Layout:
    """A network's blocks of convolutions, each named by its place in torchvision's `features`."""

    torchvision: str
    blocks: tuple[tuple[int, ...], ...]
    channels: tuple[int, ...]  # of each block, as the numbers below
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    paddings: tuple[int, ...]
    pools: tuple[int, ...]  # window of the maximum before the block, every second pixel kept; 0: none
    smallest: int  # pixels that leave one at the end


LAYOUTS = {
    "vgg": Layout(
        "vgg16",
        blocks=((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
        channels=(64, 128, 256, 512, 512),
        kernels=(3, 3, 3, 3, 3),
        strides=(1, 1, 1, 1, 1),
        paddings=(1, 1, 1, 1, 1),
        pools=(0, 2, 2, 2, 2),
        smallest=16,
    ),
    "alex": Layout(
        "alexnet",
        blocks=((0,), (3,), (6,), (8,), (10,)),
        channels=(64, 192, 384, 256, 256),
        kernels=(11, 5, 3, 3, 3),
        strides=(4, 1, 1, 1, 1),
        paddings=(2, 2, 1, 1, 1),
        pools=(0, 3, 3, 0, 0),
        smallest=31,
    ),
}


class LPIPS(nn.Module):
    """Frozen. Parameters are named as in torchvision's networks and in LPIPS' own files of linear layers."""

    def __init__(self, network: str = "vgg") -> None:
        super().__init__()
        self.network, self.layout = network, LAYOUTS[network]
        self.features = nn.ModuleDict()
        before, layout = 3, self.layout
        for k, (block, channels) in enumerate(zip(layout.blocks, layout.channels, strict=True)):
            how = {"stride": layout.strides[k], "padding": layout.paddings[k]}
            for place in block:
                self.features[str(place)] = nn.Conv2d(before, channels, layout.kernels[k], **how)
                before = channels
            linear = nn.Conv2d(channels, 1, 1, bias=False)
            self.add_module(f"lin{k}", nn.ModuleDict({"model": nn.ModuleDict({"1": linear})}))
        self.requires_grad_(False)

    @staticmethod
    def from_state(state: Mapping[str, Tensor], network: str = "vgg") -> "LPIPS":
        """LPIPS with the weights in `state`. Raises InputError naming those that are not there or of another shape."""
        with torch.device("meta"):
            lpips = LPIPS(network)
        wanted, name = lpips.state_dict(), lpips.layout.torchvision
        missing = [key for key in wanted if key not in state]
        if missing:
            more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
            raise InputError(
                f"LPIPS needs {', '.join(missing[:4])}{more}: give torchvision's {name} and the linear layers of LPIPS "
                f"for {network} (lin0.model.1.weight ...), in one file or two"
            )
        wrong = next((key for key in wanted if state[key].shape != wanted[key].shape), "")
        if wrong:
            shapes = f"{list(state[wrong].shape)} where {list(wanted[wrong].shape)} is needed"
            raise InputError(f"LPIPS: {wrong} is {shapes}; are these weights those for {name}?")
        lpips.load_state_dict({key: state[key].float() for key in wanted}, assign=True)
        return lpips.requires_grad_(False)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:  # [..., 3, H, W] each, in [0, 1] -> [...]
        """0 for equal images; differentiable in `images` only. Raises InputError for images that are too small."""
        layers = self._layers(images, target)
        return sum(layer.mean(dim=(1, 2, 3)) for layer in layers).reshape(images.shape[:-3])

    def distance_map(self, images: Tensor, target: Tensor) -> Tensor:  # [..., 3, H, W] each -> [..., H, W]
        """The same told pixel by pixel: the layers' maps, enlarged to the image's size, summed."""
        size = images.shape[-2:]
        maps = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in self._layers(images, target)]
        return sum(maps).reshape(*images.shape[:-3], *size)

    def _layers(self, images: Tensor, target: Tensor) -> list[Tensor]:  # -> [L, 1, h, w] of every block
        check_shape("images", images, (..., 3, None, None))
        check_shape("target", target, tuple(images.shape))
        smallest = self.layout.smallest
        if min(images.shape[-2:]) < smallest:
            size = list(images.shape[-2:])
            raise InputError(f"LPIPS of {self.network} needs images of at least {smallest} pixels, got {size}")
        with torch.no_grad():
            wanted = self._features(target.reshape(-1, *target.shape[-3:]))
        found = self._features(images.reshape(-1, *images.shape[-3:]))
        weigh = [self.get_submodule(f"lin{k}.model.1") for k in range(len(found))]
        return [w((_unit(a) - _unit(b)).square()) for w, a, b in zip(weigh, found, wanted, strict=True)]

    def _features(self, images: Tensor) -> list[Tensor]:  # [L, 3, H, W] -> [L, C, h, w] of every block
        shift, scale = (images.new_tensor(numbers)[:, None, None] for numbers in (SHIFT, SCALE))
        x, found = (2 * images - 1 - shift) / scale, []
        for block, window in zip(self.layout.blocks, self.layout.pools, strict=True):
            x = F.max_pool2d(x, window, stride=2) if window else x
            for place in block:
                x = self.features[str(place)](x).relu()
            found.append(x)
        return found


def _unit(features: Tensor) -> Tensor:  # [L, C, h, w]
    """Feature vectors of length 1; zero where there is nothing."""
    # The small number is inside the root: at zero the norm itself has no gradient.
    return features / ((features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10)
