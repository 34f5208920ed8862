"""Scenes made smaller: pruned, merged and cropped, with what that costs in PSNR measured on the input views."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.geometry import rigid_inverse, transform_points
from movies.merging import merge
from movies.novel_views import clip_at, psnr_of_views, render_path
from movies.rendering import render
from movies.scene import Scene4D
from movies.trajectories import camera_path, time_path

UNSEEN = 1 / 255  # of one pixel, summed over all views: what weighs less changes no picture of 8 bits
CELLS = (3.0, 2.0, 1.5, 1.0)  # of `merge`, in footprints, tried from the coarsest
MERGE_SHARE = 0.5  # of the loss allowed, the rest is left to pruning
BISECTIONS = 7
NOVEL_FRAMES = 12


@dataclass(frozen=True)
class Stage:
    """A scene on its way to a smaller one, as a line of the report. Losses are in dB."""

    name: str
    num_static: int
    num_moving: int
    num_bytes: int
    input_psnr: float  # of the input views, to the clip's frames
    loss: float  # of that, against the scene at the start
    novel_loss: float  # expected at novel views, see `_Judge`


def simplify_file(
    path: str | Path,
    out: str | Path,
    clip: str | Path | None = None,
    max_loss: float = 0.5,
    budget: int | None = None,
) -> list[Stage]:
    """`simplify` of a scene file into another; the clip is `input.mp4` beside the scene where none is given.

    Raises InputError for a scene that does not know its size, no clip, and a folder where the file should be.
    """
    if Path(out).is_dir():
        raise InputError(f"{out}: a folder; give the file to write, such as {Path(out) / 'scene.safetensors'}")
    scene = Scene4D.load(path)
    frames = Path(path).parent / "input.mp4" if clip is None else Path(clip)
    if clip is None and not frames.exists():
        raise InputError(f"{path}: no input.mp4 lies beside it to measure the loss on; give the clip with --input")
    if not scene.image_size[0]:
        raise InputError(f"{path}: the scene does not know the size of its input views; reconstruct it again")
    images = clip_at(frames, scene.view_times, scene.image_size) / 255
    device = "cuda" if torch.cuda.is_available() else "cpu"
    smaller, stages = simplify(scene.to(device), images, max_loss, budget)
    smaller.save(out)
    return stages


def simplify(
    scene: Scene4D, images: Tensor, max_loss: float = 0.5, budget: int | None = None
) -> tuple[Scene4D, list[Stage]]:  # [V, 3, H, W]
    """The smallest scene found that loses at most `max_loss` dB, and how it came about.

    The loss is that of the input views' PSNR to `images`, and that expected at novel views. What no view sees is left
    out; near-duplicates are merged, as coarsely as half of the loss allows; then the Gaussians that weigh least in the
    views are left out, as many as the rest allows. With a `budget` the heaviest so many are kept instead, whatever
    that loses. Raises InputError for a loss below zero and a budget below one.
    """
    if not max_loss >= 0 or (budget is not None and budget < 1):
        raise InputError(f"the loss must be at least 0 and the budget at least 1, got {max_loss:g} and {budget}")
    judge = _Judge(scene, images)
    stages = [judge.stage("as it was", scene)]
    scene = scene.select(judge.weights(scene) >= UNSEEN)
    stages.append(judge.stage("unseen left out", scene))
    scene = _merged(scene, judge, max_loss if budget else MERGE_SHARE * max_loss)
    stages.append(judge.stage("merged", scene))
    scene = _pruned(scene, judge, max_loss) if budget is None else prune(scene, budget, judge.weights(scene))
    return scene, [*stages, judge.stage("pruned", scene)]


def prune(scene: Scene4D, budget: int, weights: Tensor) -> Scene4D:  # [S + M]
    """The `budget` heaviest Gaussians; of equal ones the first."""
    kept = torch.zeros(len(scene), dtype=torch.bool, device=weights.device)
    kept[weights.sort(descending=True, stable=True).indices[:budget]] = True
    return scene.select(kept)


def prune_transparent(scene: Scene4D, opacity: float) -> Scene4D:
    """The scene without the Gaussians at or below an opacity at all stored times."""
    return scene.select(torch.cat([scene.static.opacities, scene.moving.opacities.amax(dim=0)]) > opacity)


def seen_weights(
    scene: Scene4D, cameras: Cameras, times: Tensor, size: tuple[int, int]
) -> Tensor:  # [K], [K] -> [S + M]
    """How many pixels each Gaussian fills: its blending weights summed over all pixels of K views.

    The weight is how much the sum of a picture changes with the Gaussian's colour.
    """
    weights = scene.times.new_zeros(len(scene))
    for camera, time in zip(cameras, times, strict=True):
        now = scene.at(time)
        colors = now.colors.detach().clone().requires_grad_()
        red = render(replace(now, colors=colors), camera, *size).images[0]
        weights += torch.autograd.grad(red.sum(), colors)[0][:, 0]
    return weights


class _Judge:
    """Compares scenes with the clip on the input views, and with the scene at the start on novel views.

    Nobody knows the truth of novel views. With e the error of the input views at the start and d what has changed of
    the novel views since, mean squares, a loss of 10 log10(1 + d / e) is expected: as if d were noise on top of e.
    """

    def __init__(self, scene: Scene4D, images: Tensor) -> None:  # [V, 3, H, W]
        self.images, self.size = images.cpu(), tuple(images.shape[-2:])
        path, moments = camera_path("spiral", scene, NOVEL_FRAMES), time_path("play", NOVEL_FRAMES)
        self.novel_views = path, moments.to(scene.times.device)
        self.novel = self._novel(scene)
        self.start = self._psnr(scene)

    def weights(self, scene: Scene4D) -> Tensor:  # -> [S + M]
        """In the input views, at their own times and half a clip away, and in novel views."""
        times, half = scene.view_times, scene.view_times.roll(len(scene.view_times) // 2)
        views = [(scene.cameras, times), (scene.cameras, half), self.novel_views]
        return sum(seen_weights(scene, *view, self.size) for view in views)

    def loss(self, scene: Scene4D) -> float:
        """The larger of both, in dB."""
        return max(self.start - self._psnr(scene), self._novel_loss(scene))

    def stage(self, name: str, scene: Scene4D) -> Stage:
        counts, quality = (len(scene.static), len(scene.moving), scene.num_bytes), self._psnr(scene)
        return Stage(name, *counts, quality, self.start - quality, self._novel_loss(scene))

    def _psnr(self, scene: Scene4D) -> float:
        return float(psnr_of_views(scene, self.images, scene.cameras, scene.view_times).mean())

    def _novel(self, scene: Scene4D) -> Tensor:  # [K, 3, H, W]
        return torch.stack(list(render_path(scene, *self.novel_views, self.size, what="novel views")))

    def _novel_loss(self, scene: Scene4D) -> float:
        changed = float((self._novel(scene) - self.novel).square().mean())
        return 10 * math.log10(1 + changed / max(10 ** (-self.start / 10), 1e-12))


def _merged(scene: Scene4D, judge: _Judge, max_loss: float) -> Scene4D:
    """Merged in the coarsest cells that the loss allows, or as it was."""
    for cell in CELLS:
        merged = merge(scene, cell, judge.size)
        if judge.loss(merged) <= max_loss:
            return merged
    return scene


def _pruned(scene: Scene4D, judge: _Judge, max_loss: float) -> Scene4D:
    """As few of the heaviest Gaussians as the loss allows, found by bisection."""
    weights = judge.weights(scene)
    fewest, enough, best = 0, len(scene), scene
    for _ in range(BISECTIONS):
        middle = (fewest + enough) // 2
        pruned = prune(scene, middle, weights)
        if judge.loss(pruned) <= max_loss:
            enough, best = middle, pruned
        else:
            fewest = middle
    return best


def crop_box(scene: Scene4D, low: Tensor, high: Tensor, frame: Tensor | None = None) -> Scene4D:  # [3], [3], [4, 4]
    """The Gaussians whose centres lie in a box, corners included, at any stored time (of what moves).

    The box is in the world, or in the axes of `frame`, such as a camera's c2w. Raises InputError for an empty box.
    """
    if not (low <= high).all():
        raise InputError(f"the box is empty: its low corner {low.tolist()} must not lie above {high.tolist()}")
    return _cropped(scene, lambda points: ((points >= low) & (points <= high)).all(dim=-1), frame)


def crop_sphere(scene: Scene4D, center: Tensor, radius: float, frame: Tensor | None = None) -> Scene4D:  # [3], [4, 4]
    """The Gaussians whose centres lie in a sphere at any stored time, as `crop_box`."""
    if not radius > 0:
        raise InputError(f"the radius must be above 0, got {radius:g}")
    return _cropped(scene, lambda points: (points - center).norm(dim=-1) <= radius, frame)


def _cropped(scene: Scene4D, inside: Callable[[Tensor], Tensor], frame: Tensor | None) -> Scene4D:
    def kept(means: Tensor) -> Tensor:  # [..., N, 3] -> [..., N]
        return inside(means if frame is None else transform_points(rigid_inverse(frame), means))

    return scene.select(torch.cat([kept(scene.static.means), kept(scene.moving.means).any(dim=0)]))


def crop_file(
    path: str | Path, out: str | Path, box: str | None = None, sphere: str | None = None, view: int | None = None
) -> tuple[Scene4D, Scene4D]:
    """Crop a scene file to `box` x0,y0,z0,x1,y1,z1 or `sphere` x,y,z,radius; returns the scenes before and after.

    The numbers are in the world, or in the axes of input camera `view`. Raises InputError unless there is one of the
    two, for what cannot be read, a view that is not there, and where nothing is left.
    """
    if (box is None) == (sphere is None):
        raise InputError("give a box or a sphere, one of them")
    if Path(out).is_dir():
        raise InputError(f"{out}: a folder; give the file to write, such as {Path(out) / 'scene.safetensors'}")
    numbers = _numbers(box, 6, "box") if box is not None else _numbers(sphere, 4, "sphere")
    scene = Scene4D.load(path)
    if view is not None and not 0 <= view < len(scene.cameras):
        raise InputError(f"{path}: no view {view}; the scene has {len(scene.cameras)}, counted from 0")
    frame = None if view is None else scene.cameras.c2w[view]
    if box is not None:
        cropped = crop_box(scene, numbers[:3], numbers[3:], frame)
    else:
        cropped = crop_sphere(scene, numbers[:3], float(numbers[3]), frame)
    if not len(cropped):
        raise InputError(f"{path}: no Gaussian lies there; the scene's centres reach from {_reach(scene)}")
    cropped.save(out)
    return scene, cropped


def _numbers(text: str, count: int, name: str) -> Tensor:  # -> [count]
    try:
        numbers = torch.tensor([float(word) for word in text.split(",")])
    except ValueError:
        numbers = torch.zeros(0)
    if len(numbers) != count or not numbers.isfinite().all():
        raise InputError(f"{name} {text!r}: {count} numbers with commas between are needed")
    return numbers


def _reach(scene: Scene4D) -> str:
    means = torch.cat([scene.static.means, scene.moving.means.flatten(0, 1)])
    low, high = (", ".join(f"{x:.3g}" for x in corner) for corner in (means.amin(dim=0), means.amax(dim=0)))
    return f"({low}) to ({high})"
