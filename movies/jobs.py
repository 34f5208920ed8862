"""Whole jobs on files, as the commands call them: a video file to a folder of outputs."""

import time
from dataclasses import replace
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
from movies.reconstruct import choose_device, choose_dtype, reconstruct
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
) -> dict:
    """Video (and camera file) to a folder of outputs; returns the summary. What `movies reconstruct` calls.

    In `dtype` "bf16" products and convolutions run in bf16 and weights take half the memory. The camera network is
    freed before the other is loaded. Everything a user can get wrong raises InputError, and an output folder that
    cannot be written OSError, before the long work begins.
    """
    with replacing_folder(out) as folder:
        place, precision = choose_device(device), choose_dtype(dtype)
        found, found_cameras = find_weights("MoVieS", weights), find_weights("VGGT", camera_weights)
        found.check(MoVieS)
        found_cameras.check(_camera_network)
        clip = Clip.load(path, frames, cameras)
        clip = fit_resolution(clip, resolution or found.config.image_size, found.config.patch_size)
        warnings = frame_warnings(clip.images, read_thumbnails(path))

        prediction, described, took = _estimate(found_cameras, clip, place, precision, camera_weights)
        started = time.perf_counter()
        model = found.load(MoVieS, precision).to(place)
        described = {"movies": describe_weights(model, weights), "vggt": described}
        took["load"] = round(took["load"] + time.perf_counter() - started, 3)
        result = reconstruct(clip, model, lambda _: prediction, max(clip.views.size))
        del model
        seconds = result.seconds | {"load": took["load"], "cameras": took["cameras"] + result.seconds["cameras"]}
        return write_reconstruction(replace(result, seconds=seconds), folder, described, warnings)


def _camera_network(config: ModelConfig) -> VGGT:
    """VGGT as far as cameras and depth need it."""
    return VGGT(config, points=False)


@torch.no_grad()
def _estimate(
    found: Pretrained, clip: Clip, place: torch.device, dtype: torch.dtype, name: str
) -> tuple[VGGTPrediction, dict, dict[str, float]]:
    """What VGGT says of the clip, its weights described, and the seconds; the network itself is gone afterwards."""
    started = time.perf_counter()
    vggt = found.load(_camera_network, dtype).to(place)
    described = describe_weights(vggt, name)
    loaded = time.perf_counter()
    prediction = vggt(clip.context.images[None].to(place))
    seconds = {"load": loaded - started, "cameras": round(time.perf_counter() - loaded, 3)}
    return prediction, described, seconds
