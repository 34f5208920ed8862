"""A protocol: every choice that a number depends on, in one TOML file with a version and a digest.

A published protocol never changes: a change of any choice is a new version. Reports carry id, version and digest, and
only reports that agree in all three are put side by side.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from movies.data.toml_files import Section, read_toml
from movies.errors import InputError

FOLDER = Path(__file__).parent / "protocols"
Task = Literal[
    *("novel_views", "lpips_vgg", "lpips_alex", "tracks", "depth", "boundary", "pose", "points", "flow", "masks"),
    "worlds",
]
PROSE = {"title", "source", "notes"}  # may be corrected without a new version


class Frames(Section):
    """Which frames go in and which are asked for.

    A sequence is cut into clips of `clip` frames (0: one clip, all of it), of its first `limit` frames (0: all), what
    is left over at the end not used. `context` frames go in, evenly over the clip, first and last included (0: all).
    Targets: none; the clip's frames `between` them; or the `held_out` cameras' frames at times within the context,
    none of them in the first and last `margin` frames of the sequence.
    """

    context: int = Field(0, ge=0)
    clip: int = Field(0, ge=0)
    limit: int = Field(0, ge=0)
    targets: Literal["none", "between", "held_out"] = "none"
    margin: int = Field(0, ge=0)


class Depth(Section):
    """How predicted depth is brought to the true one, for all frames of a sequence at once; beyond `largest`: clipped.

    True depth from `largest` on does not count (0: all does).
    """

    alignments: tuple[Literal["none", "median", "scale", "scale_shift"], ...] = ("scale", "scale_shift")
    largest: float = Field(0.0, ge=0)


class Tracks(Section):
    """Frames of reference that tracks are scored in, and radii of the share of points that lie within."""

    frames: tuple[Literal["camera", "world"], ...] = ("camera", "world")
    radii: tuple[float, ...] = (0.05, 0.10)


class Protocol(Section):
    """One protocol. `scenes` names those that are needed (empty: all that are found, `num_scenes` of them if not 0).

    `image_size` [height, width] is what every picture is scaled to ([]: as stored), `input_size` the longer side that a
    network sees (0: its own). Cameras are `given`, or `estimated` by the method and the true ones hidden from it.
    `mask` says which target pixels count besides all of them. A run's mean is over scenes; over groups of scenes (the
    name's first part) and then over these; or, for depth alone, over scenes weighted by their valid pixels.
    """

    id: str
    version: int = Field(ge=1)
    title: str
    source: str
    notes: tuple[str, ...] = ()
    reader: str
    options: dict[str, Any] = Field({})
    scenes: tuple[str, ...] = ()
    num_scenes: int = Field(0, ge=0)
    tasks: tuple[Task, ...] = Field(min_length=1)
    cameras: Literal["given", "estimated"] = "given"
    frames: Frames = Frames()
    image_size: tuple[int, int] | tuple[()] = ()
    input_size: int = Field(0, ge=0)
    mask: Literal["none", "covisible", "moving"] = "none"
    depth: Depth = Depth()
    tracks: Tracks = Tracks()
    average: Literal["scenes", "groups", "pixels"] = "scenes"
    seed: int = 0

    @model_validator(mode="after")
    def _fits_together(self) -> "Protocol":
        if "pose" in self.tasks and self.cameras == "given":
            raise ValueError('the task "pose" needs cameras = "estimated": given cameras are no prediction')
        pictures = [task for task in self.tasks if task.startswith(("novel_views", "lpips"))]
        if pictures and (self.cameras != "given" or self.frames.targets == "none"):
            raise ValueError(f'the task "{pictures[0]}" needs cameras = "given" and frames.targets')
        if {"lpips_vgg", "lpips_alex"} <= set(self.tasks):
            raise ValueError("one of the tasks lpips_vgg and lpips_alex is needed, not both")
        if self.frames.clip and self.frames.context > self.frames.clip:
            raise ValueError(f"frames.context = {self.frames.context} is more than frames.clip = {self.frames.clip}")
        return self

    def choices(self) -> dict[str, Any]:
        """Everything that a number depends on, as JSON has it."""
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in PROSE}

    @property
    def digest(self) -> str:
        """Of all choices, prose left out."""
        return hashlib.sha256(json.dumps(self.choices(), sort_keys=True).encode()).hexdigest()[:16]


def protocol_names() -> list[str]:
    """The ids of the protocols that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_protocol(name: str | Path) -> Protocol:
    """A protocol by its id, or from a TOML file. Raises InputError naming what there is, or the key that is wrong."""
    if str(name) in protocol_names():
        return read_toml(FOLDER / f"{name}.toml", Protocol)
    if not str(name).endswith(".toml"):
        raise InputError(f"no protocol {str(name)!r}: choose one of {', '.join(protocol_names())}, or a .toml file")
    return read_toml(name, Protocol)
