"""What depth maps alone say of surfaces: where they break off, which way they face, and points to ask for."""

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.clip import Tracks, Views
from movies.geometry import pixel_rays, project

EDGE = 0.4  # Sobel's answer to the log of depth: what a step of a tenth of the depth gives
MOST = 0.1  # of a picture are discontinuities at most: the steepest, as a slope seen at few pixels is steep as well
REACH = 1  # pixels around a discontinuity that count as near it
SEEN_TOLERANCE = 0.03  # a depth map shows a point whose depth differs by at most this share


def depth_edges(depth: Tensor, mask: Tensor) -> Tensor:  # [..., H, W] each -> [..., H, W] bool
    """Pixels near a discontinuity: Sobel's gradient of log depth over EDGE and among the steepest of its picture.

    Unknown depth counts as infinitely far.
    """
    height, width = depth.shape[-2:]
    far = torch.where(mask, depth, depth.new_tensor(1e4)).clamp(min=1e-6).log().reshape(-1, 1, height, width)
    kernel = depth.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    padded = F.pad(far, (1, 1, 1, 1), mode="replicate")
    gradient = F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None]).norm(dim=1, keepdim=True)  # [L, 1, H, W]
    least = gradient.flatten(1).kthvalue(max(1, round((1 - MOST) * height * width)), dim=1).values[:, None, None, None]
    edges = (gradient > least.clamp(min=EDGE)).to(depth.dtype)
    return (F.max_pool2d(edges, 2 * REACH + 1, stride=1, padding=REACH) > 0).reshape(depth.shape)


def depth_normals(depth: Tensor, mask: Tensor, fxfycxcy: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals [..., H, W, 3] in camera axes, towards the camera, and where they are known [..., H, W].

    The cross product of the differences between neighbours; unknown at the border, beside unknown depth and across
    discontinuities.
    """
    points = pixel_rays(fxfycxcy, *depth.shape[-2:]) * depth[..., None]  # [..., H, W, 3]
    down = F.pad(points[..., 2:, :, :] - points[..., :-2, :, :], (0, 0, 0, 0, 1, 1))
    right = F.pad(points[..., 2:, :] - points[..., :-2, :], (0, 0, 1, 1))
    normals = F.normalize(torch.linalg.cross(down, right), dim=-1)
    facing = (normals * points).sum(dim=-1, keepdim=True)
    normals = torch.where(facing > 0, -normals, normals)
    known = mask & ~depth_edges(depth, mask)
    inside = torch.zeros_like(mask)
    inside[..., 1:-1, 1:-1] = True
    return normals, known & inside & (facing[..., 0].abs() > 0)


def depth_tracks(views: Views, is_static: Tensor, count: int, generator: torch.Generator | None) -> Tracks:
    """`count` pixels [B, V, P] drawn from known depth as tracks: where nothing moves known in every view, else in one.

    Views have leading dims [B, V]. Visible where a view's depth map shows them. Without any known depth: invisible.
    """
    points = views.points().flatten(1, 3)  # [B, V H W, 3]
    known = views.depth_mask.flatten(1)  # [B, V H W]
    draw = torch.rand(len(points), count, generator=generator, device=points.device)
    place = nth_true(known, torch.arange(len(points), device=points.device)[:, None].expand(-1, count), draw)
    chosen = points.gather(1, place.clamp(min=0)[..., None].expand(-1, -1, 3))  # [B, P, 3]
    height, width = views.size
    own = place // (height * width)  # [B, P] view
    everywhere = chosen[:, None].expand(-1, views.times.shape[1], -1, -1)  # [B, V, P, 3]
    xy, z = project(everywhere, views.cameras.fxfycxcy, views.cameras.c2w)
    pixel, inside = pixel_of(xy, height, width)
    surface = views.depth.flatten(2).gather(2, pixel)
    shown = views.depth_mask.flatten(2).gather(2, pixel) & ((z - surface).abs() <= SEEN_TOLERANCE * surface)
    here = own[:, None] == torch.arange(everywhere.shape[1], device=own.device)[:, None]  # [B, V, P]
    applies = (is_static[:, None, None] | here) & (place >= 0)[:, None]
    return Tracks(torch.where(applies[..., None], everywhere, torch.nan), applies & inside & (z > 0) & shown)


def pixel_of(xy: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:  # [..., 2] -> [...], [...]
    """The pixel (row * W + column) that holds a normalised position, and whether it lies inside; 0 where not."""
    size = xy.new_tensor([width, height])
    inside = ((xy >= 0) & (xy < 1)).all(dim=-1)  # False for NaN
    column, row = torch.where(inside[..., None], xy * size, torch.zeros_like(xy)).long().unbind(-1)
    return row.clamp(max=height - 1) * width + column.clamp(max=width - 1), inside


def nth_true(mask: Tensor, rows: Tensor, fraction: Tensor) -> Tensor:  # [R, P] bool, [...], [...] in [0, 1) -> [...]
    """Of mask row `rows`, the column of its True entry at `fraction` of their number; -1 for an empty row."""
    ranks = mask.flatten().cumsum(0)  # over all rows, so that one search serves every query
    last = ranks[mask.shape[1] - 1 :: mask.shape[1]]  # [R]
    count = mask.sum(dim=1)
    wanted = (last - count)[rows] + (fraction * count[rows]).long() + 1
    column = torch.searchsorted(ranks, wanted.contiguous()) - rows * mask.shape[1]
    return torch.where(count[rows] > 0, column, -torch.ones_like(column))
