"""Binary glTF with KHR_gaussian_splatting (Khronos, 2026): splats, the input views as cameras, and tracks.

Splats are POINTS primitives: positions, rotations (xyzw), scales and opacities (both linear), and the constant
spherical harmonic; COLOR_0 is for programs that only know points. glTF has no animation of splats: with several times
the moving ones of each time are a node of their own, and an animation scales all but one of these nodes to nothing, a
flip-book. Tracks are the paths of moving Gaussians through the times, as lines. Axes are glTF's (+y up, cameras look
along -z): half a turn about x from ours.
"""

import json
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.export.packing import Y_UP, Splats, as_arrays, f_dc, half_turn, splats_of, to_bytes
from movies.geometry import matrix_to_quaternion, transform_points
from movies.scene import Scene4D

EXTENSION = "KHR_gaussian_splatting"
FLOAT, UBYTE, POINTS, LINES = 5126, 5121, 0, 1
PLAY_SECONDS = 3.0
MAX_TRACKS = 256
KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


class _Buffer:
    """The file's binary chunk, and the accessors into it."""

    def __init__(self) -> None:
        self.data, self.views, self.accessors = bytearray(), [], []

    def add(self, array: np.ndarray, bounds: bool = False) -> int:
        """The accessor of an [N] or [N, K] array; `bounds` are obligatory for positions."""
        array = np.ascontiguousarray(array if array.dtype == np.uint8 else array.astype("<f4"))
        columns = array.reshape(len(array), -1)
        accessor = {
            "bufferView": len(self.views),
            "componentType": UBYTE if array.dtype == np.uint8 else FLOAT,
            "count": len(array),
            "type": KINDS[columns.shape[1]],
        }
        if array.dtype == np.uint8:
            accessor["normalized"] = True
        if bounds:
            accessor |= {"min": columns.min(axis=0).tolist(), "max": columns.max(axis=0).tolist()}
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes})
        self.accessors.append(accessor)
        self.data += array.tobytes()  # every array is a multiple of 4 bytes long, as alignment asks
        return len(self.accessors) - 1


def write_glb(scene: Scene4D, path: Path) -> None:
    buffer = _Buffer()
    nodes, primitives = _splats(scene, buffer)
    document = {
        "asset": {"version": "2.0", "generator": "movies"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "extras": {"times": scene.times.tolist()},
    }
    if len(scene.times) > 1 and len(scene.moving):
        document["animations"] = [_flip_book(scene.times, len(nodes), buffer)]
        nodes.append({"name": "tracks"})
        primitives.append(_tracks(scene, buffer))
    for k, node in enumerate(nodes):
        node["mesh"] = k
    cameras, camera_nodes = _cameras(scene)
    if cameras:
        document["cameras"] = cameras
    nodes += camera_nodes
    document |= {
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": [{"primitives": [primitive]} for primitive in primitives],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    path.write_bytes(_container(document, bytes(buffer.data)))


def _splats(scene: Scene4D, buffer: _Buffer) -> tuple[list[dict], list[dict]]:
    """Nodes and primitives: all splats of a single time together, else the static ones and then those of each time."""
    num_times = len(scene.times)
    if num_times == 1 or not len(scene.moving):
        return [{"name": "splats"}], [_primitive(splats_of(scene), buffer)]
    nodes, primitives = [], []
    if len(scene.static):
        nodes.append({"name": "static"})
        primitives.append(_primitive(as_arrays(scene.static), buffer))
    for k in range(num_times):
        # programs that play no animation show the first time
        nodes.append({"name": f"moving_{k:04d}", "scale": [float(k == 0)] * 3})
        primitives.append(_primitive(as_arrays(scene.moving[k]), buffer))
    return nodes, primitives


def _primitive(s: Splats, buffer: _Buffer) -> dict:
    s = half_turn(s)
    rgba = to_bytes(np.concatenate([s.colors, s.opacities[:, None]], axis=1))
    attributes = {
        "POSITION": buffer.add(s.means, bounds=True),
        "COLOR_0": buffer.add(rgba),
        f"{EXTENSION}:ROTATION": buffer.add(s.quats[:, [1, 2, 3, 0]]),
        f"{EXTENSION}:SCALE": buffer.add(s.scales),
        f"{EXTENSION}:OPACITY": buffer.add(s.opacities),
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": buffer.add(f_dc(s.colors)),
    }
    extension = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }
    return {"attributes": attributes, "mode": POINTS, "extensions": {EXTENSION: extension}}


def _flip_book(times: Tensor, num_nodes: int, buffer: _Buffer) -> dict:  # [K]
    """An animation of PLAY_SECONDS in which the last K of `num_nodes` nodes are shown by turns."""
    num_times = len(times)
    keys = buffer.add((times - times[0]).numpy() * PLAY_SECONDS, bounds=True)
    samplers, channels = [], []
    for k in range(num_times):
        shown = np.repeat(np.arange(num_times)[:, None] == k, 3, axis=1).astype(np.float32)
        samplers.append({"input": keys, "output": buffer.add(shown), "interpolation": "STEP"})
        target = {"node": num_nodes - num_times + k, "path": "scale"}
        channels.append({"sampler": k, "target": target})
    return {"name": "time", "samplers": samplers, "channels": channels}


def _tracks(scene: Scene4D, buffer: _Buffer) -> dict:
    """The paths of at most MAX_TRACKS Gaussians, evenly chosen, as pairs of points."""
    num = len(scene.moving)
    paths = scene.moving.select(torch.arange(0, num, -(-num // MAX_TRACKS)))
    means = transform_points(Y_UP, paths.means.transpose(0, 1))  # [P, K, 3]
    pairs = torch.stack([means[:, :-1], means[:, 1:]], dim=2).reshape(-1, 3).numpy()
    colors = to_bytes(paths.colors[0].numpy())[:, None].repeat(2 * (len(scene.times) - 1), axis=1).reshape(-1, 3)
    rgba = np.concatenate([colors, np.full_like(colors[:, :1], 255)], axis=1)
    return {"attributes": {"POSITION": buffer.add(pairs, bounds=True), "COLOR_0": buffer.add(rgba)}, "mode": LINES}


def _cameras(scene: Scene4D) -> tuple[list[dict], list[dict]]:
    """A camera and a node for every input view. glTF's cameras have no principal point: it is taken as central."""
    c2w = Y_UP @ scene.cameras.c2w.cpu() @ Y_UP  # the world's axes and the camera's own
    quats = matrix_to_quaternion(c2w[:, :3, :3])[:, [1, 2, 3, 0]].tolist()
    cameras, nodes = [], []
    for k, (fx, fy, _, _) in enumerate(scene.cameras.fxfycxcy.tolist()):
        height, width = scene.image_size
        aspect = width / height if height and width else fy / fx  # square pixels
        lens = {"yfov": 2 * math.atan(0.5 / fy), "aspectRatio": aspect, "znear": 0.001, "zfar": 100.0}
        cameras.append({"type": "perspective", "perspective": lens})
        place = {"translation": c2w[k, :3, 3].tolist(), "rotation": quats[k]}
        nodes.append({"name": f"view_{k:04d}", "camera": k, **place, "extras": {"time": float(scene.view_times[k])}})
    return cameras, nodes


def _container(document: dict, data: bytes) -> bytes:
    """Header, JSON chunk padded with spaces, binary chunk padded with zeros."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    data += b"\0" * (-len(data) % 4)
    size = 12 + 8 + len(text) + 8 + len(data)
    return b"".join(
        [struct.pack("<4sII", b"glTF", 2, size), struct.pack("<I4s", len(text), b"JSON"), text]
        + [struct.pack("<I4s", len(data), b"BIN\0"), data]
    )
