"""3D tracks of the queried points, in both families: TAPVid-3D's AJ, APD, OA, and distances in median units."""

from torch import Tensor

from movies import metrics
from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import Protocol
from movies.geometry import rigid_inverse, transform_points


def score(case: Case, prediction: Prediction, protocol: Protocol) -> dict[str, Tensor]:  # [1] each
    """For each frame of reference: aj, apd; epe and delta_* after both sides are divided by their median distance. oa.

    In the camera frame every point is told where the camera of its time sees it; in the world frame where the first
    camera would. There errors of estimated cameras show; given ones take tracks that were scaled in the camera frame.
    """
    true_c2w, tracks = case.context.cameras.c2w, prediction.tracks
    seen, said = case.tracks.visible, prediction.visible
    truth = transform_points(rigid_inverse(true_c2w), case.tracks.points.nan_to_num())  # [V, P, 3] camera frames
    unit = metrics.pixel_distance(truth[..., 2], case.context.cameras.fxfycxcy, case.context.size)
    if case.inputs.has_cameras or not prediction.has("c2w"):
        in_world = transform_points(true_c2w, tracks * _scale(tracks, truth, seen, said))
    else:
        in_world = transform_points(rigid_inverse(prediction.c2w[:1]) @ prediction.c2w, tracks)
    pairs = {"camera": (tracks, truth), "world": (in_world, transform_points(true_c2w, truth))}
    scores = {"oa": (said == seen).float().mean()}
    for frame in protocol.tracks.frames:
        points, target = pairs[frame]
        found = metrics.track_scores(points * _scale(points, target, seen, said), said, target, seen, unit)
        scores |= {f"aj_{frame}": found.average_jaccard, f"apd_{frame}": found.points_within}
        scores |= {f"{k}_{frame}": v for k, v in _distances(points, target, seen, protocol.tracks.radii).items()}
    return {name: value.reshape(1) for name, value in scores.items()}


def _scale(tracks: Tensor, target: Tensor, seen: Tensor, said: Tensor) -> Tensor:  # [V, P, 3] twice, [V, P] twice
    """TAPVid-3D's median scale: over points visible in both, or in truth where there are none."""
    both = seen & said
    return metrics.median_scale(tracks, target, both if both.any() else seen)


def _distances(tracks: Tensor, target: Tensor, seen: Tensor, radii: tuple[float, ...]) -> dict[str, Tensor]:
    """Of tracks [V, P, 3], both sides divided by the median distance of their visible points from the origin."""
    flat = [(x / metrics.median_distance(x, seen)).flatten(0, 1)[None] for x in (tracks, target)]
    flat.append(seen.flatten()[None])
    scores = {"epe": metrics.endpoint_error(*flat)}
    return scores | {f"delta_{radius:.2f}": metrics.within(*flat, radius) for radius in radii}
