"""The scene as plain numpy arrays, for programs that read nothing else.

`times` [K], `static_means` [S, 3], `moving_means` [K, M, 3] and likewise `quats` (wxyz), `scales`, `opacities` and
`colors`; `camera_c2w` [V, 4, 4] (OpenCV axes), `camera_fxfycxcy` [V, 4] (divided by the picture's size), `view_times`
[V], `image_size` [height, width]. All float32 but `image_size`.
"""

from dataclasses import fields
from pathlib import Path

import numpy as np

from movies.gaussians import Gaussians
from movies.scene import Scene4D


def write_npz(scene: Scene4D, path: Path) -> None:
    arrays = {
        "times": scene.times,
        "view_times": scene.view_times,
        "camera_c2w": scene.cameras.c2w,
        "camera_fxfycxcy": scene.cameras.fxfycxcy,
    }
    for field in fields(Gaussians):
        arrays[f"static_{field.name}"] = getattr(scene.static, field.name)
        arrays[f"moving_{field.name}"] = getattr(scene.moving, field.name)
    arrays = {name: x.detach().cpu().float().numpy() for name, x in arrays.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, image_size=np.array(scene.image_size), **arrays)
