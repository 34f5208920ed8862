"""Materials of synthetic worlds: procedural albedo at several scales, a function of a point of the solid itself.

Noise is a sum of a fixed bank of plane waves, with the slow waves warping the domain of the fast ones; variety comes
from each material's own scale, offset, palette and pattern weights. That is a few matrix products and no hashing per
octave, which is what makes it cheap enough to feed training from one core.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

PATTERNS = ("clouds", "grain", "checks", "stripes", "blotches", "grout", "gradient", "mosaic")
# Columns of a material row, in order, with their widths.
_LAYOUT = {
    "scale": 3, "offset": 3, "stripe": 3, "first": 3, "second": 3, "third": 3,
    "blend": len(PATTERNS), "accent": len(PATTERNS), "warp": 1, "gloss": 1, "corner": 1,
}  # fmt: skip
WIDTH = sum(_LAYOUT.values())
_NUM_SLOW, _NUM_FAST = 8, 16


def material_row(**columns: list[float] | float) -> list[float]:
    """One row of the material table [WIDTH]; columns not named are 0. Colours are RGB, weights follow PATTERNS."""
    row: list[float] = []
    for name, width in _LAYOUT.items():
        value = columns.pop(name, [0.0] * width)
        row += value if isinstance(value, list) else [value]
    if columns or len(row) != WIDTH:
        raise TypeError(f"a material has {', '.join(_LAYOUT)}; got also {', '.join(columns) or 'wrong widths'}")
    return row


def pattern_weights(**weights: float) -> list[float]:
    """Weights in the order of PATTERNS."""
    return [weights.get(name, 0.0) for name in PATTERNS]


def split_columns(columns: Tensor) -> dict[str, Tensor]:  # [WIDTH, N] -> name -> [width, N], or [N] for width 1
    """Views on gathered material columns by name."""
    parts = columns.split(list(_LAYOUT.values()))
    return {name: part if part.shape[0] > 1 else part[0] for name, part in zip(_LAYOUT, parts, strict=True)}


def albedo(material: dict[str, Tensor], local: Tensor) -> Tensor:  # [width, N], [3, N] -> [3, N] RGB in [0, 1]
    """Colour at points given in the solids' own coordinates."""
    patterns = _patterns(material, local)  # 8 of [N]
    blend = _weighted(material["blend"], patterns).add_(0.5).clamp_(0, 1)
    accent = _weighted(material["accent"], patterns).clamp_(0, 1)
    color = torch.lerp(material["first"], material["second"], blend)
    return torch.lerp(color, material["third"], accent)


def _weighted(weights: Tensor, patterns: list[Tensor]) -> Tensor:  # [8, N], 8 of [N] -> [N]
    total = weights[0] * patterns[0]
    for weight, pattern in zip(weights[1:], patterns[1:], strict=True):
        total.addcmul_(weight, pattern)
    return total


def _patterns(material: dict[str, Tensor], local: Tensor) -> list[Tensor]:  # -> 8 of [N], about -0.5..0.5
    domain = torch.addcmul(material["offset"], material["scale"], local)  # [3, N]
    slow, fast, slow_mix, fast_mix, phase_slow, phase_fast = _bank(local.device)
    slow_noise = slow_mix @ torch.sin(torch.addmm(phase_slow, slow, domain))  # [4, N]: clouds and a warp vector
    warped = torch.addcmul(domain, material["warp"], slow_noise[1:])
    fast_noise = fast_mix @ torch.sin(torch.addmm(phase_fast, fast, warped))  # [2, N]: medium, fine
    cells = domain.floor()
    within = domain.sub(cells).sub_(0.5).abs_()  # [3, N] distance from the cell's middle
    parity = cells.sum(dim=0).mul_(0.5)
    stripes = torch.sin((material["stripe"] * warped).sum(dim=0)).mul_(4).clamp_(-0.5, 0.5)
    blotches = (slow_noise[0] + 0.7 * fast_noise[0]).mul_(6).clamp_(-0.5, 0.5)
    # Lines between cells. The coordinate that a face holds fixed counts too, so that a rare face is all grout: plain.
    grout = within.amax(dim=0).sub_(0.46).mul_(40).clamp_(0, 1)
    return [
        slow_noise[0] + 0.5 * fast_noise[0],
        fast_noise[1],
        parity.sub_(parity.floor()).mul_(2).sub_(0.5),
        stripes,
        blotches,
        grout,
        local[1],
        _cell_value(cells),
    ]


def _cell_value(cells: Tensor) -> Tensor:  # [3, N] integers -> [N] in -0.5..0.5
    """A value for every cell; small multipliers keep the argument where float32 sine agrees on all machines."""
    mixed = torch.sin(cells[0] * 1.9 + torch.sin(cells[1] * 2.7 + torch.sin(cells[2] * 3.1) * 2.3) * 2.9)
    return mixed.mul_(0.5)


@lru_cache(maxsize=4)
def _bank(device: torch.device) -> tuple[Tensor, ...]:
    """Wave vectors [waves, 3], mixes and phases [waves, 1]; directions of a spherical Fibonacci lattice."""
    slow = _lattice(_NUM_SLOW) * torch.linspace(0.8, 1.7, _NUM_SLOW)[:, None]
    fast = _lattice(_NUM_FAST) * torch.tensor([2.7, 3.3, 3.9, 4.6] * 2 + [7.1, 8.3, 9.7, 11.3] * 2)[:, None]
    index = torch.arange(4)[:, None] * _NUM_SLOW + torch.arange(_NUM_SLOW)
    slow_mix = torch.sin(index * 2.399 + 0.7) * (1.0 / math.sqrt(2 * _NUM_SLOW))  # [4, 8]
    fast_mix = torch.zeros(2, _NUM_FAST)
    fast_mix[0, :8], fast_mix[1, 8:] = 0.25, 0.25
    phases = torch.arange(_NUM_SLOW + _NUM_FAST)[:, None] * 2.399
    parts = (slow, fast, slow_mix, fast_mix, phases[:_NUM_SLOW], phases[_NUM_SLOW:])
    return tuple(part.float().to(device) for part in parts)


def _lattice(count: int) -> Tensor:  # [count, 3] unit vectors
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * index / count
    angle = index * math.pi * (3 - math.sqrt(5))
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1).float()
