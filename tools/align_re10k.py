"""Depth files for RealEstate10K from what you have estimated: one unit for depth maps and cameras of every clip.

`python tools/align_re10k.py ROOT ESTIMATES OUT [--split train]`. ESTIMATES holds `<clip>.npz` for each clip:
  timestamps    int64 [F]      rows of the clip's text file
  c2w           [F, 3 or 4, 4] your cameras, camera-to-world, OpenCV axes, any unit (COLMAP, MegaSaM, VGGT ...)
  depth         [F, h, w]      your z-depth, 0 where not known; or
  disparity     [F, h, w]      1 / depth up to scale and shift (a monocular network's output)
  points        [K, 3]         optional, in the unit of c2w: world points seen in a frame (COLMAP's, say),
  point_frames  int [K]        with the row of the frame, one entry an observation
With points, depth or disparity is fitted to them by one scale and shift a clip. Without them depth must be in the
unit of c2w already, as where both come from one network. The text file's positions are fitted to c2w by a similarity.
Fits minimise absolute errors, so a third of outliers does no harm.

OUT gets `<split>/<clip>.h5` as movies/data/readers/realestate10k.py reads them, and `report.tsv`. A clip whose
cameras or depth do not fit is left out and named; the exit code is then 1.
"""

import argparse
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import h5py
import numpy as np
import torch

from movies.alignment import umeyama
from movies.data.readers.files import dataset_root, list_files, read_npz, read_table
from movies.data.readers.frames import inverted, with_last_row
from movies.errors import InputError
from movies.files import replacing_file

ROUNDS = 30  # of reweighting
LARGEST_CAMERA_ERROR = 0.05  # median, of the path's extent
LARGEST_DEPTH_ERROR = 0.10  # median, of the depth
FEWEST_POINTS = 20
FARTHEST = 6e4  # half floats end at 65504


@dataclass(frozen=True)
class Alignment:
    """What was found for one clip. Errors are medians: of positions over the path's extent, of depth over depth."""

    clip: str
    frames: int
    camera_scale: float
    camera_error: float
    depth_scale: float
    depth_shift: float
    depth_error: float  # NaN without points
    points: int


def robust_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:  # [K], [K]
    """Scale and shift of least absolute error, y ~ scale x + shift, by reweighted least squares."""
    weights, floor = np.ones_like(y), 1e-6 * np.abs(y).mean()
    for _ in range(ROUNDS):
        mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
        variance = np.average((x - mean_x) ** 2, weights=weights)
        if variance <= 1e-12 * mean_x**2:
            raise InputError("the depth at the points is everywhere the same: no scale and shift follow from it")
        scale = np.average((x - mean_x) * (y - mean_y), weights=weights) / variance
        shift = mean_y - scale * mean_x
        weights = 1 / np.maximum(np.abs(scale * x + shift - y), floor)
    return float(scale), float(shift)


def camera_scale(source: np.ndarray, target: np.ndarray) -> tuple[float, float]:  # [F, 3], [F, 3]
    """The factor that takes camera positions to those of `target`, and the median error over the path's extent."""
    source, target = torch.from_numpy(source), torch.from_numpy(target)
    weights = torch.ones(len(source), dtype=torch.float64)
    extent = (target - target.median(dim=0).values).norm(dim=-1).max()
    if not extent > 0:
        raise InputError("the cameras do not move: no scale follows from them")
    for _ in range(ROUNDS):
        fit = umeyama(source, target, weights)
        errors = (fit(source) - target).norm(dim=-1)
        weights = 1 / errors.clamp(min=1e-6 * float(extent))
    error = float(errors.median() / extent)
    if error > LARGEST_CAMERA_ERROR:
        raise InputError(f"the cameras do not fit those of the text file: off by {error:.0%} of the path's extent")
    return float(fit.scale), error


def depth_at_points(maps: np.ndarray, fxfycxcy: np.ndarray, c2w: np.ndarray, points: np.ndarray, rows: np.ndarray):
    """The maps' values at the pixels of points, and the points' z-depths, for those inside and in front. -> [K], [K]"""
    w2c = inverted(c2w)[rows]
    local = np.einsum("kij,kj->ki", w2c[:, :3, :3], points) + w2c[:, :3, 3]
    z = np.where(local[:, 2] > 1e-6, local[:, 2], np.nan)
    xy = local[:, :2] / z[:, None] * fxfycxcy[rows, :2] + fxfycxcy[rows, 2:]
    height, width = maps.shape[1:]
    inside = ((xy >= 0) & (xy < 1)).all(axis=1)
    column, row = (xy[inside] * [width, height]).astype(int).T
    values, depth = maps[rows[inside], row, column].astype(np.float64), z[inside]
    known = np.isfinite(values) & (values > 0)
    return values[known], depth[known]


def fit_depth(maps: np.ndarray, is_disparity: bool, samples: tuple[np.ndarray, np.ndarray]):
    """Depth [F, h, w] in the unit of the samples. -> (depth, scale, shift, median relative error)"""
    values, wanted = samples
    if len(values) < FEWEST_POINTS:
        raise InputError(f"only {len(values)} points fall on known depth, {FEWEST_POINTS} are needed")
    scale, shift = robust_line(values, 1 / wanted if is_disparity else wanted)
    if scale <= 0:
        raise InputError(f"depth and points run against each other (scale {scale:.3g}); is it disparity, or depth?")
    error = float(np.median(np.abs(_line(values, scale, shift, is_disparity) / wanted - 1)))
    if error > LARGEST_DEPTH_ERROR:
        raise InputError(f"depth does not fit the points: off by {error:.0%}")
    return np.where(maps > 0, _line(maps, scale, shift, is_disparity), 0), scale, shift, error


def _line(values: np.ndarray, scale: float, shift: float, is_disparity: bool) -> np.ndarray:
    line = scale * values + shift
    return np.where(line > 0, 1 / np.where(line > 0, line, 1), 0) if is_disparity else np.maximum(line, 0)


def align_clip(cameras: Path, estimates: Path, out: Path) -> Alignment:
    """Align one clip and write its file. Raises InputError where the two do not belong together."""
    with np.load(estimates, allow_pickle=False) as arrays:
        names = set(arrays.files)
    kind = "disparity" if "disparity" in names else "depth"
    timestamps, c2w, maps = read_npz(estimates, "timestamps", "c2w", kind).values()
    if not len(timestamps) == len(c2w) == len(maps) or maps.ndim != 3:
        raise InputError(f"{estimates}: timestamps, c2w and {kind} are not of one number of frames")
    table = {int(row[0]): row for row in read_table(cameras, 19, header_lines=1)}
    missing = [t for t in timestamps.tolist() if t not in table]
    if missing:
        raise InputError(f"{estimates}: timestamp {missing[0]} is not in {cameras}")
    rows = np.array([table[t] for t in timestamps.tolist()])
    c2w = with_last_row(c2w[:, :3].astype(np.float64))
    centers = inverted(with_last_row(rows[:, 7:].reshape(-1, 3, 4)))[:, :3, 3]
    try:
        scale, error = camera_scale(centers, c2w[:, :3, 3])
        depth, depth_scale, shift, depth_error, number = maps, 1.0, 0.0, float("nan"), 0
        if "points" in names:
            points, point_frames = read_npz(estimates, "points", "point_frames").values()
            samples = depth_at_points(maps, rows[:, 1:5], c2w, points.astype(np.float64), point_frames)
            depth, depth_scale, shift, depth_error = fit_depth(maps, kind == "disparity", samples)
            number = len(samples[0])
        elif kind == "disparity":
            raise InputError("disparity has no scale of its own: give `points` and `point_frames` with it")
    except InputError as problem:
        raise InputError(f"{estimates}: {problem}") from problem
    _write(out, timestamps, depth, scale)
    return Alignment(cameras.stem, len(maps), scale, error, depth_scale, shift, depth_error, number)


def _write(path: Path, timestamps: np.ndarray, depth: np.ndarray, scale: float) -> None:
    depth = np.where(np.isfinite(depth) & (depth > 0) & (depth < FARTHEST), depth, 0)
    with replacing_file(path) as temporary, h5py.File(temporary, "w") as file:
        file["timestamps"], file["scale"] = timestamps.astype(np.int64), scale
        chunks = (1, *depth.shape[1:])
        file.create_dataset("depth", data=depth.astype(np.float16), chunks=chunks, compression="gzip", shuffle=True)


def align(root: Path, estimates: Path, out: Path, split: str) -> tuple[list[Alignment], list[str]]:
    """Every clip that has estimates. -> (alignments, what is wrong with those left out)"""
    results, wrong = [], []
    files = list_files(dataset_root(estimates), ".npz")
    root = dataset_root(root)
    if not files:
        raise InputError(f"{estimates}: no <clip>.npz lies there")
    for file in files:
        cameras, aligned = (folder / split / f"{file.stem}{end}" for folder, end in ((root, ".txt"), (out, ".h5")))
        try:
            results.append(align_clip(cameras, file, aligned))
        except InputError as error:
            wrong.append(str(error))
    return results, wrong


def write_report(path: Path, results: list[Alignment]) -> None:
    names = [field.name for field in fields(Alignment)]
    lines = ["\t".join(names)]
    for result in results:
        values = asdict(result).values()
        lines.append("\t".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values))
    with replacing_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("root", "estimates", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--split", default="train")
    args = parser.parse_args()
    try:
        results, wrong = align(args.root, args.estimates, args.out, args.split)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    write_report(args.out / "report.tsv", results)
    for result in results:
        print(
            f"{result.clip}: {result.frames} frames, cameras x {result.camera_scale:.5g} ({result.camera_error:.2%}), "
            f"depth x {result.depth_scale:.5g} + {result.depth_shift:.5g} ({result.depth_error:.2%} at {result.points})"
        )
    for line in wrong:
        print(f"left out: {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
