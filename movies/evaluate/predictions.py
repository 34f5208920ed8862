"""Predictions: what a method answers to a case's inputs, in memory and as documented npz files (docs/evaluation.md).

World quantities are in the frame of the first input camera; lengths in the unit of the given cameras, or in any where
the method estimates them. What a method does not answer is left out.
"""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from movies.data.readers.files import inside, read_json
from movies.errors import InputError
from movies.evaluate.cases import Inputs
from movies.evaluate.protocol import Protocol
from movies.files import replacing_file
from movies.shapes import check_shape

MARK = "protocol.json"


@dataclass(frozen=True)
class Prediction:
    """Answers to a case with V input frames, T target cameras and P queries; an empty tensor where there is none."""

    images: Tensor = field(default_factory=lambda: torch.zeros(0, 3, 0, 0))  # [T, 3, H, W] in [0, 1] at the targets
    depth: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))  # [V, h, w] z-depth of input frames, any size
    c2w: Tensor = field(default_factory=lambda: torch.zeros(0, 4, 4))  # [V, 4, 4] of the input frames
    tracks: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 3))  # [V, P, 3] in the camera frame of each time
    visible: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))  # [V, P]
    points: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, 3))  # [V, H, W, 3] of every input pixel
    flow: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, 3))  # [V - 1, H, W, 3] to the next frame's time
    moving: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, dtype=torch.bool))  # [V, H, W]

    def has(self, name: str) -> bool:
        return len(getattr(self, name)) > 0

    def checked(self, inputs: Inputs) -> "Prediction":
        """The prediction itself. Raises InputError naming a field of the wrong shape, or how many numbers are NaN."""
        for name, shape in _shapes(inputs).items():
            if not self.has(name):
                continue
            value = getattr(self, name)
            if len(value) != shape[0]:
                raise InputError(f"{inputs.name}: `{name}` has length {len(value)}, the protocol asks for {shape[0]}")
            check_shape(f"{inputs.name}: {name}", value, shape)
            bad = int((~value.isfinite()).sum()) if value.dtype != torch.bool else 0
            if bad:
                raise InputError(f"{inputs.name}: `{name}` holds {bad} of {value.numel()} numbers that are not finite")
        return self

    def save(self, path: Path) -> None:
        """As npz, the fields that there are."""
        arrays = {f.name: getattr(self, f.name).cpu().numpy() for f in fields(self) if self.has(f.name)}
        with replacing_file(path) as temporary:
            np.savez_compressed(temporary, **arrays)


def _shapes(inputs: Inputs) -> dict[str, tuple[int | None, ...]]:
    views, _, height, width = inputs.images.shape
    return {
        "images": (len(inputs.target_times), 3, *inputs.target_size),
        "depth": (views, None, None),
        "c2w": (views, 4, 4),
        "tracks": (views, len(inputs.queries), 3),
        "visible": (views, len(inputs.queries)),
        "points": (views, height, width, 3),
        "flow": (views - 1, height, width, 3),
        "moving": (views, height, width),
    }


def prediction_file(folder: Path, name: str) -> Path:
    return inside(folder, f"{name}.npz")


def load_prediction(folder: Path, inputs: Inputs) -> Prediction:
    """The npz of a case, not yet `checked`. Raises InputError for a missing file and for an unknown array."""
    path = prediction_file(folder, inputs.name)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; this case has no prediction") from error
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as arrays (.npz); pickled objects are never executed") from error
    known = {f.name: f for f in fields(Prediction)}
    unknown = sorted(set(arrays) - set(known))
    if unknown:
        raise InputError(f"{path}: unknown array {unknown[0]!r}; known are {', '.join(known)}")
    return Prediction(**{key: _tensor(key, value) for key, value in arrays.items()})


def _tensor(name: str, array: np.ndarray) -> Tensor:
    """Numbers as float32 (8-bit pictures scaled to [0, 1]), masks as bool."""
    if name in ("visible", "moving"):
        return torch.from_numpy(array.astype(bool))
    values = torch.from_numpy(array.astype(np.float32))
    return values / 255 if name == "images" and array.dtype == np.uint8 else values


def check_mark(folder: Path, protocol: Protocol) -> str:
    """The method's name in the folder's protocol.json. Raises InputError where it was made for another protocol."""
    mark = read_json(folder / MARK)
    for key, wanted in protocol_mark(protocol).items():
        if not isinstance(mark, dict) or mark.get(key) != wanted:
            found = mark.get(key) if isinstance(mark, dict) else None
            raise InputError(
                f"{folder / MARK}: made for {key} {found!r}, the protocol {protocol.id!r} has {wanted!r}; "
                f"write its inputs again (--write-inputs) and predict from these"
            )
    return str(mark.get("method", folder.name))


def protocol_mark(protocol: Protocol) -> dict:
    return {"id": protocol.id, "version": protocol.version, "digest": protocol.digest}


def write_mark(folder: Path, protocol: Protocol) -> None:
    """protocol.json, which goes unchanged (but for `method`, the name to report) into the folder of predictions."""
    with replacing_file(folder / MARK) as temporary:
        temporary.write_text(json.dumps(protocol_mark(protocol) | {"method": ""}, indent=1) + "\n")


def write_inputs(folder: Path, inputs: Inputs) -> None:
    """What a method may see, as npz beside protocol.json: images uint8 [V, 3, H, W], cameras as c2w and fxfycxcy ..."""
    target = inputs.target_cameras
    arrays = {
        "images": (inputs.images * 255).round().byte(),
        "times": inputs.times,
        "target_c2w": target.c2w,
        "target_fxfycxcy": target.fxfycxcy,
        "target_times": inputs.target_times,
        "target_size": torch.tensor(inputs.target_size),
        "queries": inputs.queries,
    }
    if inputs.has_cameras:
        arrays |= {"c2w": inputs.cameras.c2w, "fxfycxcy": inputs.cameras.fxfycxcy}
    with replacing_file(prediction_file(folder, inputs.name)) as temporary:
        np.savez_compressed(temporary, **{key: value.numpy() for key, value in arrays.items()})


def only(prediction: Prediction, wanted: set[str]) -> Prediction:
    """The fields that a protocol's tasks ask for; the rest need be neither right nor finite."""
    return replace(Prediction(), **{name: getattr(prediction, name) for name in wanted})
