"""The training objectives: a prediction and a batch to named, weighted, per-sample loss terms.

Training and validation go through the same code: predict, then terms. Predicting runs under autocast; rendering and
losses do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from movies import losses, metrics
from movies.cameras import Cameras
from movies.clip import Batch, Tracks, Views
from movies.errors import InputError
from movies.geometry import project
from movies.model.embeddings import pose_encoding
from movies.model.network import MoVieS
from movies.model.vggt import VGGT, VGGTPrediction
from movies.model.weights_file import read_header
from movies.perceptual import LPIPS
from movies.rendering import Rendering, render
from movies.splats import DynamicSplats

MOVING = 0.005  # world units: a track that moves less counts as still


@dataclass(frozen=True)
class LossTerms:
    """Named losses [B] with their weights (one number, or [B]), and measures [B] that nobody minimises.

    A measure is NaN where it does not apply.
    """

    losses: dict[str, Tensor]
    weights: Mapping[str, float | Tensor]
    measures: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:  # [B]
        """The weighted sum of every sample."""
        return sum(self.weights[name] * value for name, value in self.losses.items())

    def summary(self) -> dict[str, float]:
        """Means over the samples of the total, every loss (unweighted) and every measure."""
        values = {"loss": self.total, **self.losses, **self.measures}
        return {name: value.detach().float().nanmean().item() for name, value in values.items()}


@dataclass(frozen=True)
class MoviesObjectiveConfig:
    """Weights of the terms (0 switches a term off) and the kinds of depth and motion loss.

    "published" is the papers' loss, "log" and "squared" those for random starts. Only the first `num_rendered`
    targets are rendered, at `render_size` (height, width; empty: at the clips' own). `lpips_weights` are files with
    torchvision's vgg16 and LPIPS' linear layers for it; without them the term is off.
    """

    depth: float = 1.0
    motion: float = 10.0
    mse: float = 1.0
    lpips: float = 0.5
    ssim: float = 0.0
    depth_kind: Literal["published", "log"] = "published"
    motion_kind: Literal["published", "squared"] = "published"
    num_rendered: int = 1
    render_size: tuple[int, int] | tuple[()] = ()
    lpips_weights: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What of the objective is off though its weight is not; empty where nothing is."""
        off = self.lpips and not self.lpips_weights
        return "the LPIPS term is off: `loss.lpips_weights` names no weights of a VGG16" if off else ""


@dataclass(frozen=True)
class VGGTObjectiveConfig:
    """Weights of the terms (0 switches a term off). `camera_kind` "squared" is for random starts."""

    depth: float = 1.0
    points: float = 1.0
    cameras: float = 1.0
    camera_kind: Literal["published", "squared"] = "published"
    note = ""


class MoviesObjective:
    """Depth, motion and photometric terms of MoVieS (equations 4 to 7)."""

    def __init__(self, config: MoviesObjectiveConfig) -> None:
        self.config = config
        self.perceptual = load_lpips(config.lpips_weights) if config.lpips and config.lpips_weights else None

    def predict(self, model: MoVieS, batch: Batch, generator: torch.Generator | None = None) -> DynamicSplats:
        """Splats of the context views at the times of the target views."""
        context = batch.context
        return model(context.images, context.cameras, context.times, batch.target.times)

    def terms(self, splats: DynamicSplats, batch: Batch, generator: torch.Generator | None = None) -> LossTerms:
        """Every term whose weight is not 0; `generator` draws the pairs of the motion loss."""
        config = self.config
        values, measures = self._depth(splats, batch.context)
        if config.motion:
            values["motion"], measures["motion_error"] = self._motion(splats, batch, generator)
        if config.mse or config.ssim or self.perceptual:
            images, target = self.render(splats, batch).images, self.rendered_targets(batch).images
            values |= self._photometric(images, target)
            measures["psnr"] = metrics.psnr(images.detach(), target).mean(dim=1)
        trust = {"depth": batch.depth_weight, "motion": batch.motion_weight}
        weights = {name: getattr(config, name) * trust.get(name, 1.0) for name in values}
        return LossTerms(values, weights, measures)

    def _depth(self, splats: DynamicSplats, context: Views) -> tuple[dict, dict]:
        measures = {"absrel": metrics.absrel(splats.depth.detach(), context.depth, context.depth_mask)}
        if not self.config.depth:
            return {}, measures
        kind = losses.log_depth_loss if self.config.depth_kind == "log" else losses.depth_loss
        return {"depth": kind(splats.depth, context.depth, context.depth_mask)}, measures

    def _motion(self, splats: DynamicSplats, batch: Batch, generator) -> tuple[Tensor, Tensor]:  # [B], [B]
        """The loss, and the error on moving points relative to predicting none (NaN where nothing moves)."""
        truth = motion_targets(batch)
        motion = gather_motion(splats.motion, truth.pixels).flatten(1, 3)  # [B, T * V * P, 3]
        target, mask = truth.motion.flatten(1, 3), truth.mask.flatten(1, 3)
        still = static_motion_loss(splats.motion, self.config.motion_kind)
        tracked = self._tracked(motion, target, mask, generator)
        value = torch.where(batch.is_static, still, tracked)

        moving = mask & (target.nan_to_num().norm(dim=-1) >= MOVING)
        error = metrics.endpoint_error(motion.detach().float(), target, moving)
        return value, error / metrics.endpoint_error(torch.zeros_like(target), target, moving)

    def _tracked(self, motion: Tensor, target: Tensor, mask: Tensor, generator) -> Tensor:  # [B, M, 3] -> [B]
        if self.config.motion_kind == "squared":
            return losses.squared_motion_loss(motion, target, mask, MOVING)
        return losses.masked_motion_loss(motion, target, mask, generator=generator)

    def _photometric(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:  # [B, R, 3, h, w] each
        values = {"mse": losses.photometric_loss(images, target)}
        if self.perceptual:
            values["lpips"] = self.perceptual.to(images.device)(images, target).mean(dim=1)
        if self.config.ssim:
            values["ssim"] = 1 - metrics.ssim(images, target).mean(dim=1)
        return values

    def render(self, splats: DynamicSplats, batch: Batch) -> Rendering:
        """The rendered targets: splats at their times, from their cameras."""
        count, (height, width) = self.config.num_rendered, self.config.render_size or batch.views.size
        return render(splats.gaussians()[:, :count], batch.target.cameras[:, :count], height, width)

    def rendered_targets(self, batch: Batch) -> Views:
        """The target views that are rendered, at the size they are rendered in."""
        size = self.config.render_size or batch.views.size
        return batch.target.select(slice(0, self.config.num_rendered)).resized(*size)


@dataclass(frozen=True)
class MotionTargets:
    """Where the motion of tracked points is known: in the pixels where context view v sees them, at target time t."""

    pixels: Tensor  # [B, V, P] int64 index into the H * W pixels of the context view; 0 where not seen
    motion: Tensor  # [B, T, V, P, 3] world offset from the view's time to the target time; NaN where unknown
    mask: Tensor  # [B, T, V, P] bool: visible in the view and known at the target time


def motion_targets(batch: Batch) -> MotionTargets:
    """Offsets of the tracks from every context view to every target time."""
    num_context = batch.num_context
    context = batch.tracks.select(slice(0, num_context))
    points = batch.tracks.points
    pixels, inside = track_pixels(context, batch.context.cameras, *batch.views.size)
    motion = points[:, num_context:, None] - points[:, None, :num_context]  # [B, T, V, P, 3]
    seen = inside & context.visible  # [B, V, P]
    return MotionTargets(pixels, motion, seen[:, None] & motion.isfinite().all(dim=-1))


def track_pixels(tracks: Tracks, cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Index [B, V, P] of the pixel whose centre is nearest to a track's position in every view, and if it is inside."""
    xy, z = project(tracks.points, cameras.fxfycxcy, cameras.c2w)
    size = xy.new_tensor([width, height])
    column_row = (xy * size).floor()  # pixel (i, j) covers [j, j + 1) x [i, i + 1): its centre is the nearest
    inside = ((column_row >= 0) & (column_row < size)).all(dim=-1) & (z > 0)  # False for NaN
    column, row = torch.where(inside[..., None], column_row, torch.zeros_like(column_row)).long().unbind(-1)
    return row * width + column, inside


def gather_motion(motion: Tensor, pixels: Tensor) -> Tensor:  # [B, T, V, H, W, 3], [B, V, P] -> [B, T, V, P, 3]
    """Predicted offsets at the pixels of the tracks."""
    flat = motion.flatten(3, 4)  # [B, T, V, H*W, 3]
    return flat.gather(3, pixels[:, None, :, :, None].expand(-1, flat.shape[1], -1, -1, 3))


def static_motion_loss(motion: Tensor, kind: str) -> Tensor:  # [B, T, V, H, W, 3] -> [B]
    """Every pixel of a static clip is supervised to zero motion, tracks or not."""
    if kind == "squared":
        still = torch.zeros_like(motion).flatten(1, 4)
        return losses.squared_motion_loss(motion.flatten(1, 4), still, still[..., 0] == 0, MOVING)
    # hypot with a tiny number: the norm has no gradient at zero, where motion starts
    return (motion.square().sum(dim=-1) + 1e-12).sqrt().flatten(1).mean(dim=1)


class VGGTObjective:
    """Depth, points and cameras, as geometry pretraining wants them (VGGT, equation 2)."""

    def __init__(self, config: VGGTObjectiveConfig) -> None:
        self.config = config

    def predict(self, model: VGGT, batch: Batch, generator: torch.Generator | None = None) -> VGGTPrediction:
        """Geometry of the context views, from their images alone."""
        return model(batch.context.images)

    def terms(self, prediction: VGGTPrediction, batch: Batch, generator: torch.Generator | None = None) -> LossTerms:
        """Terms in the world of the first camera and of unit scale, which the batch must be in."""
        context = batch.context
        truth, mask = context.points(), context.depth_mask
        squared = self.config.camera_kind == "squared"
        camera_loss = losses.squared_camera_loss if squared else losses.camera_loss
        values = {
            "depth": losses.log_depth_loss(prediction.depth, context.depth, mask),
            "points": losses.point_loss(prediction.points, truth, mask),
            "cameras": camera_loss(prediction.pose_encodings, pose_encoding(context.cameras)),
        }
        trust = {"depth": batch.depth_weight, "points": batch.depth_weight}
        weights = {name: getattr(self.config, name) * trust.get(name, 1.0) for name in values}
        return LossTerms(values, weights, self._measures(prediction, context))

    @torch.no_grad()
    def _measures(self, prediction: VGGTPrediction, context: Views) -> dict[str, Tensor]:
        cameras, last = prediction.cameras, slice(1, None)  # the first camera is the world itself
        rotation = metrics.rotation_error(cameras.c2w[:, last], context.cameras.c2w[:, last])
        translation = metrics.translation_error(cameras.c2w[:, last], context.cameras.c2w[:, last])
        fov = (cameras.fov() - context.cameras.fov()).abs().rad2deg()
        return {
            "absrel": metrics.absrel(prediction.depth, context.depth, context.depth_mask),
            "rotation": rotation.mean(dim=1),
            "translation": translation.mean(dim=1),
            "fov": fov.mean(dim=(1, 2)),
        }


def load_lpips(paths: Sequence[str], network: str = "vgg") -> LPIPS:
    """LPIPS in a network's features with the weights of one file or several (.safetensors, or .pt of tensors only).

    Raises InputError for a file that cannot be read, and naming the weights that are in none.
    """
    state = {}
    for path in paths:
        file = read_header(path)
        wanted = [name for name in file.entries if name.startswith(("features.", "lin"))]  # its classifier is not
        state |= {name: tensor.clone() for name, tensor in file.tensors(wanted)}
    try:
        return LPIPS.from_state(state, network)
    except InputError as error:
        raise InputError(f"{', '.join(paths)}: {error}") from error


def make_objective(config: MoviesObjectiveConfig | VGGTObjectiveConfig) -> MoviesObjective | VGGTObjective:
    """The objective that belongs to a config."""
    if isinstance(config, VGGTObjectiveConfig):
        return VGGTObjective(config)
    if config.motion_kind not in ("published", "squared") or config.depth_kind not in ("published", "log"):
        raise InputError(f"unknown kind of loss: depth {config.depth_kind!r}, motion {config.motion_kind!r}")
    return MoviesObjective(config)
