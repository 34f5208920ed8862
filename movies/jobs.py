"""Whole jobs on files, as the commands call them: a video file to a folder of outputs."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from movies.clip import Clip
from movies.clip_quality import frame_warnings
from movies.files import replacing_folder
from movies.model.config import ModelConfig
from movies.model.network import MoVieS
from movies.model.vggt import VGGT, VGGTPrediction
from movies.model.weights import Pretrained, find_weights
from movies.network_world import fit_resolution
from movies.outputs import describe_weights, write_reconstruction
from movies.reconstruct import Reconstruction, choose_device, choose_dtype, reconstruct
from movies.tracks import Window
from movies.video import read_thumbnails


def reconstruct_file(
    path: str | Path,
    out: str | Path,
    weights: str = "tiny",
    camera_weights: str = "tiny",
    cameras: str | Path | None = None,
    frames: int = 13,
    resolution: int | None = None,
    device: str = "auto",
    dtype: str = "fp32",
    arrays: bool = False,
    refine: bool = True,
) -> dict:
    """Video (and camera file) to a folder of outputs; returns the summary. What `movies reconstruct` calls.

    In `dtype` "bf16" products and convolutions run in bf16 and weights take half the memory. The camera network is
    freed before the other is loaded. With `arrays` the read-outs of every pixel are kept too; with `refine` estimated
    cameras are refined by the pictures. Everything a user can get wrong raises InputError, and an output folder that
    cannot be written OSError, before the long work begins.
    """
    with replacing_folder(out) as folder:
        task = prepared(path, weights, camera_weights, cameras, frames, resolution, device, dtype)
        warnings = frame_warnings(task.clip.images, read_thumbnails(path))
        result, described = reconstructed(task, refine)
        return write_reconstruction(result, folder, described, warnings, arrays)


@dataclass(frozen=True)
class Task:
    """What a clip needs to be reconstructed, all of it checked."""

    clip: Clip  # as the network sees it
    window: Window  # of the frames that were given
    names: tuple[str, str]  # of the weights, MoVieS and VGGT
    found: tuple[Pretrained, Pretrained]
    place: torch.device
    dtype: torch.dtype


def prepared(
    path: str | Path,
    weights: str,
    camera_weights: str,
    cameras: str | Path | None,
    frames: int,
    resolution: int | None,
    device: str,
    dtype: str,
) -> Task:
    """Everything about a clip and its weights read and checked. Raises InputError for what does not fit."""
    place, precision = choose_device(device), choose_dtype(dtype)
    found, found_cameras = find_networks(weights, camera_weights)
    whole = Clip.load(path, frames, cameras)
    clip = fit_resolution(whole, resolution or found.config.image_size, found.config.patch_size)
    window = Window.between(whole.views.size, whole.cameras, clip.cameras)
    return Task(clip, window, (weights, camera_weights), (found, found_cameras), place, precision)


def find_networks(weights: str, camera_weights: str) -> tuple[Pretrained, Pretrained]:
    """The weights of MoVieS and of VGGT, found and checked. Raises InputError for what cannot be loaded."""
    found, found_cameras = find_weights("MoVieS", weights), find_weights("VGGT", camera_weights)
    found.check(MoVieS)
    found_cameras.check(camera_network)
    return found, found_cameras


def reconstructed(task: Task, refine: bool = True) -> tuple[Reconstruction, dict[str, dict]]:
    """The reconstruction, its seconds complete, and both networks' weights described; the networks are gone."""
    prediction, described, took = _estimate(task.found[1], task.clip, task.place, task.dtype, task.names[1])
    started = time.perf_counter()
    model = task.found[0].load(MoVieS, task.dtype).to(task.place)
    described = {"movies": describe_weights(model, task.names[0]), "vggt": described}
    took["load"] = round(took["load"] + time.perf_counter() - started, 3)
    result = reconstruct(task.clip, model, lambda _: prediction, max(task.clip.views.size), refine)
    seconds = result.seconds | {"load": took["load"], "cameras": took["cameras"] + result.seconds["cameras"]}
    return replace(result, seconds=seconds, window=task.window), described


def camera_network(config: ModelConfig) -> VGGT:
    """VGGT as far as cameras and depth need it."""
    return VGGT(config, points=False)


@torch.no_grad()
def _estimate(
    found: Pretrained, clip: Clip, place: torch.device, dtype: torch.dtype, name: str
) -> tuple[VGGTPrediction, dict, dict[str, float]]:
    """What VGGT says of the clip, its weights described, and the seconds; the network itself is gone afterwards."""
    started = time.perf_counter()
    vggt = found.load(camera_network, dtype).to(place)
    described = describe_weights(vggt, name)
    loaded = time.perf_counter()
    prediction = vggt(clip.context.images[None].to(place))
    seconds = {"load": loaded - started, "cameras": round(time.perf_counter() - loaded, 3)}
    return prediction, described, seconds
