"""Cases: what a method is given, and apart from it the truth that its answer is measured against.

World quantities are told in the frame of the first input camera, in the unit of the given cameras.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.clip import Tracks, Views
from movies.errors import InputError
from movies.evaluate.protocol import Frames, Protocol
from movies.geometry import project, rigid_inverse, transform_points
from movies.video import even_indices


@dataclass(frozen=True)
class Inputs:
    """What a method may see: V input frames, T cameras to render, P points to follow. Nothing else reaches it."""

    name: str
    images: Tensor  # [V, 3, H, W]
    times: Tensor  # [V] in [0, 1]
    cameras: Cameras  # [V], the first is the identity; without has_cameras all are, and the lens is a guess
    has_cameras: bool
    target_cameras: Cameras  # [T], T = 0 where nothing is to be rendered
    target_times: Tensor  # [T] in [0, 1]
    target_size: tuple[int, int]
    queries: Tensor  # [P, 3] input frame, x, y (normalised): where each point is first pointed at

    @property
    def query_frames(self) -> Tensor:  # [P] int64
        return self.queries[:, 0].long()


@dataclass(frozen=True)
class Case:
    """One clip of a scene: `inputs` and the truth. What is not known is empty, or False in its mask."""

    inputs: Inputs
    context: Views  # [V] true cameras, first the identity; true depth where there is any
    target: Views  # [T]
    target_mask: Tensor  # [T, H, W] bool: the pixels that the protocol's mask keeps
    tracks: Tracks  # [V, P] of the queried points, in the first camera's frame
    flow: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, 3))  # [V - 1, H, W, 3] to the next frame
    flow_mask: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, dtype=torch.bool))  # [V - 1, H, W] known
    moving: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, dtype=torch.bool))  # [V, H, W]

    @property
    def name(self) -> str:
        return self.inputs.name


@dataclass(frozen=True)
class Windows:
    """A sequence's frames in order: those that a moving camera took and may go in, and those to be rendered."""

    inputs: list[int]
    targets: list[int]
    numbers: list[int]  # when each frame of the sequence was taken


def file_cases(sequence, protocol: Protocol) -> Iterator[Case]:
    """The clips of a sequence as the protocol cuts them. Raises InputError for a sequence that is too short."""
    windows = sequence.windows() if hasattr(sequence, "windows") else _plain(sequence)
    cuts = list(_cut(sequence.name, windows, protocol.frames))
    if not cuts:
        raise InputError(f"{sequence.name}: no clip of it has a frame to render; its held-out frames lie elsewhere")
    for k, (context, targets) in enumerate(cuts):
        name = f"{sequence.name}/clip{k:02d}" if protocol.frames.clip else sequence.name
        yield _read(sequence, name, context, targets, protocol)


def _plain(sequence) -> Windows:
    frames = list(range(sequence.num_frames))
    return Windows(frames, frames, frames)


def _cut(name: str, windows: Windows, rules: Frames) -> Iterator[tuple[list[int], list[int]]]:
    """Input and target frames of each clip."""
    usable = windows.inputs[: rules.limit or None]
    size = rules.clip or len(usable)
    if size > len(usable) or size < max(rules.context, 2):
        raise InputError(f"{name}: {len(usable)} input frames, {max(rules.clip, rules.context, 2)} are needed")
    for start in range(0, len(usable) - size + 1, size):
        clip = usable[start : start + size]
        context = [clip[i] for i in even_indices(size, rules.context or size).tolist()]
        targets = _targets(clip, context, windows, rules)
        if targets or rules.targets == "none":
            yield context, targets


def _targets(clip: list[int], context: list[int], windows: Windows, rules: Frames) -> list[int]:
    if rules.targets == "none":
        return []
    if rules.targets == "between":
        return [i for i in clip if i not in context]
    moments = sorted(set(windows.numbers))
    first = max(windows.numbers[context[0]], moments[min(rules.margin, len(moments) - 1)])
    last = min(windows.numbers[context[-1]], moments[-1 - min(rules.margin, len(moments) - 1)])
    return [i for i in windows.targets if first <= windows.numbers[i] <= last]


def _read(sequence, name: str, context: list[int], targets: list[int], protocol: Protocol) -> Case:
    """Read both sets of frames at the protocol's size and bring them into the first camera's frame and time."""
    views, tracks = sequence.read(context)
    target = sequence.read(targets)[0] if targets else views.select(slice(0, 0))
    masked = targets and protocol.mask != "none"
    masks = sequence.read_masks(targets) if masked else torch.ones(len(target), *target.size, dtype=torch.bool)
    if protocol.image_size:
        views, target = (v.resized(*protocol.image_size) for v in (views, target))
    masks = _at(masks, target.size)
    start, span = views.times[0], (views.times[-1] - views.times[0]).clamp(min=1e-9)
    world_to_first = rigid_inverse(views.cameras.c2w[0])
    views, target = (
        replace(v, cameras=v.cameras.transformed(world_to_first), times=((v.times - start) / span).clamp(0, 1))
        for v in (views, target)
    )
    tracks = Tracks(transform_points(world_to_first, tracks.points), tracks.visible)
    asked = sequence.queries(context) if hasattr(sequence, "queries") else torch.zeros(0, 3)
    return make_case(name, views, target, masks, tracks, protocol.cameras == "given", asked)


def _at(masks: Tensor, size: tuple[int, int]) -> Tensor:  # [T, h, w] -> [T, *size]
    """Masks at the size of the pictures, of the nearest pixel."""
    rows, columns = (((torch.arange(n) + 0.5) * m / n).long() for n, m in zip(size, masks.shape[1:], strict=True))
    return masks[:, rows[:, None], columns]


def make_case(
    name: str, context: Views, target: Views, mask: Tensor, tracks: Tracks, given: bool, asked: Tensor, **truth: Tensor
) -> Case:
    """A case of what is known. `asked` [P, 3] are the dataset's own queries, empty where it leaves them to us.

    Points that no input frame sees cannot be asked for and are left out.
    """
    queries = asked if len(asked) else first_seen(context.cameras, tracks)
    seen = tracks.visible.any(dim=0)
    tracks = Tracks(tracks.points[:, seen], tracks.visible[:, seen])
    cameras = context.cameras if given else hidden(len(context), context.size)
    inputs = Inputs(
        name, context.images, context.times, cameras, given, target.cameras, target.times, target.size, queries[seen]
    )
    return Case(inputs, context, target, mask, tracks, **truth)


def first_seen(cameras: Cameras, tracks: Tracks) -> Tensor:  # [V], [V, P] -> [P, 3]
    """The first frame that sees each point, and where."""
    if not len(tracks):
        return torch.zeros(0, 3)
    frame = tracks.visible.int().argmax(dim=0)  # [P], 0 where never
    points = tracks.points[frame, torch.arange(len(tracks))]  # [P, 3]
    xy, _ = project(points[:, None], cameras.fxfycxcy[frame], cameras.c2w[frame])
    return torch.cat([frame[:, None].float(), xy[:, 0]], dim=-1)


def hidden(num_views: int, size: tuple[int, int]) -> Cameras:  # [V]
    """Cameras that say nothing of the true ones: standing still, a horizontal field of view of 60 degrees."""
    focal = 0.5 / math.tan(math.radians(30))
    fxfycxcy = torch.tensor([focal, focal * size[1] / size[0], 0.5, 0.5]).expand(num_views, 4)
    return Cameras(torch.eye(4).expand(num_views, 4, 4), fxfycxcy)
