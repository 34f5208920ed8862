"""reconstruct: a Clip to DynamicSplats to a Scene4D, with cameras estimated where none are given."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from movies.camera_refinement import Refinement
from movies.clip import Clip
from movies.errors import InputError
from movies.model.network import MoVieS
from movies.model.vggt import VGGTPrediction
from movies.network_world import fit_resolution, network_world
from movies.scene import Scene4D
from movies.splats import DynamicSplats
from movies.tracks import Window

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PHASES = ("cameras", "encode", "decode", "scene")


@dataclass(frozen=True)
class Reconstruction:
    """A scene in the user's world, and how it came about.

    `splats` stay in the network's world; x_user = transform (scale * x_network).
    """

    scene: Scene4D
    splats: DynamicSplats  # [1, T, ...]
    clip: Clip  # the frames as the network saw them; cameras in the user's world
    scale: float
    transform: Tensor  # [4, 4]
    camera_depth: Tensor  # [V, H, W] that the camera network sees, network's world; [0, 0, 0] without one
    window: Window  # the part of the frames as they were given that the network saw
    refinement: Refinement  # of estimated cameras
    seconds: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def reconstruct(
    clip: Clip,
    model: MoVieS,
    vggt: Callable[[Tensor], VGGTPrediction] | None = None,
    resolution: int | None = None,
    refine: bool = True,
) -> Reconstruction:
    """Reconstruct the context views of `clip` on the model's device, at the times of these views.

    `vggt` estimates cameras where the clip has none, and their unit where it has. `resolution` is the longer side in
    pixels the network sees (a multiple of its patch; the model's own by default). With `refine` estimated cameras are
    refined by the pictures. Raises InputError for a clip without cameras and no `vggt`, and for a resolution that does
    not fit.
    """
    if not clip.has_cameras and vggt is None:
        raise InputError("the clip has no cameras: give a VGGT to estimate them, or cameras with the clip")
    device, whole = next(model.parameters()).device, clip
    clip = fit_resolution(whole, resolution or model.config.image_size, model.config.patch_size)
    window = Window.between(whole.views.size, whole.cameras, clip.cameras)
    images, times = clip.context.images[None].to(device), clip.context.times[None].to(device)
    seconds: dict[str, float] = {}
    with _phases(seconds) as phase:
        phase("cameras")
        world = network_world(clip, vggt(images) if vggt is not None else None, device, refine)
        phase("encode")
        tokens = model.encode(images, world.cameras[None], times)
        phase("decode")
        splats = model.decode(tokens, times)
        del tokens
        phase("scene")
        scene = splats.to_scene().to("cpu").placed(world.scale, world.transform)
    seen = replace(clip, views=replace(clip.views, cameras=scene.cameras), has_cameras=True)
    placed = (world.scale, world.transform, world.depth)
    return Reconstruction(scene, splats, seen, *placed, window, world.refinement, seconds)


def choose_dtype(name: str) -> torch.dtype:
    """Raises InputError for anything but "fp32" and "bf16"."""
    if name not in DTYPES:
        raise InputError(f"unknown dtype {name!r}: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one. Raises InputError for a device that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"unknown device {name!r}: choose one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda is not available here; use --device cpu, and see `movies doctor`")
    return torch.device(name)


@contextmanager
def _phases(seconds: dict[str, float]) -> Iterator:
    """Yields phase(name), which times the phase before it and moves the progress bar on."""
    from tqdm import tqdm

    started, running = [time.perf_counter()], []
    with tqdm(total=len(PHASES), desc="reconstruct", delay=2, disable=None, leave=False) as bar:

        def phase(name: str) -> None:
            finish()
            running.append(name)
            bar.set_postfix_str(name)

        def finish() -> None:
            if running:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds[running[-1]] = round(time.perf_counter() - started[0], 3)
                bar.update()
            started[0] = time.perf_counter()

        yield phase
        finish()
