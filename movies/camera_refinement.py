"""Estimated cameras refined by the pictures: each view is warped into others through its depth, and has to fit there.

Direct, dense alignment (as in Engel et al. 2018, with the depth of a network for a start): Levenberg-Marquardt over all
cameras but the first, and over a coarse grid of log-depth corrections in every view, which takes up what is wrong with
the depth. The Geman-McClure weight lets go of what moves, is hidden or shines. Focal lengths stay: hand-held clips do
not determine them. Lengths stay those of the depth.
"""

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.cameras import Cameras
from movies.geometry import pixel_rays, rigid, rigid_inverse
from movies.shapes import check_shape

SIDES = (28, 56)  # longer sides of the pictures that are aligned, one after another
STEPS = 20  # at most, of each
GRID = 4  # depth corrections across and down a view
SAMPLES = 24_000  # pixels warped in a step, of all pairs together: the time does not grow with the views
DEPTH_PRIOR = 1.0  # of squared log corrections, against the share of a picture that is not explained
GAIN = 0.95  # of what the start leaves unexplained: a smaller one is not worth other cameras
FLAT = 0.01  # contrast below which pictures show nothing to align


@dataclass(frozen=True)
class Refinement:
    """What was done, and the share of the pictures left unexplained: 0 for none of it, NaN where nothing was tried."""

    said: str = "not refined"
    before: float = math.nan
    after: float = math.nan
    seconds: float = 0.0


NOT_REFINED = Refinement()


@dataclass(frozen=True)
class Level:
    """The views at one size, and the pixels of them that are warped."""

    maps: Tensor  # [V, 9, h, w] colours, and their slopes along x and y over the whole picture
    colors: Tensor  # [V, 3, N] of the pixels
    rays: Tensor  # [V, N, 3] in the view's camera, at the network's depth
    basis: Tensor  # [N, GRID^2] how much of each correction a pixel takes
    lens: Tensor  # [V, 4]
    source: Tensor  # [P] views that are warped
    target: Tensor  # [P] views that they are warped into


@dataclass(frozen=True)
class Guess:
    """What is sought."""

    c2w: Tensor  # [V, 4, 4]
    shape: Tensor  # [V, GRID^2] log-depth corrections

    def moved(self, step: Tensor) -> "Guess":  # [V, 6 + GRID^2]: turn and shift in each camera's axes, corrections
        turn = torch.linalg.matrix_exp(_cross_matrix(step[:, :3]))
        return Guess(self.c2w @ rigid(turn, step[:, 3:6]), self.shape + step[:, 6:])

    def penalty(self) -> Tensor:  # []
        return 0.5 * DEPTH_PRIOR * self.shape.square().mean()


@dataclass(frozen=True)
class Match:
    """All pairs' pixels where a guess puts them."""

    cost: float  # mean over the pixels inside of the other view
    overlap: float  # share of the pixels that are
    scale: Tensor  # [] squared colour difference that counts as half explained
    weights: Tensor  # [P, N]
    residuals: Tensor  # [P, 3, N]
    slopes: Tensor  # [P, 2, 3, N]


@torch.no_grad()
def refined_cameras(images: Tensor, depth: Tensor, cameras: Cameras) -> tuple[Cameras, Refinement]:
    """Cameras [V] that explain images [V, 3, H, W] in [0, 1] better through depth [V, H, W]; the first stays.

    Where none are found the very cameras given come back, and the refinement says why.
    """
    check_shape("depth", depth, (len(cameras), *images.shape[2:]))
    started = time.perf_counter()
    if len(cameras) < 2:
        return cameras, Refinement("not refined: one frame")
    if not float(images.std(dim=(2, 3)).mean()) > FLAT:
        return cameras, Refinement("not refined: the pictures show nothing to align")
    start = Guess(cameras.c2w, depth.new_zeros(len(cameras), GRID**2))
    guess = start
    for side in SIDES:
        level = make_level(images, depth, cameras.fxfycxcy, side)
        guess, scale = _descend(level, guess)
    before, after = (matched(level, x, scale) for x in (start, guess))
    sound = after.overlap > 0.5 * before.overlap and bool(guess.c2w.isfinite().all())
    better = sound and after.cost < GAIN * before.cost
    said = "refined" if better else "not refined: no other cameras explain the pictures clearly better"
    found = Refinement(said, before.cost, after.cost, round(time.perf_counter() - started, 3))
    return _in_units_of(cameras, guess) if better else cameras, found


def _in_units_of(cameras: Cameras, guess: Guess) -> Cameras:  # [V]
    """The guess with lengths of the depth as it was given; the first camera is where it was."""
    c2w, first = guess.c2w.clone(), guess.c2w[0, :3, 3]
    c2w[:, :3, 3] = first + (c2w[:, :3, 3] - first) * torch.exp(-guess.shape.mean())
    return Cameras(c2w, cameras.fxfycxcy)


def make_level(images: Tensor, depth: Tensor, lens: Tensor, side: int) -> Level:  # [V, 3, H, W], [V, H, W], [V, 4]
    """The views with a longer side of `side`, or as they are where they are smaller."""
    num_views, _, height, width = images.shape
    shrink = min(1.0, side / max(height, width))
    size = max(2, round(height * shrink)), max(2, round(width * shrink))
    colors = F.interpolate(images, size, mode="area")
    colors = colors / colors.std()
    near = F.interpolate(1 / depth[:, None].clamp(min=1e-6), size, mode="area")[:, 0]  # [V, h, w]
    grid = torch.eye(GRID**2, device=depth.device, dtype=depth.dtype).unflatten(1, (1, GRID, GRID))
    basis = F.interpolate(grid, size, mode="bilinear", align_corners=True).flatten(1).T  # [hw, GRID^2]
    source, target = _pairs(num_views)
    pixels = torch.randperm(size[0] * size[1], generator=torch.Generator().manual_seed(0))
    pixels = pixels[: max(64, SAMPLES // len(source))].to(depth.device)
    rays = (pixel_rays(lens, *size) / near[..., None]).flatten(1, 2)
    maps = torch.cat([colors, _slopes(colors, 3), _slopes(colors, 2)], dim=1)
    where = (x.to(depth.device) for x in (source, target))
    return Level(maps, colors.flatten(2)[..., pixels], rays[:, pixels], basis[pixels], lens, *where)


def _slopes(colors: Tensor, dim: int) -> Tensor:  # [V, 3, h, w] -> [V, 3, h, w]
    """Central differences, per width or height of the picture."""
    return torch.gradient(colors, dim=dim)[0] * colors.shape[dim]


def _pairs(num_views: int) -> tuple[Tensor, Tensor]:  # [P], [P]
    """Views 1, 2, 4, ... apart, both ways: near ones match easily, far ones keep errors from adding up."""
    views, gaps = range(num_views), [2**k for k in range(num_views.bit_length())]
    ahead = torch.tensor([(v, v + gap) for gap in gaps for v in views if v + gap < num_views])
    return torch.cat([ahead, ahead.flip(1)]).unbind(dim=1)


def warp(level: Level, guess: Guess) -> tuple[Tensor, Tensor, Tensor]:  # [P, N, 2], [P, N, 3] each
    """Where pixels appear in the other view (normalised), and their points in its camera and in their own."""
    own = level.rays * (guess.shape @ level.basis.T).exp()[..., None]  # [V, N, 3]
    own = own[level.source]
    there = _between(level, guess)
    points = own @ there[:, :3, :3].transpose(1, 2) + there[:, None, :3, 3]
    lens = level.lens[level.target][:, None]  # [P, 1, 4]
    return points[..., :2] / points[..., 2:].clamp(min=1e-3) * lens[..., :2] + lens[..., 2:], points, own


def warp_jacobian(level: Level, guess: Guess) -> Tensor:  # [P, N, 2, 6 + GRID^2 + 6]
    """Derivatives of the positions of `warp` by `Guess.moved` of the source view and the camera of the target view."""
    _, points, own = warp(level, guess)
    turn = _between(level, guess)[:, None, :3, :3]  # [P, 1, 3, 3]
    inverse, focal = 1 / points[..., 2].clamp(min=1e-3), level.lens[level.target][:, None, :2]
    across = torch.zeros(*inverse.shape, 2, 3, device=inverse.device, dtype=inverse.dtype)  # by the point
    across[..., 0, 0], across[..., 1, 1] = (focal * inverse[..., None]).unbind(-1)
    across[..., 2] = -focal * points[..., :2] * inverse[..., None].square()
    moved = across @ turn  # by the point in the source's camera
    corrections = (moved @ own[..., None]) * level.basis[:, None]  # a point moves along its ray
    own, points = own[..., None, :].expand_as(moved), points[..., None, :].expand_as(across)
    source = [torch.linalg.cross(own, moved), moved, corrections]
    return torch.cat([*source, torch.linalg.cross(across, points), -across], dim=-1)


def _between(level: Level, guess: Guess) -> Tensor:  # [P, 4, 4] from the source's camera to the target's
    return rigid_inverse(guess.c2w)[level.target] @ guess.c2w[level.source]


def _cross_matrix(x: Tensor) -> Tensor:  # [V, 3] -> [V, 3, 3]
    axes = torch.eye(3, device=x.device, dtype=x.dtype).expand(len(x), 3, 3)
    return torch.linalg.cross(axes, x[:, None].expand_as(axes))


def matched(level: Level, guess: Guess, scale: Tensor | None = None) -> Match:
    """The pixels' colours against those where they appear. `scale` by default comes from the guess itself."""
    positions, points, _ = warp(level, guess)
    half = 0.5 / positions.new_tensor([level.maps.shape[3], level.maps.shape[2]])
    inside = ((positions > half) & (positions < 1 - half)).all(dim=-1) & (points[..., 2] > 1e-2)  # [P, N]
    grid = (2 * positions - 1).clamp(-2, 2)[:, None]
    found = F.grid_sample(level.maps[level.target], grid, align_corners=False, padding_mode="border")[:, :, 0]
    residuals = found[:, :3] - level.colors[level.source]
    error = residuals.square().mean(dim=1)  # [P, N]
    if scale is None:
        scale = 2 * error[inside].median().clamp(min=1e-6) if inside.any() else error.new_tensor(1.0)
    count = inside.sum().clamp(min=1)
    weights = inside * scale / (error + scale).square() / count
    cost = float((error / (error + scale) * inside).sum() / count) if inside.any() else 1.0
    slopes = found[:, 3:].unflatten(1, (2, 3))
    return Match(cost, float(inside.float().mean()), scale, weights, residuals, slopes)


def _descend(level: Level, guess: Guess) -> tuple[Guess, Tensor]:
    """Steps while they help; the guess, and the scale at which they were judged."""
    match, damping = matched(level, guess), 1e-3
    for _ in range(STEPS):
        matrix, vector = _normal_equations(level, guess, match)
        value = 0.5 * match.cost + guess.penalty()
        for _ in range(4):
            damped = matrix + damping * torch.diag(matrix.diagonal() + 1e-6)
            step = torch.zeros(len(guess.c2w), 6 + GRID**2, dtype=torch.float64, device=vector.device)
            step.view(-1)[6:] = -torch.linalg.solve(damped[6:, 6:], vector[6:])  # the first camera stays
            moved = guess.moved(step.to(guess.c2w.dtype))
            trial = matched(level, moved, match.scale)
            gain = float(value - 0.5 * trial.cost - moved.penalty())
            if gain > 0 and trial.overlap > 0.7 * match.overlap:
                break
            damping *= 8
        else:
            break
        small = gain < 1e-4 * match.cost
        guess, match, damping = moved, trial, max(damping / 5, 1e-5)
        if small:
            break
    return guess, match.scale


def _normal_equations(level: Level, guess: Guess, match: Match) -> tuple[Tensor, Tensor]:  # [D, D], [D] float64
    """Gauss-Newton matrix and gradient of the weighted squares and the penalty over the corrections."""
    jacobian = warp_jacobian(level, guess)  # [P, N, 2, K]
    slopes = match.slopes * (match.weights / 3)[:, None, None]
    tensor = torch.einsum("pacn,pbcn->pnab", match.slopes, slopes)
    pull = torch.einsum("pacn,pcn->pna", slopes, match.residuals)
    flat = jacobian.flatten(1, 2)  # [P, 2 N, K]
    weighted = (tensor[..., None] * jacobian[..., None, :, :]).sum(dim=-2).flatten(1, 2)
    matrices = flat.transpose(1, 2) @ weighted  # [P, K, K]
    vectors = (flat.transpose(1, 2) @ pull.flatten(1, 2)[..., None])[..., 0]  # [P, K]

    own = 6 + GRID**2  # unknowns of a view
    size = own * len(guess.c2w)
    of_source = own * level.source[:, None] + torch.arange(own, device=flat.device)
    of_target = own * level.target[:, None] + torch.arange(6, device=flat.device)
    index = torch.cat([of_source, of_target], dim=1)  # [P, K]
    matrix, vector = (flat.new_zeros(n, dtype=torch.float64) for n in (size * size, size))
    matrix.index_add_(0, (size * index[:, :, None] + index[:, None]).flatten(), matrices.double().flatten())
    vector.index_add_(0, index.flatten(), vectors.double().flatten())
    prior = torch.zeros(len(guess.c2w), own, dtype=torch.float64, device=flat.device)
    prior[:, 6:] = DEPTH_PRIOR / guess.shape.numel()
    vector += torch.cat([prior[:, :6], prior[:, 6:] * guess.shape], dim=1).flatten()
    return matrix.unflatten(0, (size, size)) + torch.diag(prior.flatten()), vector
