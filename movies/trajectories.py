"""Camera paths through a scene, made from the input cameras, and how the clip's time runs along a path.

Every path takes the input cameras [V] and a number of frames K and gives Cameras [K]. `focus` is the z-depth, in world
units, of what the camera should look at; `focus_depth` finds it in a scene. A time map is a list of keyframes (position
along the path, time of the clip), both from 0 to 1, with straight lines between.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.geometry import look_at, matrix_to_quaternion, project, quaternion_lerp, quaternion_to_matrix, rigid
from movies.scene import Scene4D, check_times

ORBIT_DEGREES = 10.0  # how far an orbit swings to each side; beyond, what no input view saw comes into sight
SPIRAL_RADIUS, SPIRAL_TURNS = 0.08, 2  # in focus depths
DOLLY_REACH = 0.3  # of the focus depth
BULLET_STANDS = 0.4  # of the path
SLOW_WINDOW, SLOW_SHARE = 0.3, 0.6  # so much of the clip takes so much of the path: half speed


def hold(cameras: Cameras, num_frames: int, focus: float) -> Cameras:
    """The first camera stands still."""
    return _repeated(cameras[:1], num_frames)


def interpolate(cameras: Cameras, num_frames: int, focus: float = 1.0) -> Cameras:
    """Straight between the cameras, in order: centres and intrinsics linearly, rotations along the shorter arc."""
    position = torch.linspace(0, len(cameras) - 1, num_frames, device=cameras.device)
    before = position.floor().long().clamp(max=max(len(cameras) - 2, 0))
    after = (before + 1).clamp(max=len(cameras) - 1)
    weight = (position - before)[:, None]
    quats = matrix_to_quaternion(cameras.c2w[:, :3, :3])
    rotation = quaternion_to_matrix(quaternion_lerp(quats[before], quats[after], weight))
    centers = torch.lerp(cameras.centers[before], cameras.centers[after], weight)
    return Cameras(rigid(rotation, centers), torch.lerp(cameras.fxfycxcy[before], cameras.fxfycxcy[after], weight))


def follow(cameras: Cameras, num_frames: int, focus: float) -> Cameras:
    """The input cameras' own path with the shake of the hand taken out (a running mean over three of them)."""
    return interpolate(_smoothed(cameras), num_frames)


def orbit(cameras: Cameras, num_frames: int, focus: float) -> Cameras:
    """A circle around the middle camera's place, always looking at what lies before it at focus depth."""
    base = _repeated(cameras[len(cameras) // 2][None], num_frames)
    angle = torch.linspace(0, 2 * math.pi, num_frames + 1, device=cameras.device)[:-1]  # the video loops
    reach = focus * math.tan(math.radians(ORBIT_DEGREES))
    offset = torch.stack([reach * angle.sin(), 0.4 * reach * (angle.cos() - 1), torch.zeros_like(angle)], dim=-1)
    return _looking(base, offset, focus)


def spiral(cameras: Cameras, num_frames: int, focus: float) -> Cameras:
    """The input path, smoothed, with circles around it, looking at focus depth."""
    angle = torch.linspace(0, 2 * math.pi * SPIRAL_TURNS, num_frames, device=cameras.device)
    radius = SPIRAL_RADIUS * focus * (angle / 2).clamp(max=1)  # starts on the input path
    offset = torch.stack([angle.sin(), 0.6 * (1 - angle.cos()), 0.3 * angle.sin()], dim=-1) * radius[:, None]
    return _looking(follow(cameras, num_frames, focus), offset, focus)


def dolly(cameras: Cameras, num_frames: int, focus: float) -> Cameras:
    """The middle camera moves towards the scene and back."""
    base = _repeated(cameras[len(cameras) // 2][None], num_frames)
    forward = DOLLY_REACH * focus * torch.linspace(0, math.pi, num_frames, device=cameras.device).sin()
    return Cameras(rigid(base.c2w[:, :3, :3], base.centers + forward[:, None] * base.c2w[:, :3, 2]), base.fxfycxcy)


PATHS = {
    "orbit": orbit,
    "spiral": spiral,
    "hold": hold,
    "follow": follow,
    "interpolate": interpolate,
    "dolly": dolly,
}


def camera_path(name: str, scene: Scene4D, num_frames: int) -> Cameras:
    """The named path [K] through a scene, from its input cameras. Raises InputError for an unknown name or K < 1."""
    if name not in PATHS:
        raise InputError(f"unknown camera path {name!r}: choose one of {', '.join(PATHS)}")
    if num_frames < 1:
        raise InputError(f"the number of frames must be at least 1, got {num_frames}")
    return PATHS[name](scene.cameras, num_frames, focus_depth(scene))


Keyframes = list[tuple[float, float]]


def bullet(moment: float) -> Keyframes:
    """Plays to the moment, stands still while the camera goes on, and plays to the end."""
    before = (1 - BULLET_STANDS) * moment
    return [(0, 0), (before, moment), (before + BULLET_STANDS, moment), (1, 1)]


def slow(moment: float) -> Keyframes:
    """Slow about the moment, faster before and after."""
    begin = min(max(moment - SLOW_WINDOW / 2, 0), 1 - SLOW_WINDOW)
    before = (1 - SLOW_SHARE) * begin / (1 - SLOW_WINDOW)
    return [(0, 0), (before, begin), (before + SLOW_SHARE, begin + SLOW_WINDOW), (1, 1)]


TIME_MAPS: dict[str, Callable[[float], Keyframes]] = {
    "play": lambda moment: [(0, 0), (1, 1)],
    "freeze": lambda moment: [(0, moment)],
    "slow": slow,
    "bullet": bullet,
    "boomerang": lambda moment: [(0, 0), (0.5, 1), (1, 0)],
}
OF_A_MOMENT = ("freeze", "slow", "bullet")


def time_path(name: str, num_frames: int, moment: float | None = None) -> Tensor:  # -> [K]
    """The clip's time at every frame of a path: `name` is one of TIME_MAPS, or keyframes as `0:0,0.5:0.5,1:1`.

    `moment` (the middle of the clip where not given) is what freeze, slow and bullet are about. Raises InputError for
    an unknown name, malformed keyframes, times outside [0, 1], and a moment for a map that is about none.
    """
    if moment is not None and name not in OF_A_MOMENT:
        raise InputError(f"a time belongs to the time maps {', '.join(OF_A_MOMENT)}, not to {name!r}")
    moment = 0.5 if moment is None else moment
    check_times(torch.tensor([moment]))
    keyframes = TIME_MAPS[name](moment) if name in TIME_MAPS else _keyframes(name)
    positions, times = np.array(keyframes, dtype=np.float64).T
    return torch.from_numpy(np.interp(np.linspace(0, 1, num_frames), positions, times)).float()


def _keyframes(text: str) -> Keyframes:
    try:
        keyframes = [tuple(float(number) for number in pair.split(":")) for pair in text.split(",")]
        positions, times = (list(column) for column in zip(*keyframes, strict=True))
    except ValueError:
        known = ", ".join(TIME_MAPS)
        raise InputError(f"unknown time map {text!r}: choose one of {known}, or keyframes as 0:0,0.5:0.5,1:1") from None
    rising = all(a < b for a, b in itertools.pairwise(positions))
    if not (positions[0] >= 0 and positions[-1] <= 1 and rising):
        raise InputError(f"time map {text!r}: positions along the path must rise from 0 to 1")
    check_times(torch.tensor(times))
    return keyframes


def focus_depth(scene: Scene4D) -> float:
    """Median z-depth of what the middle input camera sees at its time; 1 where it sees nothing."""
    middle = len(scene.cameras) // 2
    camera = scene.cameras[middle]
    positions, z = project(scene.at(scene.view_times[middle]).means, camera.fxfycxcy, camera.c2w)
    seen = ((positions >= 0) & (positions <= 1)).all(dim=-1) & (z > 0)
    return float(z[seen].median()) if seen.any() else 1.0


def _repeated(cameras: Cameras, num_frames: int) -> Cameras:  # [1] -> [K]
    return cameras[torch.zeros(num_frames, dtype=torch.long, device=cameras.device)]


def _smoothed(cameras: Cameras) -> Cameras:
    """Centres and quaternions averaged with their neighbours'; the ends stay."""
    if len(cameras) < 3:
        return cameras
    quats = matrix_to_quaternion(cameras.c2w[:, :3, :3])
    middle = quats[1:-1]
    aligned = [torch.where((q * middle).sum(-1, keepdim=True) < 0, -q, q) for q in (quats[:-2], quats[2:])]
    quats = torch.cat([quats[:1], middle + sum(aligned), quats[-1:]])
    centers = cameras.centers
    centers = torch.cat([centers[:1], (centers[:-2] + centers[1:-1] + centers[2:]) / 3, centers[-1:]])
    return Cameras(rigid(quaternion_to_matrix(quats), centers), cameras.fxfycxcy)


def _looking(base: Cameras, offset: Tensor, focus: float) -> Cameras:  # [K], [K, 3] in camera axes
    """Cameras moved by `offset` that look at the point `focus` before their base."""
    rotation = base.c2w[:, :3, :3]
    eye = base.centers + (rotation @ offset[..., None])[..., 0]
    return Cameras(look_at(eye, base.centers + focus * rotation[:, :, 2], rotation[:, :, 1]), base.fxfycxcy)
