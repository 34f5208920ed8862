"""One .html file that plays the scene: double click, no server, no network. viewer.html and viewer.js are its program.

The data lie in the page as deflated, base64 encoded blocks: the static Gaussians once, the moving ones for each time.
A Gaussian is COLUMNS of small whole numbers. Every column is stored as differences (from the Gaussian before it; in
blocks of later times, from the same Gaussian at the time before), one plane of bytes after the other, which is what
makes deflate work. Positions are multiples of a step that is a fraction of the Gaussians' typical size, so that no
more bits are spent than can be seen. viewer.js `decode` is the inverse.
"""

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.export.packing import Splats, as_arrays, smallest_three, to_bytes
from movies.gaussians import Gaussians
from movies.scene import Scene4D

# Bytes of x y z, three log scales, the largest component of the rotation and the three others, red green blue opacity.
COLUMNS = (3, 3, 3, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1)
MAX_POSITION = 2**24 - 1
STEPS_PER_SCALE = 32  # positions: of the median Gaussian's longest axis
SCALE_RANGE = 1e-4  # scales under this part of the largest are stored as this part: far below a pixel
ROTATION_STEPS = 1023
DEFLATE_LEVEL = 6
DRAWN = 1 / 255  # a Gaussian under this opacity is never drawn (movies.rendering)


def write_html(scene: Scene4D, path: Path) -> None:
    static = scene.static.select(scene.static.opacities > DRAWN)
    moving = scene.moving.select((scene.moving.opacities > DRAWN).any(dim=0))
    every = Gaussians.cat([static, moving.map(lambda x: x.flatten(0, 1))])
    grid = _grid(every)
    blocks = [_deflated(_columns(as_arrays(static), grid), None)]
    before = None
    for k in range(len(scene.times)):
        columns = _columns(as_arrays(moving[k]), grid)
        blocks.append(_deflated(columns, before))
        before = columns
    header = {**_first_view(scene), **grid, "times": scene.times.tolist(), "columns": COLUMNS}
    header |= {"numStatic": len(static), "numMoving": len(moving)}
    path.write_text(_page(header, blocks), encoding="utf-8")


def _grid(g: Gaussians) -> dict:
    """Origin and step of the positions, lowest log scale and its step."""
    if not len(g):
        return {"origin": [0, 0, 0], "step": 1, "scaleLow": 0, "scaleStep": 1}
    low, high = g.means.amin(dim=0).double(), g.means.amax(dim=0).double()
    typical = float(g.scales.amax(dim=-1).median())
    step = max(float((high - low).max()) / MAX_POSITION, typical / STEPS_PER_SCALE, 1e-9)
    top = max(float(g.scales.max()), 1e-9)
    bottom = max(float(g.scales.min()), top * SCALE_RANGE)
    scale_step = max(np.log(top / bottom) / 255, 1e-9)
    return {"origin": low.tolist(), "step": step, "scaleLow": float(np.log(bottom)), "scaleStep": scale_step}


def _columns(s: Splats, grid: dict) -> list[np.ndarray]:  # -> uint32 [N] each
    positions = np.rint((s.means.astype(np.float64) - grid["origin"]) / grid["step"]).clip(0, MAX_POSITION)
    logs = np.log(np.maximum(s.scales, 1e-30, dtype=np.float64))
    scales = np.rint((logs - grid["scaleLow"]) / grid["scaleStep"]).clip(0, 255)
    largest, others = smallest_three(s.quats)
    others = np.rint((0.5 * others + 0.5).clip(0, 1) * ROTATION_STEPS)
    rgba = to_bytes(np.concatenate([s.colors, s.opacities[:, None]], axis=1))
    table = np.concatenate([positions, scales, largest[:, None], others, rgba], axis=1)
    return list(np.ascontiguousarray(table.T.astype(np.uint32)))


def _deflated(columns: list[np.ndarray], before: list[np.ndarray] | None) -> str:
    """Differences from `before`, or along the column, as planes of bytes, lowest first; base64 of the deflated."""
    planes = []
    for k, (column, size) in enumerate(zip(columns, COLUMNS, strict=True)):
        change = np.diff(column, prepend=np.uint32(0)) if before is None else column - before[k]
        planes.append(change.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :size].T.tobytes())
    return base64.b64encode(zlib.compress(b"".join(planes), DEFLATE_LEVEL)).decode("ascii")


def _first_view(scene: Scene4D) -> dict:
    """The first input camera, or one that sees the scene's middle where there is none."""
    height, width = scene.image_size
    if len(scene.cameras):
        c2w, lens = scene.cameras.c2w[0], scene.cameras.fxfycxcy[0]
    else:
        c2w, lens = torch.eye(4), torch.tensor([1.0, 1.0, 0.5, 0.5])
    aspect = width / height if height and width else float(lens[1] / lens[0])  # square pixels
    return {
        "c2w": c2w.flatten().tolist(),
        "fxfycxcy": lens.tolist(),
        "aspect": aspect,
        "width": width,
        "distance": _pivot_distance(scene, c2w),
    }


def _pivot_distance(scene: Scene4D, c2w: Tensor) -> float:  # [4, 4]
    """How far ahead lies the point that the camera orbits: the median depth of what is in front of it."""
    means = torch.cat([scene.static.means, scene.moving.means[0]])
    depths = (means - c2w[:3, 3]) @ c2w[:3, 2]
    ahead = depths[depths > 0]
    return float(ahead.median()) if len(ahead) else 1.0


def _page(header: dict, blocks: list[str]) -> str:
    folder = Path(__file__).parent
    page = folder.joinpath("viewer.html").read_text(encoding="utf-8")
    data = "\n".join(f'<script type="text/plain" class="block">{block}</script>' for block in blocks)
    parts = {
        "/*PROGRAM*/": folder.joinpath("viewer.js").read_text(encoding="utf-8"),
        "/*HEADER*/": json.dumps(header),
        "<!--BLOCKS-->": data,
    }
    for mark, text in parts.items():
        page = page.replace(mark, text)
    return page
