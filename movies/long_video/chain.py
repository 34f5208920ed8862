"""How chunks lie to each other: a similarity for each joint, composed along the clip, refined where it closes loops."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from movies.alignment import Similarity, robust_umeyama, symmetric_umeyama
from movies.cameras import Cameras
from movies.errors import InputError
from movies.geometry import project
from movies.long_video.chunks import Geometry, shared
from movies.splats import MAX_DEPTH

SHARE = 0.85  # the most confident points that count (D4RT, appendix B)
NUM_POINTS = 50_000  # looked at for a joint
CENTRES = 0.1  # what the camera centres weigh, all together, against the points
NEAR = 0.1  # a point that misses its partner by less than this share of its depth agrees
LEAST_AGREEING, MOST_SCALE = 0.5, 3.0  # of a joint that holds
LOOP_SEEN = 0.3  # share of one half's picture that a loop's other half must see in its place


@dataclass(frozen=True)
class Joint:
    """The similarity from a later chunk's world to an earlier one's, and how well it holds."""

    before: int
    after: int
    similarity: Similarity
    residual: float  # median distance of partners over their depth
    inliers: float  # share of the partners that agree
    points: bool = True  # False where the points gave nothing, and the first shared camera alone is matched

    @property
    def fault(self) -> str:
        """What is wrong with it, "" for a joint that holds."""
        scale = float(self.similarity.scale)
        if not self.points:
            return "its points cannot be aligned, so the shared cameras alone are"
        if not self.inliers >= LEAST_AGREEING:
            return f"only {100 * self.inliers:.0f} % of its points agree within {100 * NEAR:.0f} % of their depth"
        if not 1 / MOST_SCALE <= scale <= MOST_SCALE:
            return f"one side is {max(scale, 1 / scale):.1f} times as large as the other"
        return ""


def join(before: int, after: int, earlier: Geometry, later: Geometry, given: bool = False) -> Joint:
    """Align two chunks on the points and camera centres of the frames that they share.

    With `given` cameras both lie in one world already: the joint is measured and nothing is moved.
    """
    i, j = shared(earlier.frames, later.frames)
    target, source = earlier.points(i).flatten(0, 2), later.points(j).flatten(0, 2)  # [P, 3]
    depth, own = earlier.depth[i].flatten(), later.depth[j].flatten()
    confidence = (earlier.confidence[i] * later.confidence[j]).flatten()
    usable = target.isfinite().all(dim=-1) & source.isfinite().all(dim=-1) & confidence.isfinite()
    usable &= (depth > 0) & (own > 0) & (depth < 0.99 * MAX_DEPTH) & (own < 0.99 * MAX_DEPTH)
    usable = usable.nonzero()[:, 0][:: max(1, int(usable.sum()) // NUM_POINTS)]
    target, source, depth, own, confidence = (x[usable] for x in (target, source, depth, own, confidence))
    cameras = earlier.cameras[i], later.cameras[j]
    try:
        found = Similarity.identity() if given else _fit(source, target, depth * own, confidence, *cameras)
    except InputError:
        first, second = (c.c2w[0] for c in cameras)
        turn = first @ torch.linalg.inv(second)
        return Joint(before, after, Similarity(torch.ones(()), turn[:3, :3], turn[:3, 3]), float("nan"), 0.0, False)
    if not len(target):
        return Joint(before, after, found, float("nan"), 0.0, False)
    missed = (found(source) - target).norm(dim=-1) / depth
    return Joint(before, after, found, float(missed.median()), float((missed < NEAR).float().mean()))


def _fit(
    source: Tensor, target: Tensor, depths: Tensor, confidence: Tensor, earlier: Cameras, later: Cameras
) -> Similarity:
    """Errors count by the depth at which they are made; camera centres join in once the outliers are known.

    `depths` are the products of both sides' depths: the weights, like the scale, must favour neither side.
    """
    weights = depths.reciprocal()
    inliers = robust_umeyama(source, target, confidence, weights, SHARE).inliers
    weights = weights * inliers
    centres = weights.new_full((len(earlier),), float(CENTRES * weights.sum() / len(earlier)))
    both = [torch.cat(pair) for pair in ((source, later.centers), (target, earlier.centers), (weights, centres))]
    return symmetric_umeyama(*both)


def compose(count: int, joints: list[Joint]) -> list[Similarity]:
    """Where each chunk lies in the world of its shot's first one."""
    placed = [Similarity.identity()] * count
    for joint in joints:
        placed[joint.after] = placed[joint.before].after(joint.similarity)
    return placed


def loop_joint(i: int, j: int, earlier: Geometry, later: Geometry, loop: Geometry) -> Joint | None:
    """The joint of two chunks far apart through a chunk made of frames of both; None where that does not hold."""
    first, second = join(i, -1, earlier, loop), join(j, -1, later, loop)
    if first.fault or second.fault or not _halves_agree(loop):
        return None
    similarity = first.similarity.after(second.similarity.inverse())
    return Joint(i, j, similarity, max(first.residual, second.residual), min(first.inliers, second.inliers))


def _halves_agree(loop: Geometry) -> bool:
    """Whether what the first half of a chunk's views sees lies where the second half sees it: one place, not two."""
    half = len(loop.frames) // 2
    points, camera = loop.points(torch.tensor([half - 1]))[0].flatten(0, 1), loop.cameras[half]
    xy, z = project(points, camera.fxfycxcy, camera.c2w)
    inside = ((xy >= 0) & (xy < 1)).all(dim=-1) & (z > 0)
    height, width = loop.depth.shape[-2:]
    columns, rows = (xy[inside] * xy.new_tensor([width, height])).long().unbind(dim=-1)
    surface = loop.depth[half][rows, columns]
    return bool(((z[inside] / surface - 1).abs() < NEAR).sum() >= LOOP_SEEN * len(z))


# --- refinement --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refined:
    placed: list[Similarity]
    before: float  # root mean square of the joints' errors (turn in radians, log scale, way over the unit)
    after: float


def refine(placed: list[Similarity], joints: list[Joint], loops: list[Joint]) -> Refined:
    """Spread what does not close over all joints: least squares over the chunks' similarities (a pose graph)."""
    from scipy.optimize import least_squares
    from scipy.sparse import lil_matrix

    edges = [*joints, *loops]
    before, after = (np.array([getattr(e, side) for e in edges]) for side in ("before", "after"))
    measured = _stacked([e.similarity for e in edges])
    free = sorted({e.after for e in joints})  # first chunks of shots stay
    columns = {node: 7 * k for k, node in enumerate(free)}
    start = _vectors(_stacked(placed))
    pattern = lil_matrix((7 * len(edges), 7 * len(free)), dtype=int)
    for row, edge in enumerate(edges):
        for column in (columns[node] for node in (edge.before, edge.after) if node in columns):
            pattern[7 * row : 7 * row + 7, column : column + 7] = 1

    def errors(values: np.ndarray) -> np.ndarray:
        nodes = start.copy()
        nodes[free] = values.reshape(-1, 7)
        world = _similarities(nodes)
        wanted = _picked(world, before).after(measured)
        difference = wanted.inverse().after(_picked(world, after))
        return _vectors(difference).ravel()

    found = least_squares(errors, start[free].ravel(), jac_sparsity=pattern, loss="soft_l1", f_scale=0.1)
    nodes = start.copy()
    nodes[free] = found.x.reshape(-1, 7)
    world = _similarities(nodes)
    unstacked = [Similarity(*(x[k].float() for x in vars(world).values())) for k in range(len(placed))]
    spread = [float(np.sqrt(np.square(errors(x)).sum() / len(edges))) for x in (start[free].ravel(), found.x)]
    return Refined(unstacked, *spread)


def _stacked(many: list[Similarity]) -> Similarity:
    return Similarity(*(torch.stack([getattr(s, name).double() for s in many]) for name in vars(many[0])))


def _picked(many: Similarity, index: np.ndarray) -> Similarity:
    return Similarity(*(x[torch.from_numpy(index)] for x in vars(many).values()))


def _vectors(many: Similarity) -> np.ndarray:  # -> [K, 7]: log scale, rotation vector, translation
    from scipy.spatial.transform import Rotation

    turns = Rotation.from_matrix(many.rotation.numpy()).as_rotvec()
    return np.concatenate([many.scale.log().numpy()[:, None], turns, many.translation.numpy()], axis=1)


def _similarities(vectors: np.ndarray) -> Similarity:  # [K, 7]
    from scipy.spatial.transform import Rotation

    turns = Rotation.from_rotvec(vectors[:, 1:4]).as_matrix()
    return Similarity(*(torch.from_numpy(x) for x in (np.exp(vectors[:, 0]), turns, vectors[:, 4:])))


def failing(joints: list[Joint], frames: list[Tensor], given: bool = False) -> list[str]:
    """What to tell the user of joints that do not hold, the first three by name; `frames` [V] of each chunk."""
    poor = [f"before frame {int(frames[j.after][0])} {j.fault}" for j in joints if j.fault]
    if not poor:
        return []
    more = f", and {len(poor) - 3} more" if len(poor) > 3 else ""
    ends = "chunks do not agree about depth there" if given else "what follows may be out of place"
    return [f"{len(poor)} of {len(joints)} joints do not hold: {', '.join(poor[:3])}{more}; {ends}"]


def described(joint: Joint, frames: list[Tensor]) -> dict:
    """What summary.json says of a joint."""
    i, _ = shared(frames[joint.before], frames[joint.after])
    common = frames[joint.before][i].tolist()
    return {
        "chunks": [joint.before, joint.after],
        "frames": [common[0], common[-1]] if common else [],
        "residual": round(joint.residual, 5) if np.isfinite(joint.residual) else None,
        "scale": round(float(joint.similarity.scale), 5),
        "inliers": round(joint.inliers, 4),
        "fault": joint.fault,
    }
