"""Drawing materials and lights of synthetic worlds from a seed."""

import colorsys
import math
from random import Random

from movies.data.synthetic_textures import material_row, pattern_weights

Vector = list[float]
_MOTIFS = ("checks", "stripes", "blotches", "grout", "mosaic")


def color(rng: Random, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Vector:
    """RGB of uniform hue, saturation and value; hues wrap."""
    return list(colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value)))


def any_color(rng: Random, level: float) -> Vector:
    return color(rng, (0, 1), (0.5 - 0.45 * level, 1), (0.45 - 0.35 * level, 1))


def shifted(rng: Random, base: Vector, amount: float) -> Vector:
    """A relative of `base`, lighter or darker and a little other in hue."""
    factor = 1 + rng.choice((-1, 1)) * rng.uniform(0.5, 1) * amount
    return [min(max(c * factor + rng.uniform(-0.1, 0.1) * amount, 0.02), 0.98) for c in base]


def solid_material(rng: Random, level: float, half_size: Vector) -> Vector:
    """A coloured solid with one or two motifs over clouds and grain."""
    first = any_color(rng, level)
    second = any_color(rng, level) if rng.random() < 0.5 else shifted(rng, first, 0.6)
    cell = rng.uniform(0.035, 0.11)
    return material_row(
        **_domain(rng, half_size, cell),
        first=first,
        second=second,
        third=any_color(rng, level),
        blend=_motif_weights(rng, 0.9),
        accent=_accent_weights(rng, 0.5),
        warp=rng.uniform(0, 1.2),
        gloss=rng.uniform(0, 0.5) if rng.random() < 0.5 else 0.0,
    )


def room_materials(rng: Random, level: float, room: Vector) -> list[Vector]:
    """Rows of the six faces: four walls, a pale ceiling, a brown floor; all may be anything with rising level."""
    walls = color(rng, (0, 1), (0.15, 0.5), (0.5, 0.85))
    faces = []
    for face in range(6):
        free = rng.random() < 0.6 * level
        base = any_color(rng, level) if free else _plain_face(rng, face, walls)
        faces.append(_face_row(rng, base, room, strength=0.35 if face == 2 and not free else 0.9))
    return faces


def sky_materials(rng: Random, level: float, room: Vector) -> tuple[list[Vector], Vector]:
    """Rows of the six faces of open ground, and the colour of the horizon."""
    horizon, zenith = (
        color(rng, (0.5, 0.65), (0.05, 0.25), (0.75, 1)),
        color(rng, (0.55, 0.64), (0.3, 0.8), (0.5, 0.95)),
    )
    low = [2 * h - z for h, z in zip(horizon, zenith, strict=True)]  # so that the middle of the two is the horizon
    sky = material_row(
        **_domain(rng, [1.0, 1.0, 1.0], rng.uniform(0.12, 0.3)),
        first=low,
        second=zenith,
        third=[0.95, 0.95, 0.95],
        blend=pattern_weights(gradient=-rng.uniform(0.5, 1.2)),
        accent=pattern_weights(clouds=rng.uniform(0, 1.2), gradient=-0.2),
        warp=0.5,
    )
    earthy = color(rng, (0.05, 0.35), (0.2, 0.6), (0.25, 0.65))
    ground = any_color(rng, level) if rng.random() < 0.3 * level else earthy
    return [_face_row(rng, ground, room, 0.9) if face == 3 else sky for face in range(6)], horizon


def lights(rng: Random, level: float, room: Vector) -> dict[str, list[float]]:
    """A lamp from above, a bulb near the ceiling, and light from all around."""
    tilt = 0.35 + 0.6 * level
    lamp = [rng.uniform(-tilt, tilt), -1.0, rng.uniform(-tilt, 0.6 * tilt)]
    length = math.hypot(*lamp)
    power, warmth = rng.uniform(0.45, 0.75), rng.uniform(-0.08, 0.08) * (1 + level)
    bulb = [rng.uniform(-0.5, 0.5), -0.6 * room[1], rng.uniform(-0.5, 0.4)]
    ambient = rng.uniform(0.4, 0.6) * (1 - 0.3 * level * rng.random())
    return {
        "lamp": [x / length for x in lamp],
        "lamp_color": [power * (1 + warmth), power, power * (1 - warmth)],
        "bulb": bulb,
        "bulb_color": [rng.uniform(0.15, 0.45)] * 3,
        "ambient": [ambient, ambient * rng.uniform(0.8, 1.2)],
    }


def _plain_face(rng: Random, face: int, walls: Vector) -> Vector:
    if face == 3:
        return color(rng, (0.04, 0.11), (0.35, 0.65), (0.35, 0.6))
    if face == 2:
        return color(rng, (0, 1), (0, 0.1), (0.88, 0.98))
    return walls if rng.random() < 0.5 else color(rng, (0, 1), (0.15, 0.5), (0.5, 0.85))


def _face_row(rng: Random, base: Vector, room: Vector, strength: float) -> Vector:
    return material_row(
        **_domain(rng, room, rng.uniform(0.09, 0.28)),
        first=shifted(rng, base, 0.4 * strength),
        second=shifted(rng, base, 0.4 * strength),
        third=shifted(rng, base, 0.8 * strength),
        blend=_motif_weights(rng, strength),
        accent=_accent_weights(rng, strength),
        warp=rng.uniform(0, 1.0),
        corner=rng.uniform(0.2, 0.5),
    )


def _domain(rng: Random, half_size: Vector, cell: float) -> dict[str, Vector]:
    """Where the material's patterns sample: cells of one size in the world, somewhere in the endless noise."""
    angle, tilt, pitch = rng.uniform(0, 2 * math.pi), rng.uniform(-1, 1), rng.uniform(1.2, 3.5)
    direction = [math.cos(angle), tilt, math.sin(angle)]
    length = math.hypot(*direction)
    return {
        "scale": [size / cell for size in half_size],
        "offset": [rng.uniform(-40, 40) for _ in range(3)],
        "stripe": [pitch * d / length for d in direction],
    }


def _motif_weights(rng: Random, strength: float) -> Vector:
    weights = {"clouds": rng.uniform(0.2, 0.6), "grain": rng.uniform(0.1, 0.5), "gradient": rng.uniform(-0.25, 0.25)}
    for motif in rng.sample(_MOTIFS, rng.choice((0, 1, 1, 2))):
        weights[motif] = rng.choice((-1, 1)) * rng.uniform(0.5, 1)
    return pattern_weights(**{name: weight * strength for name, weight in weights.items()})


def _accent_weights(rng: Random, strength: float) -> Vector:
    if rng.random() < 0.4:
        return pattern_weights()
    return pattern_weights(**{rng.choice((*_MOTIFS, "clouds")): rng.uniform(0.5, 1.2) * strength})
