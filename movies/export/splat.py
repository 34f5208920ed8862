"""The .splat of the first web viewers: 32 bytes a Gaussian, and nothing else in the file.

Position and scale (not its logarithm) as float32, then bytes: red green blue opacity, and the rotation wxyz as
128 + 128 q. Sorted by opacity times volume, largest first, as progressive viewers expect.
"""

from pathlib import Path

import numpy as np

from movies.export.packing import splats_of, to_bytes
from movies.scene import Scene4D

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def write_splat(scene: Scene4D, path: Path) -> None:
    s = splats_of(scene)
    rows = np.empty(len(s.means), ROW)
    rows["mean"], rows["scale"] = s.means, s.scales
    rows["rgba"] = to_bytes(np.concatenate([s.colors, s.opacities[:, None]], axis=1))
    rows["quat"] = np.clip(np.rint(s.quats * 128 + 128), 0, 255)
    order = np.argsort(-s.opacities * s.scales.prod(axis=1), kind="stable")
    path.write_bytes(rows[order].tobytes())
