"""The protocols at the size of the fixtures, and folders of answers to them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from movies.evaluate import runner
from movies.evaluate.cases import Case
from movies.evaluate.methods import MethodSpec
from movies.evaluate.predictions import Prediction, prediction_file, write_mark
from movies.evaluate.protocol import Frames, Protocol, load_protocol
from movies.evaluate.readers import open_scenes
from movies.geometry import rigid_inverse, transform_points

Change = Callable[[Prediction, Case], Prediction]
# What makes a protocol small: these scenes have 6 frames of 24x32 pixels (NVIDIA's 12).
SHORT = {
    "dycheck": {"frames": Frames(context=2, clip=3, limit=3, targets="held_out"), "scenes": ("apple",)},
    "nvidia": {"frames": Frames(context=2, clip=12, targets="held_out", margin=5), "scenes": ("Balloon1",)},
    "realestate10k": {"frames": Frames(context=2, clip=3, limit=3, targets="between")},
    "tapvid3d": {"frames": Frames(limit=4)},
    "tapvid3d_minival": {"frames": Frames(limit=4), "scenes": ("adt/video1", "drivetrack/video2")},
    "tapvid3d_13": {"frames": Frames(context=3)},
    "sintel": {"frames": Frames(limit=4), "scenes": ("alley_2",)},
    "kitti_depth": {"frames": Frames(limit=4), "num_scenes": 1},
    "kitti_odometry": {"frames": Frames(limit=4), "scenes": ("00",)},
    "synthetic_worlds": {"options": {"num_clips": 1, "size": 28}, "num_scenes": 2},
    "synthetic_cameras": {"options": {"num_clips": 1, "size": 28}, "num_scenes": 2},
}
SIZES = {"nvidia": (24, 32), "realestate10k": (24, 32)}


def short(name: str) -> Protocol:
    return load_protocol(name).model_copy(update=SHORT[name] | {"image_size": SIZES.get(name, ()), "input_size": 28})


def root_of(data: Path, name: str) -> str:
    return "" if name.startswith("synthetic") else str(data / name)


def perfect(case: Case) -> Prediction:
    """The truth as a prediction. What a dataset does not know is left out."""
    c2w, known = case.context.cameras.c2w, case.context.depth_mask
    fields = {"images": case.target.images, "c2w": c2w, "flow": case.flow, "moving": case.moving}
    if known.any():
        depth = torch.where(known, case.context.depth, case.context.depth[known].max())
        fields |= {"depth": depth, "points": replace(case.context, depth=depth).points()}
    if len(case.tracks):
        fields["tracks"] = transform_points(rigid_inverse(c2w), case.tracks.points.nan_to_num())
        fields["visible"] = case.tracks.visible
    return Prediction(**fields)


def unchanged(prediction: Prediction, case: Case) -> Prediction:
    return prediction


def predict(
    folder: Path, protocol: Protocol, root: str, change: Change = unchanged, scenes: tuple[str, ...] = ()
) -> MethodSpec:
    """A folder of the true answers, each changed."""
    write_mark(folder, protocol)
    for scene in open_scenes(protocol, root, scenes):
        for case in runner.cases_of(scene, protocol):
            change(perfect(case), case).save(prediction_file(folder, case.name))
    return MethodSpec(predictions=str(folder))
