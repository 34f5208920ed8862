"""Drawing worlds and camera paths from a seed: where solids stand, how they move, what they look like.

`difficulty` widens the distribution. At 0 one or two solids move smoothly near the middle of a room with a brown
floor, a pale ceiling and coloured walls lit from above, cues that a small network learns depth from; towards 1 come
more solids, figures of several parts, open ground, bolder textures and colours, faster motion, longer camera paths.
Only `random.Random` draws, so a seed gives the same numbers on every machine.
"""

import math
from dataclasses import dataclass, fields
from random import Random

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.data.synthetic_materials import lights, room_materials, sky_materials, solid_material
from movies.data.synthetic_worlds import Motion, World
from movies.geometry import look_at

Vector = list[float]
_UNIT = 0.62  # lengths below are drawn in rooms about 2 wide; this brings the mean distance from the camera near 1
_LENGTHS = ("anchor", "velocity", "sway", "joint", "offset", "half_size")


@dataclass(frozen=True)
class CameraPath:
    """A hand-held camera: eye and target drift and shake over time in [0, 1]; the field of view stays."""

    eye: Tensor  # [3, 3] at time 0.5, way over the clip, amplitude of its shake
    target: Tensor  # [3, 3] the same
    wave: Tensor  # [2, 3] cycles over the clip and phase of the shake, for each axis
    roll: Tensor  # [2] mean and amplitude, radians
    field: float  # horizontal field of view, radians

    def at(self, times: Tensor, height: int, width: int) -> Cameras:  # [F] -> Cameras [F]
        """Cameras for images of this aspect."""
        time = times.double().cpu()[:, None]
        shake = torch.sin(2 * torch.pi * self.wave[0] * time + self.wave[1])  # [F, 3]
        eye = self.eye[0] + self.eye[1] * (time - 0.5) + self.eye[2] * shake
        target = self.target[0] + self.target[1] * (time - 0.5) + self.target[2] * shake.flip(-1)
        roll = self.roll[0] + self.roll[1] * shake[:, 0]
        down = torch.stack([roll.sin(), roll.cos(), torch.zeros_like(roll)], dim=-1)
        focal = 0.5 / math.tan(self.field / 2)
        intrinsics = torch.tensor([focal, focal * width / height, 0.5, 0.5]).expand(len(time), 4).clone()
        return Cameras(look_at(eye, target, down).float(), intrinsics).to(times.device)


def draw_world(seed: int, difficulty: float, static: bool) -> tuple[World, CameraPath]:
    """The world of a seed, and a camera path that looks at it; `static` is the same world standing still."""
    rng = Random(seed)
    level = difficulty * rng.uniform(0.3, 1.0)
    is_open = rng.random() < 0.4 * level
    room = _draw_room(rng, is_open)
    path, eyes = _draw_path(rng, level, room)
    solids = _draw_solids(rng, level, room, eyes)
    solids.sort(key=lambda solid: solid["box"])  # stable: balls and cylinders first
    if is_open:
        faces, horizon = sky_materials(rng, level, room)
        haze = [*horizon, rng.uniform(0.04, 0.2)]
    else:
        faces, haze = room_materials(rng, level, room), [0.0] * 4
    scene = {"room": [_UNIT * size for size in room], "haze": haze, **lights(rng, level, room)}
    scene["bulb"] = [_UNIT * x for x in scene["bulb"]]
    return _assemble(solids, faces, scene, is_open, static), path


def draw_walk(seed: int, room: Vector, places: list[Vector], cycles: float) -> World:
    """A world to walk through: a solid at each of the places (x, z), every third swaying so often over the clip.

    `room` (half sizes) and the places are in world units.
    """
    rng, room = Random(seed), [size / _UNIT for size in room]
    solids = []
    for number, (x, z) in enumerate(places):
        solid = _draw_solid(rng, 0.5, room, moves=False)
        solid["anchor"] = [x / _UNIT, solid["anchor"][1], z / _UNIT]
        if number % 3 == 0:
            solid |= {"alive": 1.0, "sway": [0.25, 0.0, 0.15], "wave": [cycles, rng.uniform(0, 2 * math.pi)]}
        solids.append(solid)
    solids.sort(key=lambda solid: solid["box"])
    scene = {"room": [_UNIT * size for size in room], "haze": [0.0] * 4, **lights(rng, 0.3, room)}
    scene["bulb"] = [_UNIT * x for x in scene["bulb"]]
    return _assemble(solids, room_materials(rng, 0.3, room), scene, is_open=False, static=False)


def _draw_room(rng: Random, is_open: bool) -> Vector:
    side = (2.5, 4.5) if is_open else (0.85, 1.2)
    return [rng.uniform(*side), rng.uniform(0.45, 0.75), rng.uniform(*side)]


def _draw_path(rng: Random, level: float, room: Vector) -> tuple[CameraPath, list[Vector]]:
    """The path, and where its eye is at five times."""
    height = rng.uniform(-0.5, 0.35) * room[1]
    distance = min(rng.uniform(0.75, 1.0) + level * rng.uniform(-0.15, 0.3), 0.88 * room[2])
    eye = [rng.uniform(-0.3, 0.3), height, -distance]
    length = rng.uniform(0.2, 0.65) * (1 + 0.4 * level)
    angle, tilt = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4)
    way = [length * math.cos(angle), length * tilt, 0.6 * length * math.sin(angle)]
    limit = [0.93 * size for size in room]
    way = [w * min(1.0, 2 * (b - abs(e)) / (abs(w) + 1e-9)) for w, e, b in zip(way, eye, limit, strict=True)]
    look = 0.08 + 0.12 * level
    target = [rng.uniform(-0.1, 0.1), room[1] * rng.uniform(0.2, 0.6), rng.uniform(0.0, 0.3)]
    drift = [rng.uniform(-look, look) for _ in range(3)]
    shake = rng.uniform(0.002, 0.008) * (1 + level)
    path = CameraPath(
        _UNIT * torch.tensor([eye, way, [shake] * 3], dtype=torch.float64),
        _UNIT * torch.tensor([target, drift, [shake] * 3], dtype=torch.float64),
        torch.tensor(
            [[rng.uniform(0.8, 2.5) for _ in range(3)], [rng.uniform(0, 6.28) for _ in range(3)]], dtype=torch.float64
        ),
        torch.tensor([rng.uniform(-0.12, 0.12) * level, rng.uniform(0, 0.02)], dtype=torch.float64),
        math.radians(rng.uniform(45, 70) + level * rng.uniform(-5, 10)),
    )
    return path, [[e + w * (t - 0.5) for e, w in zip(eye, way, strict=True)] for t in _MOMENTS]


# --- solids ------------------------------------------------------------------------------------------------------

_MOMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_STILL = {
    "velocity": [0.0] * 3, "sway": [0.0] * 3, "turn_axis": [0.0, 1.0, 0.0], "turn": [0.0, 0.0], "joint": [0.0] * 3,
    "swing_axis": [1.0, 0.0, 0.0], "swing": [0.0, 0.0], "offset": [0.0] * 3, "stretch": [0.0] * 3, "lean": [0.0] * 2,
    "wave": [1.0, 0.0], "alive": 1.0, "roundness": 1.0, "z_range": [-1.1, 1.1], "box": False,
}  # fmt: skip


def _draw_solids(rng: Random, level: float, room: Vector, eyes: list[Vector]) -> list[dict]:
    count = rng.choice((1, 2)) + int(level * rng.uniform(0, 4))
    solids: list[dict] = []
    placed: list[list[Vector]] = []  # centre and radius of each at five times
    if rng.random() < 0.4 * level:
        _place(rng, lambda: _draw_figure(rng, level, room), room, eyes, solids, placed)
    for index in range(count):
        moves = index == 0 or rng.random() < 0.5
        _place(rng, lambda moves=moves: [_draw_solid(rng, level, room, moves)], room, eyes, solids, placed)
    for _ in range(int(level * rng.uniform(0, 3.5))):
        _place(rng, lambda: [_draw_furniture(rng, level, room)], room, eyes, solids, placed)
    return solids


def _place(rng: Random, draw, room: Vector, eyes: list[Vector], solids: list[dict], placed: list) -> None:
    """Add what `draw` draws if it keeps clear of the eye, the walls and the others at all times; the first always."""
    for attempt in range(12):
        parts = draw()
        track = _bounds(parts[0])
        damp = 0.85 ** max(0, attempt - 3)
        if _is_clear(track, room, eyes, placed, damp) or (not solids and attempt == 11):
            solids += parts
            placed.append(track)
            return


def _bounds(solid: dict) -> list[Vector]:
    """[x, y, z, radius] at five times; figures bring their own radius."""
    radius = solid.get("radius", max(solid["half_size"]) * (1.2 if solid["box"] else 1.0))
    anchor, velocity = solid["anchor"], solid["velocity"]
    return [[*(a + v * (t - 0.5) for a, v in zip(anchor, velocity, strict=True)), radius] for t in _MOMENTS]


def _is_clear(track: list[Vector], room: Vector, eyes: list[Vector], placed: list, damp: float) -> bool:
    for moment, (x, y, z, radius) in enumerate(track):
        if abs(x) > room[0] - 0.8 * radius or abs(z) > room[2] - 0.8 * radius:
            return False
        if math.dist((x, y, z), eyes[moment]) < radius + 0.3:
            return False
        if any(math.dist((x, y, z), o[moment][:3]) < 0.85 * damp * (radius + o[moment][3]) for o in placed):
            return False
    return True


def _draw_solid(rng: Random, level: float, room: Vector, moves: bool) -> dict:
    size = rng.uniform(0.15 - 0.08 * level, 0.28 + 0.04 * level)
    half_size = [size * rng.uniform(0.75, 1.25) for _ in range(3)]
    kind = rng.choice(("ball", "ellipsoid", "box", "box", "cylinder", "dome"))
    solid = {**_STILL, **_shape(rng, kind, half_size)}
    upright = solid["half_size"][2 if kind in ("cylinder", "dome") else 1]
    floats = rng.random() < 0.35
    height = room[1] - upright - (rng.uniform(0.1, 0.5) if floats else 0.0)
    if kind == "dome":
        height = room[1] + solid["half_size"][2] * solid["z_range"][0] - (0.2 if floats else 0.0)
    spread = 0.28 + 0.3 * level
    solid["anchor"] = [rng.uniform(-spread, spread), height, rng.uniform(-0.1, 0.1 + spread)]
    solid["turn"] = [rng.uniform(-3.1, 3.1), 0.0]
    if floats or kind == "ball":
        solid["turn_axis"] = _direction(rng)
    if moves:
        _set_moving(rng, level, solid, floats)
    else:
        solid["alive"] = 0.0
    solid["material"] = solid_material(rng, level, solid["half_size"])
    return solid


def _shape(rng: Random, kind: str, half_size: Vector) -> dict:
    """Cylinders and domes stand on their local z axis, which a quarter turn about x sets upright."""
    if kind == "box":
        return {"half_size": [0.85 * h for h in half_size], "box": True}
    if kind == "ball":
        return {"half_size": [half_size[0]] * 3}
    upright = {"swing": [math.pi / 2, 0.0]}
    if kind == "cylinder":
        height = half_size[2] * rng.uniform(0.8, 1.3)
        size = [0.8 * half_size[0], 0.8 * half_size[1], height]
        return {"half_size": size, "roundness": 0.0, "z_range": [-1.0, 1.0], **upright}
    if kind == "dome":
        return {"half_size": [1.1 * h for h in half_size], "z_range": [rng.uniform(-0.5, 0.1), 1.1], **upright}
    return {"half_size": half_size}


def _set_moving(rng: Random, level: float, solid: dict, floats: bool) -> None:
    length = rng.uniform(0.35, 0.9) * (1 + 0.5 * level)
    angle = rng.uniform(0, 2 * math.pi)
    climb = rng.uniform(-0.4, 0.4) * length if floats else 0.0
    solid["velocity"] = [length * math.cos(angle), climb, 0.8 * length * math.sin(angle)]
    solid["turn"][1] = rng.uniform(-1.2, 1.2) * (1 + 1.5 * level)
    solid["wave"] = [rng.uniform(0.4, 1.0 + level), rng.uniform(0, 2 * math.pi)]
    if rng.random() < 0.5 * level + 0.15:
        sway = rng.uniform(0.02, 0.06 + 0.08 * level)
        solid["sway"] = [sway * x for x in _direction(rng)]
        if not floats:  # a hop: up from the floor and back to it
            solid["sway"] = [0.0, -sway, 0.0]
            solid["anchor"][1] -= sway
    if rng.random() < 0.35 * level:
        stretch = rng.uniform(0.1, 0.3)
        solid["stretch"] = [stretch, -stretch, stretch]
    if rng.random() < 0.25 * level:
        solid["lean"] = [rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.3)]


def _draw_furniture(rng: Random, level: float, room: Vector) -> dict:
    """A still box or column anywhere in the room."""
    half_size = [rng.uniform(0.08, 0.3) for _ in range(3)]
    shape = {"half_size": half_size, "box": True}
    if rng.random() < 0.3:
        shape = _shape(rng, "cylinder", [0.4 * half_size[0], 0.4 * half_size[0], half_size[1]])
    solid = {**_STILL, **shape, "alive": 0.0}
    wide = [min(size - 0.3, 1.5) for size in room]
    upright = shape["half_size"][1 if shape.get("box") else 2]
    solid["anchor"] = [rng.uniform(-wide[0], wide[0]), room[1] - upright, rng.uniform(0.0, wide[2])]
    solid["turn"] = [rng.uniform(-3.1, 3.1) if rng.random() < 0.5 else 0.0, 0.0]
    solid["material"] = solid_material(rng, level, half_size)
    return solid


def _draw_figure(rng: Random, level: float, room: Vector) -> list[dict]:
    """A walker: torso, head, two arms and two legs that swing about shoulders and hips."""
    tall = rng.uniform(0.22, 0.42)  # half its height
    heading, pace = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.7) * (1 if rng.random() < 0.8 else 0)
    anchor = [rng.uniform(-0.4, 0.4), room[1] - tall, rng.uniform(0.0, 0.5)]
    common = {
        **_STILL,
        "anchor": anchor,
        "velocity": [pace * math.sin(heading), 0.0, pace * math.cos(heading)],
        "sway": [0.0, 0.01, 0.0],
        "turn": [heading, rng.uniform(-0.6, 0.6)],
        "wave": [rng.uniform(0.7, 2.0), rng.uniform(0, 2 * math.pi)],
        "radius": tall,
    }
    swing = rng.uniform(0.3, 0.7)
    #        half size, joint, offset from it, swing; in units of `tall`, y down, z ahead
    parts = [
        ([0.24, 0.36, 0.15], [0, -0.2, 0], [0, 0, 0], 0.04),
        ([0.14, 0.18, 0.15], [0, -0.55, 0], [0, -0.24, 0], 0.1),
        ([0.08, 0.33, 0.08], [-0.27, -0.42, 0], [0, 0.28, 0], swing),
        ([0.08, 0.33, 0.08], [0.27, -0.42, 0], [0, 0.28, 0], -swing),
        ([0.11, 0.46, 0.11], [-0.12, 0.1, 0], [0, 0.44, 0], -swing),
        ([0.11, 0.46, 0.11], [0.12, 0.1, 0], [0, 0.44, 0], swing),
    ]
    clothes = [solid_material(rng, level, [0.24 * tall, 0.36 * tall, 0.15 * tall]) for _ in range(3)]
    dressed = (clothes[0], clothes[1], clothes[0], clothes[0], clothes[2], clothes[2])
    return [
        {
            **common,
            **{key: [tall * x for x in value] for key, value in zip(_PART_LENGTHS, part, strict=False)},
            "swing": [0.0, part[3]],
            "material": material,
        }
        for part, material in zip(parts, dressed, strict=True)
    ]


_PART_LENGTHS = ("half_size", "joint", "offset")


def _direction(rng: Random) -> Vector:
    z, angle = rng.uniform(-1, 1), rng.uniform(0, 2 * math.pi)
    radius = math.sqrt(1 - z * z)
    return [radius * math.cos(angle), z, radius * math.sin(angle)]


def _assemble(solids: list[dict], faces: list[Vector], scene: dict, is_open: bool, static: bool) -> World:
    columns = {f.name: torch.tensor([[s[f.name] for s in solids]], dtype=torch.float64) for f in fields(Motion)}
    columns |= {name: _UNIT * columns[name] for name in _LENGTHS}
    if static:
        columns["alive"] = torch.zeros_like(columns["alive"])
    return World(
        num_quadrics=sum(not solid["box"] for solid in solids),
        motion=Motion(**columns),
        exists=torch.ones(1, len(solids), dtype=torch.bool),
        roundness=torch.tensor([[solid["roundness"] for solid in solids]]),
        z_range=torch.tensor([[solid["z_range"] for solid in solids]]),
        is_open=torch.tensor([is_open]),
        materials=torch.tensor([[solid["material"] for solid in solids] + faces]),
        **{name: torch.tensor([value]) for name, value in scene.items()},
    )
