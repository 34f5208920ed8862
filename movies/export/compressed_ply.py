"""The compressed .ply of SuperSplat and the PlayCanvas engine: 16 bytes a Gaussian, in chunks of 256.

A chunk holds the bounds of positions, log scales and colours of its Gaussians, which are then fractions of them:
11-10-11 bits of position and of log scale, 2 + 3 x 10 bits of rotation (the three smallest components), 8 bits of each
colour and opacity. Gaussians are put in Morton order, so that chunks are small. (gsplat's writer of this format adds
an element without properties, at which readers stop, and divides by zero where a chunk's bounds coincide.)
"""

from pathlib import Path

import numpy as np

from movies.export.packing import Splats, log_scales, smallest_three, splats_of
from movies.scene import Scene4D

CHUNK = 256
MAX_LOG = 20.0  # readers expect log scales within +-20
WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


def write_compressed_ply(scene: Scene4D, path: Path) -> None:
    s = splats_of(scene)
    order = _morton_order(s.means)
    s = Splats(*(x[order] for x in s))
    bounds_of_means, means = _fractions(s.means)
    bounds_of_scales, scales = _fractions(np.clip(log_scales(s.scales), -MAX_LOG, MAX_LOG))
    bounds_of_colors, colors = _fractions(s.colors)
    rgba = np.concatenate([colors, s.opacities[:, None]], axis=1)
    words = [_pack(means, (11, 10, 11)), _rotations(s.quats), _pack(scales, (11, 10, 11)), _pack(rgba, (8, 8, 8, 8))]
    chunks = np.concatenate([bounds_of_means, bounds_of_scales, bounds_of_colors], axis=1)  # [C, 18]
    with path.open("wb") as file:
        file.write(_header(len(chunks), len(s.means)).encode("ascii"))
        file.write(chunks.astype("<f4").tobytes())
        file.write(np.stack(words, axis=1).astype("<u4").tobytes())


def _header(num_chunks: int, num_splats: int) -> str:
    names = [
        f"{side}_{name}"
        for group in (("x", "y", "z"), ("scale_x", "scale_y", "scale_z"), ("r", "g", "b"))
        for side in ("min", "max")
        for name in group
    ]
    lines = ["ply", "format binary_little_endian 1.0", f"element chunk {num_chunks}"]
    lines += [*(f"property float {name}" for name in names), f"element vertex {num_splats}"]
    lines += [*(f"property uint {name}" for name in WORDS), "end_header", ""]
    return "\n".join(lines)


def _fractions(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N, 3] -> bounds [C, 6], fractions [N, 3]
    """The bounds of every chunk, and each value's place between them."""
    starts = np.arange(0, len(x), CHUNK)
    low, high = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
    span = np.where(high > low, high - low, 1)
    chunk = np.arange(len(x)) // CHUNK
    return np.concatenate([low, high], axis=1), (x - low[chunk]) / span[chunk]


def _pack(x: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:  # [N, K] in [0, 1] -> [N] uint32, first column on top
    word = np.zeros(len(x), np.uint32)
    for column, size in zip(x.T, bits, strict=True):
        top = (1 << size) - 1
        word = (word << np.uint32(size)) | np.rint(np.clip(column, 0, 1) * top).astype(np.uint32)
    return word


def _rotations(quats: np.ndarray) -> np.ndarray:  # [N]
    largest, others = smallest_three(quats)
    return (largest.astype(np.uint32) << np.uint32(30)) | _pack(0.5 * others + 0.5, (10, 10, 10))


def _morton_order(means: np.ndarray) -> np.ndarray:  # [N, 3] -> [N]
    """Positions along a curve that keeps neighbours together: the bits of x, y and z by turns."""
    low = means.min(axis=0)
    cells = ((means - low) / np.maximum(means.max(axis=0) - low, 1e-12) * 1023).astype(np.uint32)
    code = np.zeros(len(means), np.uint32)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> np.uint32(bit)) & np.uint32(1)) << np.uint32(3 * bit + axis)
    return code.argsort(kind="stable")
