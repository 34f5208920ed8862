"""Coloured points as .ply: float32 positions and 8-bit colours, as every viewer of point clouds reads them."""

from pathlib import Path

import numpy as np
from torch import Tensor

from movies.files import replacing_file

ROW = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


def write_points(points: Tensor, colors: Tensor, path: str | Path) -> int:  # [N, 3], [N, 3] in [0, 1]
    """Write the points that are finite, beside the place and renamed; returns their number."""
    kept = points.isfinite().all(dim=-1)
    rows = np.zeros(int(kept.sum()), dtype=ROW)
    rows["xyz"] = points[kept].cpu().numpy()
    rows["rgb"] = (colors[kept].clamp(0, 1) * 255).round().byte().cpu().numpy()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [*(f"property float {c}" for c in "xyz"), *(f"property uchar {c}" for c in ("red", "green", "blue"))]
    with replacing_file(path) as temporary:
        temporary.write_bytes("\n".join([*header, "end_header", ""]).encode("ascii") + rows.tobytes())
    return len(rows)
