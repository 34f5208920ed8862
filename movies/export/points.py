"""Coloured points as .ply: float32 positions and 8-bit colours, as every viewer of point clouds reads them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor

from movies.files import replacing_file

ROW = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
HEADER = 256  # bytes; how many points it must tell is known once they are written


def write_points(parts: Iterable[tuple[Tensor, Tensor]], path: str | Path) -> int:  # ([N, 3], [N, 3] in [0, 1]) each
    """Write the points that are finite, beside the place and renamed; returns their number. One part is in memory."""
    count = 0
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(HEADER))
        for points, colors in parts:
            kept = points.isfinite().all(dim=-1)
            rows = np.zeros(int(kept.sum()), dtype=ROW)
            rows["xyz"] = points[kept].cpu().numpy()
            rows["rgb"] = (colors[kept].clamp(0, 1) * 255).round().byte().cpu().numpy()
            file.write(rows.tobytes())
            count += len(rows)
        file.seek(0)
        file.write(_header(count))
    return count


def _header(count: int) -> bytes:
    """Filled up by a comment."""
    lines = ["ply", "format binary_little_endian 1.0", "comment {}", f"element vertex {count}"]
    lines += [*(f"property float {c}" for c in "xyz"), *(f"property uchar {c}" for c in ("red", "green", "blue"))]
    text = "\n".join([*lines, "end_header", ""])
    return text.format("-" * (HEADER - len(text) + len("{}"))).encode("ascii")
