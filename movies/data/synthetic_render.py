"""Ray casting of synthetic worlds: exact z-depth, what is hit where, and shaded antialiased colour.

Rays of a view are d = R K^-1 (x, y, 1) with normalised image positions (x, y), so that the ray parameter is z-depth
and every quantity that an intersection needs (directions in a solid's own coordinates, the quadratic's coefficients)
is a small matrix times one table of image positions. All solids are convex: a hit is where the intervals of a
quadric and a slab, or of three slabs, overlap.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.data.synthetic_textures import albedo, split_columns
from movies.data.synthetic_worlds import FLOOR, ROOM_FACES, World
from movies.geometry import pixel_grid, project

NEAR = 1e-3
_RAYS_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 24}  # what stays in a core's cache; what fits a GPU
# Three samples at different rows and columns of the pixel around its centre; the centre comes last, and gives geometry.
_SAMPLES = ((0.36, 0.1), (-0.27, 0.27), (-0.1, -0.36), (0.0, 0.0))


@dataclass(frozen=True)
class Rendered:
    """F views of synthetic worlds. Where the sky is seen, `depth` is 0 and `depth_mask` False."""

    images: Tensor  # [F, 3, H, W] in [0, 1], antialiased
    depth: Tensor  # [F, H, W] z-depth at pixel centres
    depth_mask: Tensor  # [F, H, W] bool
    solids: Tensor  # [F, H, W] int64, which solid; K is the room
    normals: Tensor  # [F, H, W, 3] unit, world axes, towards the camera; 0 in the sky
    moving: Tensor  # [F, H, W] bool, pixels of solids that move


@dataclass(frozen=True)
class _Stage:
    """F views of worlds at their times: everything that rays need, small tensors only."""

    world: World  # [F]
    inverse: Tensor  # [F, K + 1, 3, 4] world to solid, the room last
    eye: Tensor  # [F, 3]
    rays: Tensor  # [F, 3, 3] R K^-1

    @staticmethod
    def of(world: World, cameras: Cameras, times: Tensor) -> "_Stage":
        """`world` with F scenes, one for each view."""
        _, inverse = affine_tables(world, times)
        return _Stage(world, inverse, cameras.centers.double(), _ray_matrix(cameras))

    def split(self, views: slice) -> "_Stage":
        index = torch.arange(len(self.eye), device=self.eye.device)[views]
        parts = (self.inverse, self.eye, self.rays)
        return _Stage(self.world.select(index), *(part[views] for part in parts))


def _ray_matrix(cameras: Cameras) -> Tensor:  # [F, 3, 3] float64: (x, y, 1) to world direction with z-depth 1
    fx, fy, cx, cy = cameras.fxfycxcy.double().unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    unprojection = torch.stack([1 / fx, zero, -cx / fx, zero, 1 / fy, -cy / fy, zero, zero, one], dim=-1)
    return cameras.c2w[..., :3, :3].double() @ unprojection.unflatten(-1, (3, 3))


def render_worlds(world: World, scenes: Tensor, cameras: Cameras, times: Tensor, height: int, width: int) -> Rendered:
    """Render F views: view f shows world `scenes[f]` [F] at `times[f]` [F] (any in [0, 1]) from `cameras[f]`."""
    stage = _Stage.of(world.select(scenes), cameras, times)
    grid = pixel_grid(height, width, times.device)  # [H, W, 2]
    pixel = torch.tensor([1 / width, 1 / height], device=times.device)
    shifts = torch.tensor(_SAMPLES, device=times.device) * pixel
    places = (grid.flatten(0, 1) + shifts[:, None]).flatten(0, 1).T[None]  # [1, 2, 4 H W]
    step = max(1, _RAYS_AT_ONCE[times.device.type] // places.shape[-1])
    chunks = [_render_chunk(stage.split(slice(f, f + step)), places) for f in range(0, len(times), step)]
    return _assemble(world, scenes, [torch.cat(parts) for parts in zip(*chunks, strict=True)], height, width)


def _render_chunk(stage: _Stage, places: Tensor) -> tuple[Tensor, ...]:  # [1, 2, 4 P] -> 5 of [F, ..., P]
    depth, solid = cast(stage, places)  # [F, 4 P]
    colors, normals, sky = _shade(stage, places, depth, solid)
    samples = colors.unflatten(-1, (len(_SAMPLES), -1))  # [3, F, 4, P]
    image = samples.mean(dim=2).transpose(0, 1).contiguous()  # [F, 3, P]
    center = slice(depth.shape[-1] // len(_SAMPLES) * (len(_SAMPLES) - 1), None)
    return image, depth[:, center], solid[:, center], normals[..., center].transpose(0, 1), sky[:, center]


def _assemble(world: World, scenes: Tensor, parts: list[Tensor], height: int, width: int) -> Rendered:
    image, depth, solid, normals, sky = parts
    known = ~sky
    moving = world.moving()[scenes].gather(1, solid)
    maps = (x.unflatten(-1, (height, width)) for x in (image, depth * known, known, solid, normals * known[:, None]))
    images, depth, known, solid, normals = maps
    normals = normals.movedim(1, -1).contiguous()
    return Rendered(images, depth, known, solid, normals, moving.unflatten(-1, (height, width)))


# --- intersection ------------------------------------------------------------------------------------------------


def cast(stage: _Stage, places: Tensor) -> tuple[Tensor, Tensor]:  # [F or 1, 2, R] -> [F, R], [F, R] int64
    """z-depth and number of the first solid (K: the room) on the rays through normalised image positions."""
    world, num_quadrics = stage.world, stage.world.num_quadrics
    x, y = places[:, 0] - 0.5, places[:, 1] - 0.5  # centred, where the quadratic's terms cancel least
    ones = torch.ones_like(x)
    linear = torch.stack([x, y, ones], dim=1)  # [F or 1, 3, R]
    directions, origins = _local_rays(stage)  # [F, K + 1, 3, 3], [F, K + 1, 3]
    near = []
    if num_quadrics:
        square = torch.stack([x * x, x * y, x, y * y, y, ones], dim=1)
        quadric = slice(0, num_quadrics)
        near.append(_hit_quadrics(world, directions[:, quadric], origins[:, quadric], linear, square))
    box_near, box_far = _slabs(directions[:, num_quadrics:], origins[:, num_quadrics:], linear)  # [F, boxes + 1, R]
    hit = (box_near < box_far) & (box_near > NEAR)
    near.append(torch.where(hit, box_near, torch.inf)[:, :-1])
    solids = torch.cat(near, dim=1).masked_fill_(~world.exists[..., None], torch.inf)  # [F, K, R]
    room = box_far[:, -1:].clamp(min=NEAR)
    depth = torch.minimum(solids.amin(dim=1, keepdim=True), room)  # [F, 1, R]
    numbers = torch.arange(1, world.num_solids + 1, device=x.device, dtype=torch.float32)
    # argmin over a middle dim is slow on CPU; the winner is where the depth equals the minimum.
    first = ((solids == depth) * numbers[:, None]).amax(dim=1).long() - 1
    return depth[:, 0], torch.where(first < 0, world.num_solids, first)


def _local_rays(stage: _Stage) -> tuple[Tensor, Tensor]:
    """Directions as a matrix of (x - 0.5, y - 0.5, 1), and origins, in each solid's coordinates, float64."""
    directions = stage.inverse[..., :3] @ stage.rays[:, None]  # [F, K + 1, 3, 3]
    middle = directions.clone()
    middle[..., 2] += 0.5 * (directions[..., 0] + directions[..., 1])
    origins = (stage.inverse[..., :3] @ stage.eye[:, None, :, None])[..., 0] + stage.inverse[..., 3]
    return middle, origins


def _hit_quadrics(world: World, directions: Tensor, origins: Tensor, linear: Tensor, square: Tensor) -> Tensor:
    """Entry depths [F, Q, R] of balls and cylinders cut by z_range, inf where missed."""
    quad = slice(0, world.num_quadrics)
    weight = torch.ones_like(origins)
    weight[..., 2] = world.roundness[:, quad].double()
    a = directions.transpose(-1, -2) @ (directions * weight[..., None])  # [F, Q, 3, 3] forms of (x, y, 1)
    b = ((origins * weight)[..., None, :] @ directions)[..., 0, :]  # [F, Q, 3]
    c = (origins * origins * weight).sum(dim=-1) - 1  # [F, Q]
    disc = b[..., :, None] * b[..., None, :] - c[..., None, None] * a
    table = torch.cat([_packed(a), _packed(disc)], dim=1).float() @ square  # [F, 2 Q, R]
    a_ray, disc_ray = table.split(world.num_quadrics, dim=1)
    b_ray = b.float() @ linear  # [F, Q, R]
    inverse = a_ray.clamp(min=1e-9).reciprocal()
    half = disc_ray.clamp(min=0).sqrt().mul_(inverse)
    middle = b_ray.mul_(inverse).neg_()
    slab_near, slab_far = _cut(directions[..., 2, :], origins[..., 2], world.z_range[:, quad].double(), linear)
    near, far = torch.maximum(middle - half, slab_near), torch.minimum(middle + half, slab_far)
    return torch.where((disc_ray > 0) & (near < far) & (near > NEAR), near, torch.inf)


def _packed(form: Tensor) -> Tensor:  # [..., 3, 3] symmetric -> [..., 6], for (xx, xy, x, yy, y, 1)
    off = 2 * form
    diagonal = (form[..., 0, 0], form[..., 1, 1], form[..., 2, 2])
    columns = [diagonal[0], off[..., 0, 1], off[..., 0, 2], diagonal[1], off[..., 1, 2], diagonal[2]]
    return torch.stack(columns, dim=-1)


def _cut(direction: Tensor, origin: Tensor, bounds: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Depths [F, Q, R] between which z lies in bounds [F, Q, 2]."""
    inverse = _reciprocal(direction.float() @ linear)
    low, high = ((bounds - origin[..., None]).float()).unbind(-1)
    one, two = inverse * low[..., None], inverse * high[..., None]
    return torch.minimum(one, two), torch.maximum(one, two)


def _slabs(directions: Tensor, origins: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Depths [F, boxes, R] at which rays enter and leave the cubes [-1, 1]^3."""
    count = directions.shape[1]
    inverse = _reciprocal(directions.flatten(1, 2).float() @ linear)  # [F, 3 boxes, R]
    middle = inverse * -origins.flatten(1, 2).float()[..., None]
    half = inverse.abs()
    near, far = (middle - half).unflatten(1, (count, 3)), (middle + half).unflatten(1, (count, 3))
    return near.amax(dim=2), far.amin(dim=2)


def _reciprocal(x: Tensor) -> Tensor:
    """1 / x; a direction of exactly 0 becomes a tiny one, so that no 0 * inf appears."""
    return x.add_(1e-12).reciprocal_()


# --- shading -----------------------------------------------------------------------------------------------------


def _shade(stage: _Stage, places: Tensor, depth: Tensor, solid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """-> colours [3, F, R], normals [3, F, R] and where the sky is [F, R], of first hits."""
    world, shape = stage.world, depth.shape
    ray = (stage.rays.float() @ torch.cat([places, torch.ones_like(places[:, :1])], dim=1)).transpose(0, 1)
    points = torch.addcmul(stage.eye.float().T[..., None], ray, depth)  # [3, F, R]
    frame = _per_ray(_shape_table(stage), solid)  # [16, F, R]
    local = _to_local(frame, points)
    steepest = local.abs().amax(dim=0)
    axis = (local.abs() == steepest).float()  # [3, F, R] the face of a box
    normals = _oriented(_normals(frame, local, axis), ray)
    is_room = solid == world.num_solids
    face = (2 * axis[1] + 4 * axis[2] + ((local * axis).sum(dim=0) > 0)).clamp_(max=ROOM_FACES - 1)
    sky = is_room & world.is_open[:, None] & (face != FLOOR)
    row = torch.where(is_room, solid + face.long(), solid)
    material = {k: v.unflatten(-1, shape) for k, v in _materials(world, row).items()}
    flat = {k: v.flatten(-2) for k, v in material.items()}
    view = _unit(ray)
    local = torch.lerp(local, view, sky.float())  # the sky is at infinity: only the direction counts
    base = albedo(flat, local.flatten(-2)).unflatten(-1, shape)
    lit = _light(stage, material, base, points, normals, view, solid, local)
    return torch.where(sky, base, lit).clamp_(0, 1), normals, sky


def _shape_table(stage: _Stage) -> Tensor:  # [16, F, K + 1]: world to solid, roundness, z_range, is box
    world = stage.world
    flag = torch.ones_like(stage.inverse[..., 0, :1])
    flag[:, : world.num_quadrics] = 0
    cuts = torch.cat([world.roundness[..., None], world.z_range], dim=-1)
    cuts = torch.cat([cuts, torch.ones_like(cuts[:, :1])], dim=1)
    return torch.cat([stage.inverse.flatten(-2).float(), cuts, flag.float()], dim=-1).movedim(-1, 0)


def _per_ray(table: Tensor, index: Tensor) -> Tensor:  # [C, F, rows], [F, R] -> [C, F, R]
    offsets = torch.arange(table.shape[1], device=index.device)[:, None] * table.shape[2]
    return table.flatten(1).contiguous().index_select(1, (index + offsets).flatten()).unflatten(1, index.shape)


def _materials(world: World, row: Tensor) -> dict[str, Tensor]:  # [F, R] -> [width, N] each
    return split_columns(_per_ray(world.materials.movedim(-1, 0), row).flatten(1))


def _to_local(frame: Tensor, points: Tensor) -> Tensor:  # [16, F, R], [3, F, R] -> [3, F, R]
    rows = frame[:12].unflatten(0, (3, 4))
    local = torch.addcmul(rows[:, 3], rows[:, 0], points[0])
    return local.addcmul_(rows[:, 1], points[1]).addcmul_(rows[:, 2], points[2])


def _normals(frame: Tensor, local: Tensor, axis: Tensor) -> Tensor:  # -> [3, F, R], any length, either side
    """Gradient of the surface that was hit, carried to the world by the inverse transpose."""
    roundness, low, high, is_box = frame[12:]
    x, y, z = local
    residual = (x * x + y * y + roundness * z * z - 1).abs_().mul_(0.5)
    on_cut = (torch.minimum((z - low).abs_(), (high - z).abs_()) < residual).float()
    on_side = 1 - on_cut
    ball = torch.stack([x * on_side, y * on_side, z * roundness * on_side + (z - 0.5 * (low + high)) * on_cut])
    normal = torch.lerp(ball, local * axis, is_box)
    rows = frame[:12].unflatten(0, (3, 4))[:, :3]  # [3 local, 3 world, F, R]
    return torch.addcmul(torch.addcmul(rows[0] * normal[0], rows[1], normal[1]), rows[2], normal[2])


def _unit(vectors: Tensor) -> Tensor:  # [3, ...]; a norm over the first dim is far slower on CPU than these products
    return vectors * (vectors * vectors).sum(dim=0).clamp_(min=1e-20).rsqrt_()


def _oriented(normals: Tensor, ray: Tensor) -> Tensor:
    """Unit length, towards the camera."""
    facing = (normals * ray).sum(dim=0)
    length = (normals * normals).sum(dim=0).clamp_(min=1e-20).rsqrt_()
    return normals * torch.copysign(length, -facing)


def _light(stage, material, base, points, normals, view, solid, local) -> Tensor:  # [3, F, R] ... -> [3, F, R]
    """Ambient from above and below, a distant lamp with soft shadows and highlights, a near bulb, haze."""
    world = stage.world
    lamp = world.lamp.T[..., None]  # [3, F, 1]
    above, below = world.ambient.T[..., None]  # [F, 1]
    ambient = torch.lerp(below, above, 0.5 - 0.5 * normals[1]) * _corner_shade(material["corner"], local)
    lit = _shadow(stage, points, solid)
    direct = (normals * lamp).sum(dim=0).clamp_(min=0).mul_(lit)
    to_bulb = world.bulb.T[..., None] - points
    square = (to_bulb * to_bulb).sum(dim=0)
    near = (to_bulb * normals).sum(dim=0).clamp_(min=0) * (square.clamp(min=1e-6).rsqrt() / (1 + 2 * square))
    light = ambient + world.lamp_color.T[..., None] * direct + world.bulb_color.T[..., None] * near
    half = _unit(lamp - view)
    shine = (half * normals).sum(dim=0).clamp_(min=0).square_().square_().square_().square_().square_()
    color = torch.addcmul(shine.mul_(lit).mul_(material["gloss"]), base, light)
    haze = 1 - torch.exp(-world.haze[:, 3, None] * (points - stage.eye.float().T[..., None]).square().sum(dim=0))
    return torch.lerp(color, world.haze[:, :3].T[..., None], haze)


def _corner_shade(strength: Tensor, local: Tensor) -> Tensor:  # [F, R], [3, F, R] -> [F, R]
    """Rooms darken towards their corners: where the second largest coordinate nears 1."""
    size = local.abs()
    second = size.sum(dim=0) - size.amax(dim=0) - size.amin(dim=0)
    return 1 - strength * second.sub_(0.6).mul_(2.5).clamp_(min=0).square_()


def _shadow(stage: _Stage, points: Tensor, solid: Tensor) -> Tensor:  # [3, F, R], [F, R] -> [F, R] in [0.15, 1]
    """How much of the lamp reaches each point: rays to it pass every other solid, taken as a ball, at some distance."""
    world, count = stage.world, stage.world.num_solids
    lamp = (stage.inverse[:, :-1, :, :3] @ world.lamp.double()[:, None, :, None])[..., 0]
    lamp = (lamp / lamp.norm(dim=-1, keepdim=True)).float()  # [F, K, 3] in the solids' coordinates
    linear = stage.inverse[:, :-1].float()  # [F, K, 3, 4]
    # Rows of p and of p . lamp in one product.
    table = torch.cat([linear, lamp[..., None, :] @ linear], dim=2).flatten(1, 2)  # [F, 4 K, 4]
    rows = torch.baddbmm(table[..., 3:], table[..., :3], points.transpose(0, 1)).unflatten(1, (count, 4))
    along = rows[:, :, 3]
    nearest = rows[:, :, :3].square().sum(dim=2).sub_(along * along).clamp_(min=0).sqrt_()  # [F, K, R]
    numbers = torch.arange(count, device=solid.device)[:, None]
    counts = (along < 0) & (solid[:, None] != numbers) & world.exists[..., None]
    blocked = (1.2 - nearest).mul_(1 / 0.45).clamp_(0, 1).mul_(counts)
    return 1 - 0.85 * blocked.amax(dim=1)


# --- points ------------------------------------------------------------------------------------------------------


def affine_tables(world: World, times: Tensor) -> tuple[Tensor, Tensor]:  # world of F scenes, [F]
    """Maps from solid to world and back [F, K + 1, 3, 4] float64, the room last."""
    matrix, translation = world.motion.poses(times)
    inverse = torch.linalg.inv(matrix)
    forward = torch.cat([matrix, translation[..., None]], dim=-1)
    backward = torch.cat([inverse, -inverse @ translation[..., None]], dim=-1)
    room = torch.zeros_like(forward[:, :1])
    room[..., :3] = torch.diag_embed(world.room.double())[:, None]
    back_room = room.clone()
    back_room[..., :3] = torch.diag_embed(1 / world.room.double())[:, None]
    return torch.cat([forward, room], dim=1), torch.cat([backward, back_room], dim=1)


def apply_rows(table: Tensor, rows: Tensor, points: Tensor) -> Tensor:  # [F, L, 3, 4], [F, P], [F, P, 3] -> [F, P, 3]
    """Each point under the affine map of its row."""
    maps = table.flatten(2).gather(1, rows[..., None].expand(*rows.shape, 12)).unflatten(-1, (3, 4))
    return (maps[..., :3] @ points.to(table.dtype)[..., None])[..., 0] + maps[..., 3]


def visible(world: World, scenes: Tensor, cameras: Cameras, times: Tensor, points: Tensor) -> Tensor:
    """Which of [F, P, 3] world points view f sees at its time: inside the image, and the first thing on their ray."""
    stage = _Stage.of(world.select(scenes), cameras, times)
    places, z = project(points, cameras.fxfycxcy, cameras.c2w)  # [F, P, 2], [F, P]
    inside = ((places >= 0) & (places <= 1)).all(dim=-1) & (z > NEAR)
    first, _ = cast(stage, places.clamp(-1, 2).transpose(1, 2))
    # A ray through a point meets the point's own surface within rounding, and more where it only grazes it.
    return inside & (first > z * (1 - 1e-3) - 1e-4)
