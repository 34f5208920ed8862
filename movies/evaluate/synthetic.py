"""Held-out synthetic worlds: MoVieS and VGGT against copying, standing still and an oracle.

Every clip has 5 context views evenly spaced over its time and 4 targets at times between them, each seen from the
path's camera at that time moved off the path: a novel camera at a novel time. The seeds are apart from those of
training. Lengths are in the unit of the clip (context points at mean distance 1 from the first camera).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from movies import metrics
from movies.camera_refinement import refined_cameras
from movies.cameras import Cameras
from movies.clip import Clip, Tracks, Views
from movies.data.synthetic import SyntheticSequence, synthetic_sequences
from movies.data.synthetic_render import Rendered
from movies.data.transforms import normalized
from movies.evaluate.sheets import depth_pictures, error_pictures
from movies.files import replacing_file
from movies.gaussians import Gaussians
from movies.geometry import rigid_inverse, transform_points
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.rendering import render
from movies.splats import DynamicSplats
from movies.video import contact_sheet, write_image

FIRST_SEED = 1_000_000_000  # training draws its worlds from seeds below
NUM_FRAMES = 25
CONTEXT = (0, 6, 12, 18, 24)
TARGET_TIMES = (0.125, 0.375, 0.625, 0.875)
OFF_PATH = 0.05  # how far targets are moved off the camera path, in clip units
MOVING = 0.005  # clip units: pixels of moving solids that move less do not count as moving
ORACLE_SCALE, ORACLE_OPACITY = 0.5, 0.95  # the scale is a share of the pixel's footprint


@dataclass(frozen=True)
class ClipScores:
    """What one clip gave. PSNR in dB; `_moving`: target pixels of moving solids only. NaN: does not apply."""

    psnr: float
    psnr_copied: float
    psnr_still: float
    psnr_oracle: float
    ssim: float
    ssim_copied: float
    ssim_still: float
    ssim_oracle: float
    psnr_moving: float
    psnr_moving_copied: float
    psnr_moving_still: float
    psnr_moving_oracle: float
    absrel: float
    delta: float  # share of context pixels whose depth is within a factor of 1.25 of the truth
    motion_error: float  # mean distance over moving context pixels and target times
    motion_size: float  # the same of predicting no motion
    rotation: float  # degrees, mean over views 1..4
    rotation_refined: float  # the same of the cameras refined by the pictures
    rotation_none: float  # the same of predicting the first camera for all
    translation: float  # clip units
    translation_refined: float
    translation_none: float
    fov: float  # degrees


@dataclass(frozen=True)
class HeldOutClip:
    """A clip in the network's world with everything that is known of it."""

    context: Views  # [V]
    cameras: Cameras  # [T] of the targets
    times: Tensor  # [T]
    target: Rendered  # [T]
    motion: Tensor  # [T, V, H, W, 3] true offsets of context pixels, 0 in the sky
    moving: Tensor  # [T, V, H, W] bool: true motion of at least MOVING
    scale: Tensor  # [] of the clip over the sequence's world
    first: Cameras  # [] the first camera in the sequence's world


def held_out_clip(sequence: SyntheticSequence, size: int) -> HeldOutClip:
    """Read one sequence and bring it into the frame of its first camera and unit scale."""
    views, _ = sequence.read(CONTEXT)
    clip = Clip(views, Tracks.empty(len(CONTEXT)), len(CONTEXT), name=sequence.name)
    scale = clip.canonical().unit_scale()[1]
    times = torch.tensor(TARGET_TIMES)
    world = _moved_off_path(sequence.cameras(times), OFF_PATH / scale)
    target = sequence.render_view(world, times, size, size)
    cameras = world.relative_to(views.cameras[:1]).rescaled(scale)
    context = normalized(clip).views
    positions = true_positions(sequence, times, views.cameras[0], scale)
    motion = torch.where(context.depth_mask[..., None], positions - context.points(), torch.zeros(()))
    moving = motion.norm(dim=-1) >= MOVING
    return HeldOutClip(context, cameras, times, target, motion, moving, scale, views.cameras[0])


def true_positions(sequence: SyntheticSequence, times: Tensor, first: Cameras, scale: Tensor) -> Tensor:  # [T]
    """Where the points of all context pixels are at any times, [T, V, H, W, 3] in the clip's world; NaN in the sky."""
    positions = sequence.dense_motion(CONTEXT, times)
    return scale * transform_points(rigid_inverse(first.c2w), positions.flatten(0, -2)).reshape(positions.shape)


def _moved_off_path(cameras: Cameras, distance: Tensor) -> Cameras:  # [T], []
    """Alternately right, up, left and down in the image plane."""
    steps = torch.tensor([[1.0, 0, 0], [0, -1.0, 0], [-1.0, 0, 0], [0, 1.0, 0]])[: len(cameras)] * distance
    return cameras.shifted((cameras.c2w[:, :3, :3] @ steps[..., None])[..., 0])


@torch.no_grad()
def predict(model: MoVieS, clip: HeldOutClip) -> DynamicSplats:
    """Splats of the context views at the target times, B = 1."""
    context = clip.context
    return model(context.images[None], context.cameras[None], context.times[None], clip.times[None])


def standing_still(splats: DynamicSplats) -> DynamicSplats:
    """The same prediction with its offsets set to zero; what moves keeps the colours and sizes it moves with.

    With those of a static splat instead, which nothing trains in moving pixels, it would be a weaker baseline.
    """
    return replace(splats, motion=torch.zeros_like(splats.motion))


def oracle(clip: HeldOutClip) -> Gaussians:
    """True depth and motion splatted, one isotropic Gaussian a pixel: [T, N]."""
    context = clip.context
    means = context.points() + clip.motion  # [T, V, H, W, 3]
    footprint = context.depth / (context.cameras.fxfycxcy[:, 0, None, None] * context.size[1])  # [V, H, W]
    scales = (ORACLE_SCALE * footprint)[..., None].expand(*footprint.shape, 3)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(*footprint.shape, 4)
    # the sky has no depth; as a far shell it hides nothing
    far = context.cameras.centers[:, None, None] + 30 * context.cameras.plucker(*context.size)[:, 3:].movedim(1, -1)
    means = torch.where(context.depth_mask[..., None], means, far)
    scales = torch.where(context.depth_mask[..., None], scales, 0.3)
    opacities = torch.full_like(footprint, ORACLE_OPACITY)
    still = (quats, scales, opacities, context.images.movedim(1, -1))
    return Gaussians(means, *(x.expand(len(means), *x.shape) for x in still)).map(lambda x: x.flatten(1, 3))


def pictures(clip: HeldOutClip, splats: DynamicSplats) -> dict[str, Tensor]:
    """Images [T, 3, H, W] of every contender at the targets."""
    height, width = clip.target.images.shape[-2:]
    nearest = (clip.context.times[None] - clip.times[:, None]).abs().argmin(dim=1)
    scenes = {
        "": splats.gaussians()[0],
        "_still": standing_still(splats).gaussians()[0],
        "_oracle": oracle(clip),
    }
    images = {name: render(scene, clip.cameras, height, width).images for name, scene in scenes.items()}
    return images | {"_copied": clip.context.resized(height, width).images[nearest]}


def score(clip: HeldOutClip, splats: DynamicSplats, contenders: dict[str, Tensor], vggt: VGGT) -> ClipScores:
    """Every figure of one clip; `contenders` are its `pictures`."""
    truth, scores = clip.target.images, {}
    for name, images in contenders.items():
        scores[f"psnr{name}"] = metrics.psnr(images, truth).mean()
        scores[f"ssim{name}"] = metrics.ssim(images, truth).mean()
        error = (images - truth).square().mean(dim=1)[clip.target.moving]
        scores[f"psnr_moving{name}"] = -10 * error.mean().log10()  # NaN where nothing moves
    context = clip.context
    for name in ("absrel", "delta"):
        scores[name] = getattr(metrics, name)(splats.depth, context.depth[None], context.depth_mask[None])
    scores["motion_error"] = (splats.motion[0] - clip.motion).norm(dim=-1)[clip.moving].mean()
    scores["motion_size"] = clip.motion.norm(dim=-1)[clip.moving].mean()
    scores |= camera_scores(vggt, context)
    return ClipScores(**{field.name: float(scores[field.name]) for field in fields(ClipScores)})


@torch.no_grad()
def camera_scores(vggt: VGGT, context: Views) -> dict[str, Tensor]:
    """Errors of the estimated cameras relative to the first, refined by the pictures too, and of standing still."""
    prediction = vggt(context.images[None])
    estimated = prediction.cameras[0].relative_to(prediction.cameras[0][:1])
    refined, _ = refined_cameras(context.images, prediction.depth[0], estimated)
    truth, still = context.cameras, Cameras(torch.eye(4).expand_as(context.cameras.c2w), context.cameras.fxfycxcy)
    rest = slice(1, None)
    scores = {"fov": (estimated.fov() - truth.fov()).abs().rad2deg().mean()}
    for name, cameras in (("", estimated), ("_refined", refined), ("_none", still)):
        scores[f"rotation{name}"] = metrics.rotation_error(cameras.c2w[rest], truth.c2w[rest]).mean()
        scores[f"translation{name}"] = metrics.translation_error(cameras.c2w[rest], truth.c2w[rest]).mean()
    return scores


@dataclass(frozen=True)
class Report:
    """Scores of the dynamic clips and of as many static ones."""

    difficulty: float
    size: int
    dynamic: list[ClipScores]
    static: list[ClipScores]

    @staticmethod
    def of(scenes: dict[str, dict[str, float | None]], difficulty: float, size: int) -> "Report":
        """From a run's scenes `dynamic/...` and `static/...`, None for what does not apply."""
        rows: dict[str, list[ClipScores]] = {"dynamic": [], "static": []}
        for name, figures in sorted(scenes.items()):
            scores = {key: float("nan") if value is None else value for key, value in figures.items()}
            rows[name.split("/")[0]].append(ClipScores(**scores))
        return Report(difficulty, size, rows["dynamic"], rows["static"])

    def mean(self, kind: str) -> dict[str, float]:
        """Mean of every figure over the clips of a kind, NaN left out."""
        rows = getattr(self, kind)
        table = torch.tensor([list(asdict(row).values()) for row in rows], dtype=torch.float64)
        return dict(zip((f.name for f in fields(ClipScores)), table.nanmean(dim=0).tolist(), strict=True))

    def json(self) -> dict:
        """Every choice and every number."""
        choices = {"difficulty": self.difficulty, "size": self.size, "context": CONTEXT, "target_times": TARGET_TIMES}
        clips = {kind: [asdict(row) for row in getattr(self, kind)] for kind in ("dynamic", "static")}
        return {**choices, "first_seed": FIRST_SEED, "mean": {k: self.mean(k) for k in clips}, "clips": clips}

    def save(self, folder: Path) -> None:
        """Write report.json into `folder`."""
        with replacing_file(folder / "report.json") as temporary:
            temporary.write_text(json.dumps(self.json(), indent=1) + "\n")

    def markdown(self) -> str:
        """The README's table."""
        dynamic, static = self.mean("dynamic"), self.mean("static")
        names = {"": "MoVieS (bundled)", "_copied": "nearest input frame copied", "_still": "its motion set to zero"}
        names |= {"_oracle": "oracle: true depth and motion"}
        lines = [
            f"| {len(self.dynamic)} dynamic and {len(self.static)} static clips, {self.size}x{self.size} "
            "| dynamic PSNR | SSIM | moving pixels PSNR | static PSNR | SSIM |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for key, name in names.items():
            figures = [dynamic[f"psnr{key}"], dynamic[f"ssim{key}"], dynamic[f"psnr_moving{key}"]]
            figures += [static[f"psnr{key}"], static[f"ssim{key}"]]
            digits = (2, 3, 2, 2, 3)
            lines.append(f"| {name} | " + " | ".join(f"{x:.{d}f}" for x, d in zip(figures, digits, strict=True)) + " |")
        motion = self.mean_of_ratio()
        lines += [
            "",
            f"Depth AbsRel {dynamic['absrel']:.3f} (dynamic), {static['absrel']:.3f} (static), within a factor of 1.25 "
            f"of the truth {dynamic['delta']:.3f} and {static['delta']:.3f} of pixels. Motion error on moving pixels "
            f"{motion:.2f} of predicting none. Tiny VGGT: rotation error {dynamic['rotation']:.1f} degrees "
            f"(refined by the pictures: {dynamic['rotation_refined']:.1f}; standing still: "
            f"{dynamic['rotation_none']:.1f}), translation {dynamic['translation']:.3f} of the mean distance (refined: "
            f"{dynamic['translation_refined']:.3f}; standing still: {dynamic['translation_none']:.3f}), field of view "
            f"{dynamic['fov']:.1f}.",
        ]
        return "\n".join(lines)

    def mean_of_ratio(self) -> float:
        """Motion error of all dynamic clips over that of predicting none."""
        mean = self.mean("dynamic")
        return mean["motion_error"] / mean["motion_size"]


def evaluate_models(
    model: MoVieS, vggt: VGGT, num_clips: int = 32, difficulty: float = 0.0, folder: Path | None = None
) -> Report:
    """Score `num_clips` dynamic and as many static clips at the model's image size; pictures go to `folder`."""
    size = model.config.image_size
    scores = {}
    for kind, static in (("dynamic", False), ("static", True)):
        options = {"num_frames": NUM_FRAMES, "image_size": (size, size), "num_tracks": 1, "static": static}
        sequences = synthetic_sequences(
            num_sequences=num_clips, first_seed=FIRST_SEED, difficulty=difficulty, **options
        )
        scores[kind] = list(_scores(model.eval(), vggt.eval(), sequences, kind, folder))
    return Report(difficulty, size, scores["dynamic"], scores["static"])


def _scores(model: MoVieS, vggt: VGGT, sequences: list, kind: str, folder: Path | None) -> Iterator[ClipScores]:
    from tqdm import tqdm

    for sequence in tqdm(sequences, desc=f"{kind} clips", delay=2, disable=None, leave=False):
        picture = folder / f"{sequence.name}.png" if folder else None
        yield score_sequence(model, vggt, sequence, model.config.image_size, picture)


def score_sequence(
    model: MoVieS, vggt: VGGT, sequence: SyntheticSequence, size: int, picture: Path | None
) -> ClipScores:
    """All figures of one clip, and its contenders side by side in a picture file."""
    clip = held_out_clip(sequence, size)
    splats = predict(model, clip)
    contenders = pictures(clip, splats)
    if picture:
        rows = {"context": clip.context.images, "target": clip.target.images}
        rows |= {f"rendered{name}": images for name, images in contenders.items()}
        rows["error"] = error_pictures(contenders[""], clip.target.images)
        rows |= {"depth": depth_pictures(splats.depth[0]), "true depth": depth_pictures(clip.context.depth)}
        write_image(picture, contact_sheet(rows))
    return score(clip, splats, contenders, vggt)
