"""How fast MoVieS encodes and decodes, part by part, beside what the machine could do.

`plain decode` is the published order of work (`decode_by_time`): for every target time and frame, normalise, modulate,
project, convolve, and run the shortcut again. The floors are the counted FLOPs over the measured rate of a large matrix
product, and the bytes of the results over the measured rate of a copy. Peak memory is that of the process (Linux), or
of the GPU, while the part runs.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from movies.cameras import Cameras
from movies.model.config import PRESETS, ModelConfig
from movies.model.dpt import DPTHead
from movies.model.embeddings import uv_embedding
from movies.model.layers import linear, own_precision
from movies.model.network import MoVieS, Tokens
from movies.model.weights import held_dtype

EXAMPLE = "example: python tools/bench_model.py --preset vggt-1b"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDES = {"vggt-1b": 224, "tiny": 112}
MORE_TIMES = 5  # times as many target times, for what they cost


def plain_head(head: DPTHead, levels: list[Tensor], grid: tuple[int, int], time_code: Tensor, image: Tensor) -> Tensor:
    """A head's output [N, o, H, W] for N frames [N, L, 2D] at one time [N, time_dim], one step after another."""
    height, width = grid[0] * head.patch_size, grid[1] * head.patch_size
    aspect = width / height
    maps = []
    for x, project, resize in zip(levels, head.projects, head.resize_layers, strict=True):
        x = F.layer_norm(x.float(), x.shape[-1:], head.norm.weight, head.norm.bias, 1e-9)  # normalised before
        if time_code.shape[-1]:
            scale, bias = head.time_embed(time_code)[:, None].float().chunk(2, dim=-1)
            x = x * (1 + scale) + bias
        x = project(x.transpose(1, 2).unflatten(-1, grid))
        maps.append(resize(x + uv_embedding(*grid, x.shape[1], aspect, torch.float32, x.device)))

    scratch, size = head.scratch, [x.shape[-2:] for x in maps]
    skips = [getattr(scratch, f"layer{i}_rn")(x) for i, x in enumerate(maps, start=1)]
    sizes = [*size[:3], (2 * size[0][0], 2 * size[0][1])]
    x = skips[3]
    for i, target in ((4, sizes[2]), (3, sizes[1]), (2, sizes[0]), (1, sizes[3])):
        block = getattr(scratch, f"refinenet{i}")
        x = x if i == 4 else x + block.resConfUnit1(skips[i - 1])
        x = F.interpolate(block.resConfUnit2(x), size=target, mode="bilinear", align_corners=True)
        x = block.out_conv(x)
    x = F.interpolate(scratch.output_conv1(x), size=(height, width), mode="bilinear", align_corners=True)
    x = x + uv_embedding(height, width, x.shape[1], aspect, torch.float32, x.device)
    raw = scratch.output_conv2(x).float()
    return raw + head.shortcut(image).float() if image.shape[1] else raw


def decode_by_time(model: MoVieS, tokens: Tokens, times: Tensor) -> tuple[Tensor, Tensor]:  # [B, T]
    """Raw motion [B, T, V, 4, H, W] and raw moving splats [B, T, V, 12, H, W], time by time and 8 frames a pass."""
    num_batch, num_views, _, height, width = tokens.images.shape
    grid = (height // model.config.patch_size, width // model.config.patch_size)
    frames, codes = tokens.images.flatten(0, 1), model.embed_times(times)
    levels = [x.flatten(0, 1) for x in tokens.levels]
    chunks = torch.arange(num_batch * num_views, device=times.device).split(8)

    def run(head: DPTHead, code: Tensor, image: Tensor) -> Tensor:  # [B*V, time_dim], [B*V, C, H, W]
        parts = [plain_head(head, [x[i] for x in levels], grid, code[i], image[i]) for i in chunks]
        return torch.cat(parts)

    timeless, no_image = frames.new_zeros(len(frames), 0), frames[:, :0]
    run(model.depth_head, timeless, no_image)
    static = run(model.splat_head, timeless, frames)[:, :-1]
    motions, splats = [], []
    for t in range(times.shape[1]):
        code = codes[:, t].repeat_interleave(num_views, dim=0)
        motions.append(run(model.motion_head, code, no_image).unflatten(0, (num_batch, num_views)))
        splats.append(run(model.motion_splat_head, code, static).unflatten(0, (num_batch, num_views)))
    return torch.stack(motions, dim=1), torch.stack(splats, dim=1)


@dataclass(frozen=True)
class Measured:
    """A call: best wall and CPU seconds (busy neighbours only add), and the peak in bytes."""

    seconds: float
    cpu_seconds: float
    peak: int


def measure(function: Callable[[], object], device: str, repeats: int) -> Measured:
    """Run `repeats` times; a first call should have warmed up."""
    seconds, cpu_seconds = [], []
    reset_peak(device)
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return Measured(min(seconds), min(cpu_seconds), peak_memory(device))


def reset_peak(device: str) -> None:
    """Forget the peak so far, where the system can."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: str) -> int:
    """Bytes since `reset_peak`; 0 where the system does not say."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def machine_rates(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """FLOPs a second of a matrix product in `dtype`, and bytes a second (read and written) of a copy."""
    size = 8192 if device == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    flops = 2 * size**3 / measure(lambda: linear(a, a), device, 5).seconds
    source = torch.zeros(1 << 28 if device == "cuda" else 1 << 25, device=device)
    target = torch.empty_like(source)
    return flops, 2 * source.nbytes / measure(lambda: target.copy_(source), device, 5).seconds


def example_inputs(config: ModelConfig, args: argparse.Namespace) -> tuple[Tensor, Cameras, Tensor, Tensor]:
    """Random frames of a camera that slides sideways."""
    side, lead = args.size, (args.batch, args.views)
    images = torch.rand(*lead, 3, side, side, device=args.device)
    c2w = torch.eye(4, device=args.device).repeat(*lead, 1, 1)
    c2w[..., 0, 3] = torch.linspace(0, 0.3, args.views, device=args.device)
    fxfycxcy = torch.tensor([0.87, 0.87, 0.5, 0.5], device=args.device).expand(*lead, 4)
    times = torch.linspace(0, 1, args.views, device=args.device).expand(lead)
    targets = torch.linspace(0, 1, args.times, device=args.device).expand(args.batch, -1)
    return images, Cameras(c2w, fxfycxcy), times, targets


def train_step(model: MoVieS, inputs: tuple, bf16: bool) -> None:
    """Forward and backward through all heads."""
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=bf16):
        splats = model(*inputs)
    loss = splats.depth.mean() + splats.motion.square().mean() + splats.gaussians().colors.mean()
    loss.backward()
    model.zero_grad()


def first_call(function: Callable[[], object]) -> tuple[int, int]:
    """FLOPs of a call, and the bytes of its results."""
    onednn = {torch.ops.mkldnn._linear_pointwise: lambda x, w, *_, **__: 2 * math.prod(x) * w[0]}
    with FlopCounterMode(display=False, custom_mapping=onednn) as counter:
        result = function()
    return counter.get_total_flops(), sum(x.nbytes for x in tensors_of(result))


def parts(model: MoVieS, inputs: tuple[Tensor, Cameras, Tensor, Tensor]) -> dict[str, Callable[[], object]]:
    """The calls to measure, by name; each runs on what the parts before it left."""
    images, cameras, times, targets = inputs
    grid = (images.shape[-2] // model.config.patch_size, images.shape[-1] // model.config.patch_size)
    rays, prefix = model.condition(cameras, times, *images.shape[-2:])
    patches = model.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2]) + rays
    tokens = model.encode(images, cameras, times)
    pixels, timeless = images.permute(0, 1, 3, 4, 2), times.new_zeros(1, 1, 0)
    static = model.splat_head(tokens.levels, grid, timeless, pixels)[:, 0, ..., :-1]
    none, embedded = static[..., :1, :1, :0], model.embed_times(targets)
    more = torch.linspace(0, 1, MORE_TIMES * targets.shape[1], device=targets.device).expand(len(targets), -1)

    def motion(codes: Tensor) -> tuple[Tensor, Tensor]:
        moved = model.motion_head(tokens.levels, grid, codes, none)
        return moved, model.motion_splat_head(tokens.levels, grid, codes, static)

    return {
        "encoder": lambda: model.encoder(images.flatten(0, 1)),
        "backbone": lambda: model.backbone(patches, prefix, grid, model.config.dpt_layer_idx),
        "depth head": lambda: model.depth_head(tokens.levels, grid, timeless, none),
        "splat head": lambda: model.splat_head(tokens.levels, grid, timeless, pixels),
        f"motion heads, {targets.shape[1]} times": lambda: motion(embedded),
        f"motion heads, {more.shape[1]} times": lambda: motion(model.embed_times(more)),
        "encode": lambda: model.encode(images, cameras, times),
        "decode": lambda: model.decode(tokens, targets),
        "plain decode": lambda: decode_by_time(model, tokens, targets),
        "all": lambda: model(*inputs),
    }


def tensors_of(result: object) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, (list, tuple)):
        return [tensor for part in result for tensor in tensors_of(part)]
    return [x for x in vars(result).values() if isinstance(x, Tensor)]


def hold(model: MoVieS, dtype: torch.dtype) -> None:
    """Hold the weights as `from_pretrained(..., dtype)` does."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(held_dtype(name, parameter.dim(), dtype))


def table(model: MoVieS, inputs: tuple, name: str, args: argparse.Namespace) -> list[str]:
    """The rows of one dtype."""
    flop_rate, byte_rate = machine_rates(args.device, DTYPES[name])
    hold(model, DTYPES[name])
    weights = sum(p.nbytes for p in model.parameters())
    lines = [
        f"{name}: {flop_rate / 1e9:.0f} GFLOP/s, {byte_rate / 1e9:.1f} GB/s, weights {weights / 1e9:.2f} GB",
        "| part | s | CPU s | floor s | share of floor | peak GB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with torch.no_grad(), own_precision(model):
        for part, function in parts(model, inputs).items():
            flops, size = first_call(function)
            floor = max(flops / flop_rate, size / byte_rate)
            m = measure(function, args.device, args.repeats)
            figures = f"{m.seconds:.3f} | {m.cpu_seconds:.2f} | {floor:.3f} | {floor / m.seconds:.0%}"
            lines.append(f"| {part} | {figures} | {m.peak / 1e9:.2f} |")
    return lines


def report(args: argparse.Namespace) -> list[str]:
    """The tables, line by line."""
    preset = ModelConfig.preset(args.preset)
    config = preset.with_patch_size(args.patch_size or preset.patch_size)
    args.size = args.size or SIDES[args.preset] * config.patch_size // preset.patch_size
    model, inputs = MoVieS(config).to(args.device).eval(), example_inputs(config, args)
    lines = [
        f"{args.preset}, batch {args.batch}, {args.views} views of {args.size}x{args.size}, {args.times} target times, "
        f"{torch.get_num_threads()} threads on {args.device}"
    ]
    if args.train:
        for bf16 in (False, True):
            m = measure(lambda: train_step(model, inputs, bf16), args.device, args.repeats)  # noqa: B023
            lines.append(f"train step {'bf16' if bf16 else 'fp32'}: {1e3 * m.seconds:.1f} ms")
    for name in args.dtype:
        lines += table(model, inputs, name, args)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="tiny")
    parser.add_argument("--patch-size", type=int, default=0, help="another patch size on the same grid (tiny: 7, 14)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--views", type=int, default=5, help="context frames")
    parser.add_argument("--times", type=int, default=5, help="target times")
    parser.add_argument("--size", type=int, default=0, help="side of the images (default: 224, tiny 112)")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=list(DTYPES), help="fp32 before bf16")
    parser.add_argument("--train", action="store_true", help="also time a training step in float32 and in bf16")
    print("\n".join(report(parser.parse_args())))


if __name__ == "__main__":
    main()
