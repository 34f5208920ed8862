"""Camera paths through a long scene, with the time at which each camera looks."""

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.long_scene import LongScene
from movies.trajectories import PATHS, camera_path, focus_depth

STANDING = ("orbit", "hold", "dolly")  # paths that stay in one place


def long_path(
    name: str, scene: LongScene, num_frames: int, time: float | None = None
) -> tuple[Cameras, Tensor]:  # [K], [K]
    """The named path of K cameras and their times: along every shot from first to last, cutting between them.

    A path that stays in one place stays in the segment of `time`, the middle of the clip where it is not given, and
    plays that segment. Raises InputError for an unknown name or K < 1.
    """
    if name in STANDING or name not in PATHS or num_frames < 1:
        window = scene.window(0.5 if time is None else time)
        moments = torch.linspace(float(window.times.min()), float(window.times.max()), max(num_frames, 1))
        return camera_path(name, window, num_frames), moments.to(scene.cameras.device)
    shots = scene.shots.unique().tolist()
    if num_frames < len(shots):
        raise InputError(f"{num_frames} frames cannot show {len(shots)} shots; ask for more")
    bounds = torch.linspace(0, num_frames, len(scene.shots) + 1).round().long()  # of each input frame's share
    paths, times = [], []
    for shot in shots:
        own = (scene.shots == shot).nonzero()[:, 0]
        first, last = int(own[0]), int(own[-1])
        count = max(1, int(bounds[last + 1] - bounds[first]))
        moments = torch.linspace(float(scene.view_times[first]), float(scene.view_times[last]), count)
        focus = focus_depth(scene.window(float(moments[count // 2])))
        paths.append(PATHS[name](scene.cameras[own], count, focus))
        times.append(moments.to(scene.cameras.device))
    cameras = Cameras(torch.cat([p.c2w for p in paths]), torch.cat([p.fxfycxcy for p in paths]))
    return cameras, torch.cat(times)
