"""Time render, forward and backward, beside what the arithmetic allows and beside the slow twin.

Example: python tools/bench_render.py --repeats 3 --cases 652k@224 training
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "rendering"))
from movies.cameras import Cameras
from movies.gaussians import Gaussians
from movies.rendering import render

# name: (views that predicted the Gaussians, their side in pixels, side of the picture, number of pictures)
CASES = {
    "65k@224": (13, 71, 224, 1),
    "65k@518": (13, 71, 518, 1),
    "652k@224": (13, 224, 224, 1),
    "652k@518": (13, 224, 518, 1),
    "training": (10, 56, 112, 40),
}
# Floors, a splat and a pass: the Gaussian is read once (14 float32), its row written and read (11), its rect too; the
# backward pass does the same, reads and writes a gradient of 10 in each tile (1.6 tiles a splat here), and writes 14.
FORWARD_BYTES = 4 * (14 + 2 * 11) + 2 * 8
BACKWARD_BYTES = FORWARD_BYTES + 4 * (2 * 10 * 1.6 + 14)
PIXEL_BYTES = 4 * (3 + 3)  # colours, depth, transmittance, last splat


def predicted_scene(views: int, side: int, size: int) -> Gaussians:
    """Per-pixel splats of `views` views of one wavy wall: sigma 0.45 to 1.2 px, opacity 0.1 to 0.95."""
    generator = torch.Generator().manual_seed(0)
    line = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    clouds = []
    for view in range(views):
        z = 2 + 0.5 * torch.sin(6 * x + 0.3 * view) * torch.cos(5 * y)
        z = z + 0.02 * torch.rand(side, side, generator=generator)
        clouds.append(torch.stack([(x - 0.5) * z + 0.02 * view, (y - 0.5) * z, z], dim=-1).reshape(-1, 3))
    means = torch.cat(clouds)
    num = len(means)
    return Gaussians(
        means=means,
        quats=torch.randn(num, 4, generator=generator),
        scales=(0.45 + 0.75 * torch.rand(num, 3, generator=generator)) * means[:, 2:] / size,
        opacities=0.1 + 0.85 * torch.rand(num, generator=generator),
        colors=torch.rand(num, 3, generator=generator),
    )


def timed(gaussians: Gaussians, cameras: Cameras, size: int, repeats: int, backend: str) -> tuple[float, float]:
    """The best forward and backward seconds of `repeats` after one that compiles."""
    leaves = gaussians.map(lambda x: x.clone().requires_grad_())
    best = [float("inf"), float("inf")]
    for repeat in range(repeats + 1):
        marks = [_now(leaves)]
        seen = render(leaves, cameras, size, size, backend=backend)
        marks.append(_now(leaves))
        loss = seen.images.square().mean() + seen.depths.mean()
        middle = _now(leaves)
        loss.backward()
        marks.append(_now(leaves))
        if repeat:
            best = [min(best[0], marks[1] - marks[0]), min(best[1], marks[2] - middle)]
    return best[0], best[1]


def _now(gaussians: Gaussians) -> float:
    if gaussians.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def bandwidth() -> float:
    """Bytes a second that torch copies here, the roof of everything that streams."""
    source = torch.ones(64 << 20)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.numel() * 4 / best


def bench(name: str, repeats: int, speed: float) -> None:
    """Print one case's line a backend."""
    views, side, size, pictures = CASES[name]
    scene = predicted_scene(views, side, size)
    cameras = Cameras(torch.eye(4), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    if pictures > 1:
        scene = scene.map(lambda x: x.expand(pictures, *x.shape).contiguous())
        cameras = Cameras(cameras.c2w.expand(pictures, 4, 4), cameras.fxfycxcy.expand(pictures, 4))
    splats, pixels = pictures * len(scene), pictures * size * size
    floors = [1e3 * (splats * b + pixels * PIXEL_BYTES) / speed for b in (FORWARD_BYTES, BACKWARD_BYTES)]
    devices = {"cpu": "cpu", "gsplat": "cuda"} if torch.cuda.is_available() else {"cpu": "cpu"}
    for backend, device in devices.items():
        forward, backward = timed(scene.to(device), cameras.to(device), size, repeats, backend)
        floor = f"{floors[0]:6.1f} {floors[1]:7.1f}" if backend == "cpu" else "     -       -"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:10} {backend:7} {1e3 * forward:8.1f} {1e3 * backward:9.1f}   {floor}   {memory:6.2f} GiB")


def bench_twin() -> None:
    """The float64 twin at a size it can bear."""
    from twin import render_twin

    scene, camera = predicted_scene(2, 16, 32), Cameras(torch.eye(4), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    leaves = scene.map(lambda x: x.double().requires_grad_())
    start = time.perf_counter()
    seen = render_twin(leaves, camera, 32, 32, torch.zeros(3))
    middle = time.perf_counter()
    seen.image.square().mean().backward()
    end = time.perf_counter()
    forward, backward = timed(scene, camera, 32, 5, "cpu")
    print(f"512 splats at 32 x 32: twin {1e3 * (middle - start):.1f} + {1e3 * (end - middle):.1f} ms, ", end="")
    print(f"cpu {1e3 * forward:.2f} + {1e3 * backward:.2f} ms")


def main() -> None:
    """Parse, and print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5, help="the best of so many is printed")
    arguments = parser.parse_args()
    speed = bandwidth()
    print(f"memory copies at {speed / 1e9:.1f} GB/s; the floors are bytes that must move over that, a splat")
    print(f"{FORWARD_BYTES:.0f} forward and {BACKWARD_BYTES:.0f} backward, a pixel {PIXEL_BYTES}")
    print("case       backend  forward  backward   floors, ms       peak RSS")
    for name in arguments.cases:
        bench(name, arguments.repeats, speed)
    bench_twin()


if __name__ == "__main__":
    main()
