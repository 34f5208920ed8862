"""What a synthetic world is: solids that move through continuous time in a room or on open ground, and its lights.

World axes are OpenCV's: +y is down, the floor is at y = +room[1]. A solid is the unit ball (with `roundness` 0 a
cylinder along z, and cut by z_range) or the cube [-1, 1]^3 in its own coordinates. Its map to the world is affine at
every time,

    x = anchor + way(t) + Turn(t) (joint + Swing(t) (offset + Lean(t) diag(half_size * stretch(t)) l)),

so that a point l of it has an exact track, also where stretch and lean make the motion non-rigid.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

ROOM_FACES = 6  # material rows after the solids': -x, +x, ceiling (-y), floor (+y), -z, +z
FLOOR = 3


@dataclass(frozen=True)
class Motion:
    """Poses over time, float64 because they are small, differenced and inverted."""

    anchor: Tensor  # [S, K, 3] where it is at time 0.5
    velocity: Tensor  # [S, K, 3] way over the whole clip
    sway: Tensor  # [S, K, 3] amplitude of a wave on that way
    turn_axis: Tensor  # [S, K, 3]
    turn: Tensor  # [S, K, 2] angle at time 0.5, and angle over the whole clip
    joint: Tensor  # [S, K, 3]
    swing_axis: Tensor  # [S, K, 3]
    swing: Tensor  # [S, K, 2] angle, and amplitude of its wave
    offset: Tensor  # [S, K, 3]
    half_size: Tensor  # [S, K, 3]
    stretch: Tensor  # [S, K, 3] relative amplitude of a wave on the size
    lean: Tensor  # [S, K, 2] amplitude of the shear of x and z by y
    wave: Tensor  # [S, K, 2] cycles over the clip, phase
    alive: Tensor  # [S, K] 1 where the solid moves, 0 where it stands as it is at time 0.5

    def select(self, index: Tensor) -> "Motion":
        return Motion(*(getattr(self, f.name)[index] for f in fields(self)))

    def poses(self, times: Tensor) -> tuple[Tensor, Tensor]:  # [S] -> [S, K, 3, 3], [S, K, 3] float64
        """The affine maps (matrix, translation) from solid to world, one time for each scene."""
        time = 0.5 + self.alive * (times.double()[:, None] - 0.5)  # [S, K]
        wave = torch.sin(2 * torch.pi * self.wave[..., 0] * time + self.wave[..., 1])  # [S, K]
        turn = axis_rotation(self.turn_axis, self.turn[..., 0] + self.turn[..., 1] * (time - 0.5))
        swing = axis_rotation(self.swing_axis, self.swing[..., 0] + self.swing[..., 1] * wave)
        size = self.half_size * (1 + self.stretch * wave[..., None])
        lean = torch.eye(3, dtype=size.dtype, device=size.device).expand(*wave.shape, 3, 3).clone()
        lean[..., 0, 1] = self.lean[..., 0] * wave
        lean[..., 2, 1] = self.lean[..., 1] * wave
        matrix = turn @ swing @ lean * size[..., None, :]
        inner = self.joint + (swing @ self.offset[..., None])[..., 0]
        way = self.velocity * (time - 0.5)[..., None] + self.sway * wave[..., None]
        return matrix, self.anchor + way + (turn @ inner[..., None])[..., 0]


def axis_rotation(axis: Tensor, angle: Tensor) -> Tensor:  # [..., 3] unit, [...] -> [..., 3, 3]
    """Rodrigues' rotation: I + sin K + (1 - cos) K K."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    sine, versine = angle.sin()[..., None, None], (1 - angle.cos())[..., None, None]
    return torch.eye(3, dtype=axis.dtype, device=axis.device) + sine * cross + versine * (cross @ cross)


@dataclass(frozen=True)
class World:
    """S worlds of K solids each, `num_quadrics` balls and cylinders first, then boxes."""

    num_quadrics: int
    motion: Motion  # [S, K]
    exists: Tensor  # [S, K] bool, False where a slot pads a smaller world
    roundness: Tensor  # [S, K] 1 ball, 0 cylinder
    z_range: Tensor  # [S, K, 2] cuts of balls and cylinders
    room: Tensor  # [S, 3] half sizes; its middle is the origin
    is_open: Tensor  # [S] bool: all faces but the floor are sky
    lamp: Tensor  # [S, 3] unit vector towards the distant light
    lamp_color: Tensor  # [S, 3]
    bulb: Tensor  # [S, 3] position of the near light
    bulb_color: Tensor  # [S, 3]
    ambient: Tensor  # [S, 2] light from above, light from below
    haze: Tensor  # [S, 4] colour and density, what far points fade to
    materials: Tensor  # [S, K + 6, WIDTH]

    @property
    def num_solids(self) -> int:
        return self.exists.shape[1]

    def select(self, scenes: Tensor) -> "World":  # [F]
        """The worlds at `scenes`, repeated as asked."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v[scenes] if isinstance(v, Tensor) else v for k, v in parts.items()}
        return World(**{**moved, "motion": self.motion.select(scenes)})

    def to(self, device: torch.device | str) -> "World":
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in parts.items()}
        motion = Motion(*(getattr(self.motion, f.name).to(device) for f in fields(Motion)))
        return World(**{**moved, "motion": motion})

    def moving(self) -> Tensor:  # [S, K + 1] bool
        """Which solids move; the last entry is the room's, which never does."""
        alive = (self.motion.alive > 0) & self.exists
        return torch.cat([alive, torch.zeros_like(alive[:, :1])], dim=1)

    @staticmethod
    def stack(worlds: list["World"]) -> "World":
        """Worlds of any numbers of solids in one, smaller ones padded with solids that do not exist."""
        most = max(w.num_quadrics for w in worlds), max(w.num_solids - w.num_quadrics for w in worlds)
        worlds = [w if w._counts() == most else w._padded(*most) for w in worlds]
        if len(worlds) == 1:
            return worlds[0]
        tensors = [f.name for f in fields(World) if f.name not in ("num_quadrics", "motion")]
        motion = Motion(*(torch.cat([getattr(w.motion, f.name) for w in worlds]) for f in fields(Motion)))
        return World(most[0], motion, *(torch.cat([getattr(w, name) for w in worlds]) for name in tensors))

    def _counts(self) -> tuple[int, int]:
        return self.num_quadrics, self.num_solids - self.num_quadrics

    def _padded(self, quadrics: int, boxes: int) -> "World":
        """Insert copies of material and motion rows; `exists` hides them. Needs K >= 1."""
        own_quadrics, own_boxes = self._counts()
        rows = list(range(own_quadrics)) + [0] * (quadrics - own_quadrics)
        rows += list(range(own_quadrics, own_quadrics + own_boxes)) + [0] * (boxes - own_boxes)
        index = torch.tensor(rows, dtype=torch.long, device=self.exists.device)
        faces = torch.arange(ROOM_FACES, device=index.device) + self.num_solids
        real = torch.tensor(
            [k < own_quadrics or quadrics <= k < quadrics + own_boxes for k in range(quadrics + boxes)],
            device=index.device,
        )
        per_solid = {name: getattr(self, name)[:, index] for name in ("roundness", "z_range")}
        parts = {f.name: getattr(self, f.name) for f in fields(self)} | per_solid
        parts["motion"] = Motion(*(getattr(self.motion, f.name)[:, index] for f in fields(Motion)))
        parts["materials"] = self.materials[:, torch.cat([index, faces])]
        parts["exists"] = self.exists[:, index] & real
        return World(**{**parts, "num_quadrics": quadrics})
