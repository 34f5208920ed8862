"""The .spz of Niantic, version 3: a gzip of columns, about a tenth of a .ply.

Fixed-point positions of 24 bits, opacities and colours of 8 bits, log scales in sixteenths, rotations as their three
smallest components of a sign and 9 bits. Axes are right, up, back: half a turn about x from ours.
"""

import gzip
import struct
from pathlib import Path

import numpy as np

from movies.export.packing import f_dc, half_turn, log_scales, smallest_three, splats_of, to_bytes
from movies.scene import Scene4D

MAGIC, VERSION = 0x5053474E, 3
COLOR_SCALE = 0.15  # a byte spans f_dc of +-3.3
MAX_FRACTION_BITS = 20


def write_spz(scene: Scene4D, path: Path) -> None:
    s = half_turn(splats_of(scene))
    bits = _fraction_bits(s.means)
    header = struct.pack("<IIIBBBB", MAGIC, VERSION, len(s.means), 0, bits, 0, 0)
    columns = [
        _fixed_point(s.means, bits),
        to_bytes(s.opacities),
        to_bytes(f_dc(s.colors) * COLOR_SCALE + 0.5),
        np.clip(np.rint((log_scales(s.scales) + 10) * 16), 0, 255).astype(np.uint8),
        _rotations(s.quats),
    ]
    data = header + b"".join(column.tobytes() for column in columns)
    path.write_bytes(gzip.compress(data, compresslevel=6, mtime=0))  # no clock in it: the same scene, the same bytes


def _fraction_bits(means: np.ndarray) -> int:
    """As many as leave room for the farthest position."""
    farthest = float(np.abs(means).max())
    return int(np.clip(np.floor(np.log2((2**23 - 1) / max(farthest, 1e-6))), 0, MAX_FRACTION_BITS))


def _fixed_point(means: np.ndarray, bits: int) -> np.ndarray:  # [N, 3] -> uint8 [N, 3, 3]
    fixed = np.clip(np.rint(means.astype(np.float64) * 2**bits), -(2**23), 2**23 - 1).astype("<i4")
    return np.ascontiguousarray(fixed[..., None].view(np.uint8)[..., :3])


def _rotations(quats: np.ndarray) -> np.ndarray:  # [N, 4] wxyz -> [N] uint32
    largest, others = smallest_three(quats[:, [1, 2, 3, 0]])  # the format's order is xyzw
    word = largest.astype(np.uint32)
    for other in others.T:
        magnitude = np.rint(np.abs(other).clip(max=1) * 511).astype(np.uint32)
        word = (word << np.uint32(10)) | ((other < 0).astype(np.uint32) << np.uint32(9)) | magnitude
    return word.astype("<u4")
