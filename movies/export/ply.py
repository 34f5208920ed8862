"""The .ply of 3D Gaussian Splatting (Kerbl et al. 2023): the fields, order and units of the paper's code.

Little-endian float32. Opacities are logits, scales natural logarithms, rotations wxyz, colours coefficients of the
constant spherical harmonic; normals are zeros. The axes are the scene's own (OpenCV's), as that code has them.
"""

from pathlib import Path

import numpy as np

from movies.export.packing import f_dc, log_scales, logit, splats_of
from movies.scene import Scene4D

FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


def write_ply(scene: Scene4D, path: Path) -> None:
    s = splats_of(scene)
    columns = [s.means, np.zeros_like(s.means), f_dc(s.colors), logit(s.opacities)[:, None], log_scales(s.scales)]
    table = np.concatenate([*columns, s.quats], axis=1).astype("<f4")  # [N, 17]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [*(f"property float {name}" for name in FIELDS), "end_header", ""]
    with path.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(table.tobytes())
