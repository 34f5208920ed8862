"""Where training starts: from scratch, from VGGT's weights, or from a model of another patch size.

From scratch, the published activations start at something sensible: splats with their pixel's colour, opacity 0.8
and a third of their pixel's size, depth 1, motion 0, and moving splats equal to static ones.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from movies.model.config import ModelConfig
from movies.model.dpt import DPTHead

COLOR_KNOTS = (0.0, 0.05, 0.15, 0.85, 0.95, 1.0)  # where the piecewise linear inverse of the colour activation bends
START_OPACITY = 0.8
START_SCALE = 0.35  # of a pixel's footprint at depth 1
START_FOV = math.radians(60)


@torch.no_grad()
def init_movies(model: nn.Module) -> None:
    """Random weights for training MoVieS from scratch."""
    _init_tokens(model.backbone, model.encoder)
    _init_depth(model.depth_head)
    _init_splats(model.splat_head, model.config)
    if model.config.static:
        return
    _damp_frequencies(model.backbone.time_embed)
    _init_motion(model.motion_head)
    _init_motion_splats(model.motion_splat_head)


@torch.no_grad()
def init_vggt(model: nn.Module) -> None:
    """Random weights for training VGGT from scratch: cameras start at the first one's, points one unit ahead."""
    _init_tokens(model.aggregator, model.aggregator.patch_embed)
    _init_depth(model.depth_head)
    if hasattr(model, "point_head"):
        _init_head(model.point_head, gain=0.01)
        model.point_head.scratch.output_conv2[2].bias[2] = math.log(2)  # expm1(log 2) = 1
    last = model.camera_head.pose_branch.fc2
    last.weight.mul_(0.01)
    # Four iterations add up to the identity rotation and a usual field of view.
    start = last.bias.new_tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, START_FOV, START_FOV])
    last.bias.copy_(start / 4)


@torch.no_grad()
def init_from_vggt(model: nn.Module, vggt: nn.Module) -> None:
    """Copy VGGT's encoder, backbone, depth head and point head (as motion head) into MoVieS.

    Motion starts at zero (the last layer is), and so does the ray embedding: the gain of its norm is zero, its
    convolution is not, so gradients reach the gain at once and the convolution from the second step.
    """
    theirs = vggt.aggregator.state_dict()
    encoder = {k.removeprefix("patch_embed."): v for k, v in theirs.items() if k.startswith("patch_embed.")}
    model.encoder.load_state_dict(encoder)
    own = {k: v for k, v in model.backbone.state_dict().items() if k not in theirs}
    backbone = {k: v for k, v in theirs.items() if not k.startswith("patch_embed.")}
    model.backbone.load_state_dict(backbone | own)
    model.depth_head.load_state_dict(vggt.depth_head.state_dict())
    time_embed = {f"time_embed.{k}": v for k, v in model.motion_head.time_embed.state_dict().items()}
    model.motion_head.load_state_dict(vggt.point_head.state_dict() | time_embed)
    _zero(model.motion_head.scratch.output_conv2[2])
    model.plucker_ln.weight.zero_()


@torch.no_grad()
def init_from_movies(vggt: nn.Module, model: nn.Module) -> None:
    """Copy MoVieS' encoder, backbone and depth head into VGGT, the way back of `init_from_vggt`.

    Between small networks it pays: learning motion from dense truth teaches the backbone to match frames, which a
    camera head alone, one token a frame, does not from random weights.
    """
    own = vggt.aggregator.state_dict()
    encoder = {f"patch_embed.{k}": v for k, v in model.encoder.state_dict().items()}
    backbone = {k: v for k, v in model.backbone.state_dict().items() if k in own}
    vggt.aggregator.load_state_dict(backbone | encoder)
    vggt.depth_head.load_state_dict(model.depth_head.state_dict())


@torch.no_grad()
def resize_patch(model: nn.Module, patch_size: int) -> nn.Module:
    """A copy of `model` that reads images of another patch size on the same token grid.

    Patch and ray kernels are resized bilinearly and scaled so that a patch's sum keeps its size (MoVieS is trained
    at 56x56 with patch 7 first, then at 112x112 with patch 14). Splats keep their size in pixels, not in the world.
    """
    resized = type(model)(model.config.with_patch_size(patch_size))
    shrink = model.config.patch_size / patch_size
    factor = shrink**2
    state = model.state_dict()
    for name, own in resized.state_dict().items():
        if state[name].shape != own.shape:
            kernel = state[name].flatten(0, -3)[None].float()  # [1, D * C, p, p]
            kernel = F.interpolate(kernel, size=own.shape[-2:], mode="bilinear", antialias=True)
            state[name] = (factor * kernel).reshape(own.shape).to(state[name].dtype)
    resized.load_state_dict(state)
    if hasattr(resized, "splat_head"):
        _scale_splats(resized, shrink)
    return resized.to(next(model.parameters()).device).train(model.training)


def _scale_splats(model: nn.Module, factor: float) -> None:
    """Multiply raw scales, and so (softplus(x) is x but for small x) the scales. Moving ones start from static ones."""
    for layer in (
        model.splat_head.scratch.output_conv2[2],
        model.splat_head.shortcut[2],
        model.motion_splat_head.scratch.output_conv2[2],
    ):
        layer.weight[3:6] *= factor
        layer.bias[3:6] *= factor


def _init_tokens(backbone: nn.Module, encoder: nn.Module) -> None:
    for token in (backbone.camera_token, backbone.register_token, encoder.cls_token, encoder.register_tokens):
        nn.init.normal_(token, std=0.02)
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)


def _damp_frequencies(linear: nn.Linear, std: float = 0.3) -> None:
    """Weights of the time frequencies 2^k shrink as 2^-k, so the start is smooth in time (sin 512 t is noise)."""
    count = linear.in_features // 2
    gains = std * 0.5 ** torch.arange(count, device=linear.weight.device)
    nn.init.normal_(linear.weight)
    linear.weight.mul_(torch.cat([gains, gains]))
    nn.init.zeros_(linear.bias)


def _zero(layer: nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def _init_head(head: DPTHead, gain: float) -> None:
    """Unit-gain convolutions, and a last layer `gain` times as strong with no bias."""
    for module in head.modules():
        if isinstance(module, nn.ConvTranspose2d):  # stride = kernel: every output sees each input channel once
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    last = head.scratch.output_conv2[2]
    last.weight.mul_(gain)
    if hasattr(head, "time_embed"):
        _damp_frequencies(head.time_embed)


def _init_depth(head: DPTHead) -> None:
    _init_head(head, gain=0.1)  # exp(0) = 1: depth starts near the unit mean distance of the scene


def _init_motion(head: DPTHead) -> None:
    _init_head(head, gain=0.0)


def _init_splats(head: DPTHead, config: ModelConfig) -> None:
    """Colour through the shortcut; opacity, scale and rotation from the last layer's bias."""
    _init_head(head, gain=0.03)
    footprint = 2 * math.tan(START_FOV / 2) / config.image_size
    bias = head.scratch.output_conv2[2].bias
    bias[3:6] = math.log(math.expm1(START_SCALE * footprint / 0.001))  # inverse of 0.001 softplus
    bias[6] = 1.0  # the identity quaternion, wxyz
    bias[10] = (_logit(START_OPACITY) + 2) / 2  # inverse of sigmoid(2x - 2)
    _init_color_shortcut(head.shortcut)


def _init_color_shortcut(shortcut: nn.Sequential) -> None:
    """Raw colour = logit(rgb)/2, the inverse of sigmoid(2x), piecewise linear: a hidden ReLU for each knot."""
    values = [_logit(min(max(knot, 0.02), 0.98)) / 2 for knot in COLOR_KNOTS]
    spans = pairwise(zip(COLOR_KNOTS, values, strict=True))
    slopes = [(v1 - v0) / (k1 - k0) for (k0, v0), (k1, v1) in spans]
    bends = [slopes[0], *(b - a for a, b in pairwise(slopes))]

    _zero(shortcut[2])
    for color in range(3):
        shortcut[2].bias[color] = values[0]
        for i, (knot, bend) in enumerate(zip(COLOR_KNOTS, bends, strict=False)):
            unit = color * len(bends) + i
            _pass_through(shortcut[0], unit, color, 1.0)
            shortcut[0].bias[unit] = -knot
            shortcut[2].weight[color, unit] = bend


def _init_motion_splats(head: DPTHead) -> None:
    """Moving splats start equal to static ones: the shortcut is the identity, relu(x) - relu(-x), the rest zero."""
    _init_head(head, gain=0.0)
    _zero(head.shortcut[2])
    for channel in range(head.shortcut[0].in_channels):
        for unit, sign in ((2 * channel, 1.0), (2 * channel + 1, -1.0)):
            _pass_through(head.shortcut[0], unit, channel, sign)
            head.shortcut[2].weight[channel, unit] = sign


def _pass_through(conv: nn.Conv2d, unit: int, channel: int, sign: float) -> None:
    conv.weight[unit] = 0.0
    conv.weight[unit, channel, 1, 1] = sign
    conv.bias[unit] = 0.0


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
