"""Read-outs against the exact truth of held-out synthetic worlds: tracks, visibility, flow and moving-object masks.

Every pixel of 5 context views is followed to the times of the others, with the true cameras. Contenders: the splats as
predicted, the scene that is stored of them, the same splats standing still, and an oracle that knows depth and motion,
which with its stored scene shows what the reading itself costs. Clips and units are those of
movies/evaluate/synthetic.py.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace

import torch
from torch import Tensor

from movies import metrics
from movies.clip import Clip, Tracks, Views
from movies.data.synthetic import SyntheticSequence, synthetic_sequences
from movies.data.transforms import normalized
from movies.evaluate.synthetic import CONTEXT, FIRST_SEED, MOVING, NUM_FRAMES, standing_still, true_positions
from movies.geometry import project
from movies.model.network import MoVieS
from movies.motion import (
    above_the_still,
    cleaned_masks,
    farthest,
    follow_scene,
    follow_splats,
    observed,
    optical_flow,
)
from movies.splats import MAX_DEPTH, NUM_ATTRIBUTES, DynamicSplats
from movies.tracks import Queries

SKY_DEPTH = 30.0  # of the oracle, which knows none there
NAMES = {
    "splats": "predicted splats",
    "scene": "the stored scene",
    "still": "its motion set to zero",
    "oracle": "oracle: true depth and motion",
    "stored": "the oracle's stored scene",
}


@dataclass(frozen=True)
class TrueClip:
    """The context views of a clip, and where each of their pixels' points is at each view's time. P = V*H*W."""

    context: Views  # [V]
    points: Tensor  # [V, P, 3] at the views' times, NaN in the sky
    visible: Tensor  # [V, P] bool, as the context view of that time sees them

    @property
    def queries(self) -> Queries:
        """Every pixel of every view, in (v, h, w) order."""
        return Queries.grid(*self.context.size, 1, torch.arange(len(self.context)))

    @property
    def others(self) -> Tensor:  # [V, P] bool
        """Every time but the pixel's own, where there is a point to follow."""
        own = self.queries.views == torch.arange(len(self.context))[:, None]
        return self.points.isfinite().all(dim=-1) & ~own

    @property
    def moving(self) -> Tensor:  # [V, H, W] bool
        """Pixels whose points get MOVING away from where they are at their own time."""
        return farthest(dense(self.points, self.context), torch.arange(len(self.context))) >= MOVING


def dense(points: Tensor, context: Views) -> Tensor:  # [T, P, 3] -> [T, V, H, W, 3]
    return points.unflatten(1, (len(context), *context.size))


def true_clip(sequence: SyntheticSequence) -> TrueClip:
    """Read one sequence and bring it into the frame of its first camera and unit scale."""
    views, _ = sequence.read(CONTEXT)
    clip = Clip(views, Tracks.empty(len(views)), len(views))
    scale = clip.canonical().unit_scale()[1]
    points = true_positions(sequence, views.times, views.cameras[0], scale).flatten(1, 3)
    pixels = torch.cartesian_prod(*(torch.arange(n) for n in (len(views), *views.size)))
    return TrueClip(normalized(clip).views, points, sequence.read_tracks(CONTEXT, pixels, views.times).visible)


@dataclass(frozen=True)
class ReadoutScores:
    """One contender on one clip. Distances are in clip units, over visible points at other times than their own."""

    error: float  # mean 3D distance
    within_5: float  # share closer than 5 % of the true depth
    within_10: float
    moving_error: float  # the same of points that move; NaN where none does
    moving_within_5: float
    moving_within_10: float
    visibility: float  # share of equal flags, hidden points included
    confidence: float  # rank correlation (Spearman) of confidence and nearness to the truth; NaN where one is constant
    scene_flow: float  # mean error on moving pixels, from one view to the next
    optical_flow: float  # mean error on moving pixels, in pixels
    mask_iou: float


def contenders(model: MoVieS, clip: TrueClip) -> Iterator[tuple[str, DynamicSplats, bool]]:
    """Names, splats, and whether the scene stored of them is read instead."""
    context = clip.context
    batched = (context.images[None], context.cameras[None], context.times[None])
    splats = model(*batched, context.times[None])
    yield "splats", splats, False
    yield "scene", splats, True
    yield "still", standing_still(splats), False
    oracle = oracle_splats(clip, splats)
    yield "oracle", oracle, False
    yield "stored", oracle, True


def oracle_splats(clip: TrueClip, like: DynamicSplats) -> DynamicSplats:
    """What a perfect network would say: true depth and motion, and opaque splats of half a pixel's size."""
    context = clip.context
    depth = torch.where(context.depth_mask, context.depth, SKY_DEPTH).clamp(max=MAX_DEPTH)
    motion = (dense(clip.points, context) - context.points()).nan_to_num(0)
    scales = 0.5 * depth / (context.cameras.fxfycxcy[:, 0, None, None] * context.size[1])
    raw = torch.zeros(*depth.shape, NUM_ATTRIBUTES)
    raw[..., 3:6] = (scales / 0.001).expm1().log().nan_to_num(posinf=1e4)[..., None]
    raw[..., 6], raw[..., 10] = 1.0, 2.5
    return replace(
        like,
        depth=depth[None],
        motion=motion[None],
        moving=(motion.norm(dim=-1) >= MOVING)[None],
        raw_splats=raw[None],
        raw_motion_splats=raw.expand_as(like.raw_motion_splats),
    )


def score(clip: TrueClip, splats: DynamicSplats, stored: bool) -> ReadoutScores:
    """Read `splats`, or the scene that is stored of them, and compare with the truth."""
    context, queries, scene = clip.context, clip.queries, splats.to_scene()
    if stored:
        points, confidence = follow_scene(scene, queries, context.times, context.size)
    else:
        points, confidence = follow_splats(splats, queries)
    tracks = observed(scene, points, confidence, queries, context.size)
    masks = above_the_still(_motion_of(points, context) / splats.depth.median())
    figures = _distances(clip, points.nan_to_num(0)) | _flows(clip, points.nan_to_num(0))
    seen = clip.others & clip.visible
    figures["confidence"] = _rank_correlation(confidence[seen], -(points - clip.points).norm(dim=-1)[seen])
    figures["visibility"] = (tracks.visible == clip.visible)[clip.others].float().mean()
    figures["mask_iou"] = metrics.iou(cleaned_masks(masks).flatten(0, 1), clip.moving.flatten(0, 1))
    return ReadoutScores(**{name: float(value) for name, value in figures.items()})


def _rank_correlation(a: Tensor, b: Tensor) -> Tensor:  # [N], [N] -> []
    ranks = [x.nan_to_num(0).unique(return_inverse=True)[1].double() for x in (a, b)]
    return torch.corrcoef(torch.stack(ranks))[0, 1]


def _motion_of(points: Tensor, context: Views) -> Tensor:  # [V, P, 3] -> [V, H, W]
    return farthest(dense(points, context), torch.arange(len(context)))


def _distances(clip: TrueClip, points: Tensor) -> dict[str, Tensor]:  # [V, P, 3]
    cameras, figures = clip.context.cameras, {}
    depth = project(clip.points.nan_to_num(0), cameras.fxfycxcy, cameras.c2w)[1]  # [V, P]
    seen = clip.others & clip.visible
    for prefix, mask in (("", seen), ("moving_", seen & clip.moving.flatten())):
        distance = (points - clip.points).norm(dim=-1)[mask]
        figures[f"{prefix}error"] = distance.mean()
        for percent in (5, 10):
            figures[f"{prefix}within_{percent}"] = (distance < percent / 100 * depth[mask]).float().mean()
    return figures


def _flows(clip: TrueClip, points: Tensor) -> dict[str, Tensor]:  # [V, P, 3]
    """Errors of flow from each view to the next, on moving pixels whose points the next view sees."""
    context, views = clip.context, torch.arange(len(clip.context))
    at, truth = dense(points, context), dense(clip.points, context)
    seen = clip.visible.unflatten(1, (len(context), *context.size))[views[1:], views[:-1]]
    mask = clip.moving[:-1] & seen  # [V - 1, H, W]
    flows = [x[views[1:], views[:-1]] - x[views[:-1], views[:-1]] for x in (at, truth)]
    pictures = [optical_flow(x[views[1:], views[:-1]], context.cameras[1:]) for x in (at, truth)]
    scene, optical = ((a - b).norm(dim=-1)[mask] for a, b in (flows, pictures))
    return {"scene_flow": scene.mean(), "optical_flow": optical.nanmean()}


@dataclass(frozen=True)
class ReadoutReport:
    """Scores of every contender on every clip, and how often points are visible at all."""

    size: int
    scores: dict[str, list[ReadoutScores]]
    always_visible: list[float]  # by clip: the visibility accuracy of saying "visible" always

    def mean(self, name: str) -> dict[str, float]:
        """Mean of every figure of a contender over the clips, NaN left out."""
        table = torch.tensor([list(asdict(row).values()) for row in self.scores[name]], dtype=torch.float64)
        return dict(zip((f.name for f in fields(ReadoutScores)), table.nanmean(dim=0).tolist(), strict=True))

    def markdown(self) -> str:
        """The table of docs/readouts.md."""
        clips = len(self.always_visible)
        lines = [
            f"| {clips} dynamic clips, {self.size}x{self.size} | 3D error | within 5 % | 10 % | moving: 3D error "
            "| within 5 % | 10 % | visibility | confidence | scene flow | optical flow, px | mask IoU |",
            "| --- " * 12 + "|",
        ]
        digits = (4, 3, 3, 4, 3, 3, 3, 2, 4, 2, 3)
        for name, title in NAMES.items():
            figures = zip(self.mean(name).values(), digits, strict=True)
            figures = ["-" if math.isnan(x) else f"{x:.{d}f}" for x, d in figures]
            lines.append(f"| {title} | {' | '.join(figures)} |")
        always = sum(self.always_visible) / clips
        return "\n".join([*lines, "", f"Saying that every point is visible: {always:.3f}."])


@torch.no_grad()
def evaluate_readouts(model: MoVieS, num_clips: int = 16, difficulty: float = 0.0) -> ReadoutReport:
    """Score `num_clips` dynamic clips at the model's image size."""
    from tqdm import tqdm

    size = model.config.image_size
    options = {"num_frames": NUM_FRAMES, "image_size": (size, size), "num_tracks": 1, "difficulty": difficulty}
    sequences = synthetic_sequences(num_sequences=num_clips, first_seed=FIRST_SEED, **options)
    scores, always = {name: [] for name in NAMES}, []
    for sequence in tqdm(sequences, desc="dynamic clips", delay=2, disable=None, leave=False):
        clip = true_clip(sequence)
        for name, splats, stored in contenders(model.eval(), clip):
            scores[name].append(score(clip, splats, stored))
        always.append(float(clip.visible[clip.others].float().mean()))
    return ReadoutReport(size, scores, always)


def evaluate(weights: str, clips: int, difficulty: float = 0.0) -> str:
    """Evaluate weights by name or file; returns the table."""
    return evaluate_readouts(MoVieS.from_pretrained(weights), clips, difficulty).markdown()
