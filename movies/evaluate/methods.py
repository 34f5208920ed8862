"""Methods: who answers a case. MoVieS (cameras from a VGGT), D4RT, a folder of predictions, or nobody (`still`)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Clip, Views
from movies.clip import Tracks as ClipTracks
from movies.d4rt.network import D4RT
from movies.d4rt.readouts import Reader, read_depth, read_extrinsics, read_points, read_tracks
from movies.errors import InputError
from movies.evaluate import protocol as protocols
from movies.evaluate.cases import Inputs
from movies.evaluate.predictions import Prediction, check_mark, load_prediction
from movies.geometry import pixel_grid, transform_points, unproject
from movies.model.network import MoVieS, Tokens
from movies.model.vggt import VGGT
from movies.motion import follow_splats, moving_masks, scene_flow, seen_by
from movies.network_world import NetworkWorld, fit_resolution, network_world
from movies.outputs import describe_weights
from movies.reconstruct import choose_device, choose_dtype
from movies.rendering import render
from movies.splats import DynamicSplats
from movies.tracks import Queries, Window


class Method(Protocol):
    """Answers a case from its inputs alone."""

    def describe(self) -> dict:
        """What a report says of it: name, and the digest of everything that decides its answers."""

    def predict(self, inputs: Inputs, wanted: set[str], input_size: int) -> Prediction:
        """The fields in `wanted` that it can answer. `input_size` is the longer side it is to see, 0 for its own."""


MODELS = ("movies", "d4rt", "still")


@dataclass(frozen=True)
class MethodSpec:
    """What a method is opened from, small enough to be sent to every process."""

    weights: str = "tiny"
    camera_weights: str = "tiny"
    model: str = "movies"  # or another of MODELS; d4rt reads cameras from its own answers, still has no weights
    predictions: str = ""  # a folder; nothing is computed then
    device: str = "auto"
    dtype: str = "fp32"
    refine: bool = True  # estimated cameras by the pictures, as movies reconstruct does; d4rt has none to refine

    def open(self, protocol: "protocols.Protocol") -> Method:
        """Raises InputError for weights that do not fit, and for predictions made for another protocol."""
        if self.model not in MODELS:
            raise InputError(f"unknown model {self.model!r}: choose one of {', '.join(MODELS)}")
        if self.predictions:
            return StoredPredictions(Path(self.predictions), check_mark(Path(self.predictions), protocol))
        if self.model == "still":
            return StillMethod()
        place, dtype = choose_device(self.device), choose_dtype(self.dtype)
        if self.model == "d4rt":
            model = D4RT.from_pretrained(self.weights, dtype).to(place).eval()
            return D4RTMethod(model, {"weights": self.weights, "dtype": self.dtype})
        model = MoVieS.from_pretrained(self.weights, dtype=dtype).to(place).eval()
        vggt = VGGT.from_pretrained(self.camera_weights, dtype=dtype).to(place).eval()
        names = {"weights": self.weights, "camera_weights": self.camera_weights, "dtype": self.dtype}
        return MoVieSMethod(model, vggt, names, self.refine)


@dataclass(frozen=True)
class StoredPredictions:
    """Predictions made elsewhere; each file is checked when its case is scored."""

    folder: Path
    name: str

    def describe(self) -> dict:
        return {"name": self.name or "predictions", "folder": self.folder.name}

    def predict(self, inputs: Inputs, wanted: set[str], input_size: int) -> Prediction:
        return load_prediction(self.folder, inputs)


@dataclass(frozen=True)
class MoVieSMethod:
    """MoVieS as `movies reconstruct` runs it, read out at a case's targets, queries and pixels."""

    model: MoVieS
    vggt: VGGT
    names: dict[str, str]
    refine: bool = True

    def describe(self) -> dict:
        networks = {"weights": self.model, "camera_weights": self.vggt}
        digests = {key: describe_weights(model, self.names[key]) for key, model in networks.items()}
        name = f"MoVieS ({self.names['weights']})" + ("" if self.refine else ", cameras not refined")
        return {"name": name, "dtype": self.names["dtype"], "refine": self.refine, **digests}

    @torch.no_grad()
    def predict(self, inputs: Inputs, wanted: set[str], input_size: int) -> Prediction:
        device = next(self.model.parameters()).device
        clip = fit_resolution(clip_of(inputs), input_size or self.model.config.image_size, self.model.config.patch_size)
        images, times = clip.images[None].to(device), clip.times[None].to(device)
        world = network_world(clip, self.vggt(images), device, self.refine)
        tokens = self.model.encode(images, world.cameras[None], times)
        moving = wanted & {"tracks", "flow", "moving"}
        splats = self.model.decode(tokens, times if moving else times[:, :1])
        answer = Readout(inputs, clip, world, splats)
        parts: dict[str, Callable[[], dict[str, Tensor]]] = {
            "images": lambda: {"images": self._images(tokens, inputs, world)},
            "depth": lambda: {"depth": answer.depth()},
            "points": lambda: {"points": answer.points()},
            "c2w": lambda: {"c2w": answer.c2w()},
            "tracks": answer.tracks,
            "flow": lambda: {"flow": answer.flow()},
            "moving": lambda: {"moving": answer.moving()},
        }
        fields = {}
        for name in parts.keys() & wanted:
            fields |= parts[name]()
        return Prediction(**{name: value.cpu() for name, value in fields.items()})

    def _images(self, tokens: Tokens, inputs: Inputs, world: NetworkWorld) -> Tensor:  # [T, 3, H, W]
        """One target time after another: all of a long clip at once would not fit a memory."""
        device = world.cameras.device
        cameras = inputs.target_cameras.to(device).rescaled(1 / world.scale)
        images = torch.zeros(len(cameras), 3, *inputs.target_size)
        for time in inputs.target_times.unique():
            chosen = (inputs.target_times == time).nonzero()[:, 0]
            scene = self.model.decode(tokens, time.reshape(1, 1).to(device)).gaussians()[0, 0]
            images[chosen] = render(scene, cameras[chosen.to(device)], *inputs.target_size).images.cpu()
        return images.clamp(0, 1)


@dataclass(frozen=True)
class D4RTMethod:
    """D4RT asked for every pixel and query. Its unit is its own, so it answers what is compared up to one scale."""

    model: D4RT
    names: dict[str, str]

    def describe(self) -> dict:
        weights = describe_weights(self.model, self.names["weights"])
        return {"name": f"D4RT ({self.names['weights']})", "dtype": self.names["dtype"], "weights": weights}

    @torch.no_grad()
    def predict(self, inputs: Inputs, wanted: set[str], input_size: int) -> Prediction:
        device = next(self.model.parameters()).device
        reader, size = Reader.of(self.model, inputs.images.to(device)), tuple(inputs.images.shape[-2:])
        fields: dict[str, Tensor] = {}
        if "depth" in wanted:
            fields["depth"] = read_depth(reader, *size)[0]
        if "points" in wanted:
            fields["points"] = read_points(reader, *size)[0]
        if "c2w" in wanted:
            fields["c2w"] = read_extrinsics(reader)
        if "tracks" in wanted:
            found = read_tracks(reader, inputs.queries[:, 1:].to(device), inputs.query_frames.to(device))
            fields |= {"tracks": found.points, "visible": found.visible}
        return Prediction(**{name: value.cpu() for name, value in fields.items()})


@dataclass(frozen=True)
class StillMethod:
    """The floor of every task, without a look at the pictures: all lies at depth 1, nothing moves, all is seen.

    Its renderings are the input frames nearest in time. Cameras that stand still have no scale to fit: it gives none.
    """

    def describe(self) -> dict:
        return {"name": "nothing moves"}

    def predict(self, inputs: Inputs, wanted: set[str], input_size: int) -> Prediction:
        cameras, (height, width) = inputs.cameras, inputs.images.shape[-2:]
        depth, lens = torch.ones(len(inputs.times), height, width), cameras.fxfycxcy[inputs.query_frames]  # [P, 4]
        xy = (inputs.queries[:, 1:] - lens[:, 2:]) / lens[:, :2]
        rays = torch.cat([xy, torch.ones(len(xy), 1)], dim=1)  # [P, 3]
        world = transform_points(cameras.c2w[inputs.query_frames], rays[:, None])[:, 0]
        nearest = (inputs.times - inputs.target_times[:, None]).abs().argmin(dim=1)  # [T]
        return Prediction(
            images=clip_of(inputs).views.resized(*inputs.target_size).images[nearest],
            depth=depth,
            tracks=transform_points(cameras.viewmats(), world),
            visible=torch.ones(len(depth), len(world), dtype=torch.bool),
            points=unproject(depth, cameras.fxfycxcy, cameras.c2w),
            flow=torch.zeros(len(depth) - 1, height, width, 3),
            moving=torch.zeros(len(depth), height, width, dtype=torch.bool),
        )


def clip_of(inputs: Inputs) -> Clip:
    blank = torch.zeros(len(inputs.times), *inputs.images.shape[-2:])
    views = Views(inputs.images, inputs.cameras, inputs.times, blank, blank.bool())
    return Clip(views, ClipTracks.empty(len(blank)), len(blank), inputs.has_cameras, name=inputs.name)


@dataclass(frozen=True)
class Readout:
    """Splats at the input frames' times, told in the case's pixels, frame and unit."""

    inputs: Inputs
    clip: Clip  # as the network saw it
    world: NetworkWorld
    splats: DynamicSplats

    @property
    def window(self) -> Window:
        return Window.between(self.inputs.images.shape[-2:], self.inputs.cameras, self.clip.cameras)

    def cameras(self) -> Cameras:  # [V], in the case's unit and with the intrinsics of the case's pictures
        seen = self.world.cameras.rescaled(self.world.scale)
        height, width = self.inputs.images.shape[-2:]
        return Cameras(seen.c2w, self.window.intrinsics(seen.fxfycxcy) / seen.c2w.new_tensor([width, height] * 2))

    def c2w(self) -> Tensor:  # [V, 4, 4]
        return self.cameras().c2w

    def depth(self) -> Tensor:  # [V, H, W]
        return self.at_pixels(self.splats.depth[0][..., None], "bicubic")[..., 0] * self.world.scale

    def points(self) -> Tensor:  # [V, H, W, 3]
        cameras = self.cameras()
        return unproject(self.depth(), cameras.fxfycxcy, cameras.c2w)

    def tracks(self) -> dict[str, Tensor]:  # [V, P, 3] in camera frames, [V, P]
        positions = self.window.positions(self.inputs.queries[:, 1:] * self._size()).clamp(0, 1 - 1e-6)
        queries = Queries(self.inputs.query_frames, positions).to(self.splats.depth.device)
        points, _ = follow_splats(self.splats, queries)
        _, visible = seen_by(points, self.splats.cameras[0], self.splats.depth[0])
        local = transform_points(self.splats.cameras[0].viewmats(), points)
        return {"tracks": local * self.world.scale, "visible": visible}

    def flow(self) -> Tensor:  # [V - 1, H, W, 3]
        return self.at_pixels(scene_flow(self.splats)[:-1], "nearest") * self.world.scale

    def moving(self) -> Tensor:  # [V, H, W] bool
        return self.at_pixels(moving_masks(self.splats)[..., None].float(), "nearest")[..., 0] > 0.5

    def at_pixels(self, values: Tensor, mode: str) -> Tensor:  # [K, h, w, C] of the network -> [K, H, W, C] of the case
        """Resampled to the case's pixels; those that were cropped away for the network repeat its border."""
        height, width = self.inputs.images.shape[-2:]
        places = self.window.positions(pixel_grid(height, width, values.device) * self._size().to(values.device))
        grid = (2 * places - 1).expand(len(values), -1, -1, -1)
        sampled = F.grid_sample(values.movedim(-1, 1), grid, mode, padding_mode="border", align_corners=False)
        return sampled.movedim(1, -1)

    def _size(self) -> Tensor:
        return torch.tensor([self.inputs.images.shape[-1], self.inputs.images.shape[-2]])
