"""doctor: what of the parts that movies can use works on this machine, and the mend for what does not."""

import importlib
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from movies.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One part: whether it works, what it is, and where it does not, what to do."""

    name: str
    works: bool
    text: str

    def __str__(self) -> str:
        return f"{self.name:<15} {'ok    ' if self.works else 'absent'}  {self.text}"


def examine() -> list[Finding]:
    """Try every part; never raises for one that is broken."""
    return [_tried(name, check) for name, check in CHECKS.items()]


def _tried(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Exception as error:  # a part may be broken in any way; saying so is this module's purpose
        mend = MENDS.get(name, "")
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        return Finding(name, False, f"{reason}; {mend}" if mend else reason)


def _python() -> str:
    return platform.python_version()


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise InputError("no CUDA device")
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def _render(device: str) -> None:
    import torch

    from movies.cameras import Cameras
    from movies.gaussians import Gaussians
    from movies.rendering import render

    one = Gaussians(
        torch.tensor([[0.0, 0, 1]]),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1, 3), 0.1),
        torch.ones(1),
        torch.ones(1, 3),
    )
    camera = Cameras(torch.eye(4), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    picture = render(one.to(device), camera.to(device), 8, 8).images
    if not 0.5 < float(picture.max()) <= 1:
        raise InputError("a test picture came out wrong")


def _gsplat() -> str:
    version = importlib.import_module("gsplat").__version__
    _cuda()
    _render("cuda")
    return f"{version}, renders on CUDA"


def _numba() -> str:
    version = importlib.import_module("numba").__version__
    _render("cpu")
    return f"{version}, renders on the CPU"


def _ffmpeg() -> str:
    from movies.video import ffmpeg_path

    path = ffmpeg_path()
    done = subprocess.run([path, "-version"], capture_output=True, text=True, check=True)
    return f"{done.stdout.split()[2]} ({path})"


def _weights() -> str:
    from movies.model.network import MoVieS
    from movies.model.vggt import VGGT

    counts = [sum(p.numel() for p in c.from_pretrained("tiny").parameters()) for c in (MoVieS, VGGT)]
    return f"tiny MoVieS and VGGT, {counts[0] / 1e6:.1f} and {counts[1] / 1e6:.1f} M parameters"


def _module(*names: str) -> Callable[[], str]:
    def check() -> str:
        from importlib.metadata import version

        return ", ".join(f"{name} {version(name)}" for name in names)

    return check


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "torch": _torch,
    "numba": _numba,
    "ffmpeg": _ffmpeg,
    "weights": _weights,
    "cuda": _cuda,
    "gsplat": _gsplat,
    "train extra": _module("accelerate", "deepspeed", "transformers"),
    "view extra": _module("viser"),
    "hub extra": _module("huggingface_hub"),
}
MENDS = {
    "torch": "pip install torch",
    "numba": "pip install numba (the renderer on machines without CUDA)",
    "ffmpeg": "pip install 'imageio[ffmpeg]' (videos in and out)",
    "weights": "the bundled weights are missing; install movies again, or give --weights and --camera-weights",
    "cuda": "not needed: the CPU does everything, slower; for CUDA install a driver and a CUDA build of torch",
    "gsplat": "not needed without CUDA; with it: pip install 'gsplat>=1.5.3', and a CUDA toolkit to build it",
    "train extra": "pip install 'movies[train]' (only for training under DeepSpeed)",
    "view extra": "pip install 'movies[view]' (only for the live viewer)",
    "hub extra": "pip install 'movies[hub]' (only for weights from the hub)",
}
REQUIRED = ("python", "torch", "numba", "ffmpeg", "weights")
