"""LongScene: a scene in segments on disk, of which only those that a moment needs are in memory. docs/long_video.md.

A segment is a scene file of its own, over a stretch of the clip that overlaps with the next one's. In the overlap the
moving Gaussians of one fade out while those of the other fade in; static Gaussians stay for as long as a neighbouring
segment is shown, because what two segments both saw is stored in the earlier one only. Segments of different shots
have worlds of their own and are never shown together.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.files import replacing_file
from movies.gaussians import Gaussians
from movies.scene import Scene4D

INDEX, FORMAT, VERSION = "index.json", "movies-long-scene", 1
HELD = 4  # segments in memory: in an overlap both of it, and the neighbour on either side


@dataclass(frozen=True)
class Segment:
    """A scene file, the shot that it belongs to, and its times from the first to the last of its frames."""

    file: str
    shot: int
    start: float
    end: float


@dataclass(frozen=True)
class LongScene:
    """A scene over times in [0, 1] like Scene4D, read segment by segment. `times` are those of the F frames."""

    folder: Path
    segments: tuple[Segment, ...]  # in order of time
    cameras: Cameras  # [F] of the input frames
    view_times: Tensor  # [F]
    shots: Tensor  # [F] int64
    image_size: tuple[int, int]
    _held: OrderedDict = field(default_factory=OrderedDict, repr=False, compare=False)

    @property
    def times(self) -> Tensor:  # [F]
        return self.view_times

    def at(self, time: float | Tensor) -> Gaussians:
        """The Gaussians [N] at one time, static ones first within each segment; N differs from time to time."""
        parts = []
        for k, (still, moving) in self.weights(float(time)).items():
            segment = self.segment(k)
            parts.append(_faded(segment.static, still))
            if moving > 0:
                parts.append(
                    _faded(replace(segment, static=Gaussians.empty(device=self.cameras.device)).at(time), moving)
                )
        return Gaussians.cat(parts)

    def weights(self, time: float) -> dict[int, tuple[float, float]]:
        """What the opacities of static and moving Gaussians of each segment count at a time; no other is needed."""
        shot = self.shot_at(time)
        own = [k for k, segment in enumerate(self.segments) if segment.shot == shot]
        shown = {k: self._shown(k, own, time) for k in own}
        still = {k: max(shown.get(k + step, 0.0) for step in (-1, 0, 1)) for k in own}
        return {k: (still[k], shown[k]) for k in own if still[k] > 0}

    def _shown(self, k: int, own: list[int], time: float) -> float:
        """1 in a segment's own stretch; in an overlap one reaches 1 by the middle, the other leaves it from there."""
        segment = self.segments[k]
        grown = 1.0 if k == own[0] else _ramp(time - segment.start, self.segments[k - 1].end - segment.start)
        left = 1.0 if k == own[-1] else _ramp(segment.end - time, segment.end - self.segments[k + 1].start)
        return min(grown, left)

    def shot_at(self, time: float) -> int:
        """The shot of the frame nearest in time."""
        return int(self.shots[(self.view_times - time).abs().argmin()])

    def shown_most(self, time: float) -> int:
        """The segment whose moving Gaussians count most at a time, the earlier of equals."""
        weights = self.weights(time)
        return max(weights, key=lambda k: weights[k][1])

    def window(self, time: float) -> Scene4D:
        """The segment shown most at a time as a scene of its own, with the static Gaussians of its neighbours."""
        middle = self.shown_most(time)
        own, shot = self.segment(middle), self.segments[middle].shot
        near = [k for k in (middle - 1, middle + 1) if 0 <= k < len(self.segments) and self.segments[k].shot == shot]
        return replace(own, static=Gaussians.cat([own.static, *(self.segment(k).static for k in near)]))

    def segment(self, k: int) -> Scene4D:
        """A segment; the HELD last used stay in memory."""
        if k not in self._held:
            while len(self._held) >= HELD:
                self._held.popitem(last=False)
            self._held[k] = Scene4D.load(self.folder / self.segments[k].file).to(self.cameras.device)
        self._held.move_to_end(k)
        return self._held[k]

    def to(self, device: torch.device | str) -> "LongScene":
        moved = {name: getattr(self, name).to(device) for name in ("cameras", "view_times", "shots")}
        return replace(self, **moved, _held=OrderedDict())

    def save_index(self) -> None:
        """Write index.json beside the segments."""
        frames = {"c2w": self.cameras.c2w.flatten(1).tolist(), "fxfycxcy": self.cameras.fxfycxcy.tolist()}
        frames |= {"times": self.view_times.tolist(), "shots": self.shots.tolist()}
        index = {"format": FORMAT, "version": VERSION, "image_size": list(self.image_size)}
        index |= {"segments": [vars(segment) for segment in self.segments], "frames": frames}
        with replacing_file(self.folder / INDEX) as temporary:
            temporary.write_text(json.dumps(index) + "\n")

    @staticmethod
    def load(folder: str | Path) -> "LongScene":
        """Read the index of a folder. Raises InputError where there is none, or one that is foreign or newer."""
        folder = Path(folder)
        folder = folder if (folder / INDEX).exists() else folder / "scene"  # as `movies reconstruct` leaves it
        try:
            index = json.loads((folder / INDEX).read_text())
            frames, segments = index["frames"], tuple(Segment(**entry) for entry in index["segments"])
            cameras = Cameras(torch.tensor(frames["c2w"]).reshape(-1, 4, 4), torch.tensor(frames["fxfycxcy"]))
            times, shots, size = torch.tensor(frames["times"]), torch.tensor(frames["shots"]), index["image_size"]
        except FileNotFoundError:
            raise InputError(f"{folder}: no scene there; give a scene.safetensors, or a folder with {INDEX}") from None
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{folder / INDEX}: not the index of a long scene; reconstruct it again") from error
        if index.get("format") != FORMAT or index.get("version", 0) > VERSION:
            raise InputError(f"{folder / INDEX}: of another program, or written by a newer movies; upgrade")
        return LongScene(folder, segments, cameras, times, shots, tuple(size))


def load_scene(path: str | Path) -> Scene4D | LongScene:
    """A scene file, or the folder of a long scene. Raises InputError for anything else."""
    return LongScene.load(path) if Path(path).is_dir() else Scene4D.load(path)


def _ramp(way: float, length: float) -> float:
    """0 to 1 over the first half of `length`."""
    return min(max(2 * way / length, 0.0), 1.0) if length > 0 else float(way >= 0)


def _faded(gaussians: Gaussians, weight: float) -> Gaussians:
    return gaussians if weight == 1 else replace(gaussians, opacities=gaussians.opacities * weight)
