"""Kernels that composite each tile's splats front to back, and walk back over them for the gradients.

A tile is 16 pixels wide, one vector register of float32. A splat visits the rows of the tile that it touches, and all
16 pixels of a row at once, with selects in place of branches, so that the compiler vectorises the loop. It only does
so where it can tell that no two accesses overlap: a tile's state is therefore one flat array, row by row and in a row
plane by plane, indexed by unsigned numbers (signed ones may be negative, which counts from the end). With a 3D array
the same loops take ten times as long.

    alpha_i = min(0.999, o_i exp(-sigma_i))      T_i = prod_{j<i} (1 - alpha_j)      colour = sum_i alpha_i T_i c_i

A contribution with alpha < 1/255, that is sigma > ln(255 o), is left out, and a pixel is finished before the splat
that would take its transmittance T to 1e-4 or less. (3DGS, Kerbl et al. 2023; the constants are gsplat's.)
"""

import numpy as np
from numba import prange

from movies.rendering.cpu_binning import TILE
from movies.rendering.cpu_jit import kernel
from movies.rendering.cpu_projection import (
    BLUE,
    DEPTH,
    G0,
    GBLUE,
    GDEPTH,
    GGREEN,
    GRED,
    GREEN,
    GX,
    GXX,
    GXY,
    GY,
    GYY,
    MX,
    MY,
    OPACITY,
    RED,
    SIGMA_MAX,
    SLANT,
    A,
    D,
)

# Planes of a row. LAST is the place in the tile's list of the last splat drawn, -1 for none; as a float32 it is exact
# up to 16.7 million splats in one tile. T is negated once the pixel is finished. In the backward pass C* are the loss's
# gradients and BEHIND what the loss says of all that is seen through a splat.
T, LAST, CR, CG, CB, CZ, BEHIND = range(7)
FORWARD_PLANES, BACKWARD_PLANES = 6, 7
# A splat's own sums over the rows of a tile: d loss / d sigma times 1, dy, dy^2, and its weight times each gradient.
# They are an array of their own, which the compiler can tell from the state by one comparison.
S0, SY, SYY, SR, SG, SB, SZ = range(7)
NUM_SUMS = 7
WIDE = np.uint64(TILE)

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
ALPHA_MAX, T_MIN = np.float32(0.999), np.float32(1e-4)
SIGMA_CAP = np.float32(60.0)  # keeps exp's exponent in range for pixels that are not drawn anyway
LOG2E = np.float32(1.4426950408889634)
E1, E2, E3 = np.float32(0.69314718), np.float32(0.24022651), np.float32(0.05550411)
E4, E5, E6 = np.float32(0.00961813), np.float32(0.00133336), np.float32(0.00015404)
CHECK_EVERY = 32  # splats between looks at which rows are finished


@kernel()
def _exp_neg(sigma):
    """exp(-sigma) to about 2e-7, as 2^n times a polynomial (Taylor's on [-1/2, 1/2]); the C library's is a call and
    would keep the loop from being vectorised."""
    x = -min(sigma, SIGMA_CAP) * LOG2E
    n = np.int32(x - HALF)
    f = x - np.float32(n)
    p = ONE + f * (E1 + f * (E2 + f * (E3 + f * (E4 + f * (E5 + f * E6)))))
    return p * np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@kernel()
def _row(y, planes):
    """Where row y of a state begins."""
    return np.uint64(y) * np.uint64(planes * TILE)


@kernel()
def _at(i, plane):
    """The place, `plane` planes on from i."""
    return i + np.uint64(plane * TILE)


@kernel()
def _draw(state, y0, y1, left, top, row, place):
    """Composite one splat over rows y0..y1 of the tile whose corner is (left, top)."""
    mx, my, a, slant, d = row[MX], row[MY], row[A], row[SLANT], row[D]
    opacity, sigma_max = row[OPACITY], row[SIGMA_MAX]
    red, green, blue, depth = row[RED], row[GREEN], row[BLUE], row[DEPTH]
    for y in range(y0, y1):
        dy = my - (top + np.float32(y) + HALF)
        shift, least = mx + slant * dy, d * dy * dy
        start = _row(y, FORWARD_PLANES)
        for x in range(WIDE):
            i = start + x
            along = shift - (left + np.float32(np.int32(x)) + HALF)
            sigma = a * along * along + least
            alpha = min(ALPHA_MAX, opacity * _exp_neg(sigma))
            t = state[_at(i, T)]
            t_next = t * (ONE - alpha)
            seen = (sigma <= sigma_max) & (t > ZERO)
            drawn = seen & (t_next > T_MIN)
            weight = alpha * t if drawn else ZERO
            state[_at(i, CR)] += weight * red
            state[_at(i, CG)] += weight * green
            state[_at(i, CB)] += weight * blue
            state[_at(i, CZ)] += weight * depth
            state[_at(i, LAST)] = place if drawn else state[_at(i, LAST)]
            state[_at(i, T)] = t_next if drawn else (-t if seen else t)


@kernel()
def _rows_open(grid, first, last):
    """The range of rows with an unfinished pixel, within first..last."""
    while first < last and grid[first, T].max() <= ZERO:
        first += 1
    while first < last and grid[last - 1, T].max() <= ZERO:
        last -= 1
    return first, last


@kernel()
def _draw_list(state, grid, rows, rects, ids, left, top, height):
    """Composite a tile's whole list, or as much of it as shows."""
    first, last = 0, height
    for i in range(len(ids)):
        if i % CHECK_EVERY == CHECK_EVERY - 1:
            first, last = _rows_open(grid, first, last)
            if first >= last:
                break
        k = ids[i]
        y0, y1 = max(first, rects[k, 2] - top), min(last, rects[k, 3] - top)
        if y0 < y1:
            _draw(state, y0, y1, np.float32(left), np.float32(top), rows[k], np.float32(i))


@kernel()
def _corner(tile, tiles_x, height, width):
    """A tile's left, top, and how many of its rows and columns are in the picture."""
    left, top = TILE * (tile % tiles_x), TILE * (tile // tiles_x)
    return left, top, min(TILE, height - top), min(TILE, width - left)


@kernel(parallel=True)
def rasterize(rows, rects, tile_starts, ids, tiles_x, tiles, workers, colors, depths, transmittances, lasts):
    """Fill colors [I, 3, H, W], depths (accumulated), transmittances and lasts [I, H, W]."""
    images, height, width = depths.shape
    for worker in prange(workers):
        state = np.empty(TILE * FORWARD_PLANES * TILE, np.float32)
        grid = state.reshape((TILE, FORWARD_PLANES, TILE))
        for job in range(worker, images * tiles, workers):
            image = job // tiles
            left, top, high, wide = _corner(job % tiles, tiles_x, height, width)
            grid[:] = ZERO
            grid[:, LAST] = -ONE
            grid[:, T, :wide] = ONE  # beside the picture nothing is open
            _draw_list(state, grid, rows, rects, ids[tile_starts[job] : tile_starts[job + 1]], left, top, high)
            for y in range(high):
                for x in range(wide):
                    colors[image, 0, top + y, left + x] = grid[y, CR, x]
                    colors[image, 1, top + y, left + x] = grid[y, CG, x]
                    colors[image, 2, top + y, left + x] = grid[y, CB, x]
                    depths[image, top + y, left + x] = grid[y, CZ, x]
                    transmittances[image, top + y, left + x] = abs(grid[y, T, x])
                    lasts[image, top + y, left + x] = grid[y, LAST, x]


@kernel()
def _undraw(state, sums, y0, y1, left, top, row, place):
    """Step one splat back: T from behind it to before it, and add to `sums` what the loss says about it.

    The loss changes with alpha by T (c . v) - behind / (1 - alpha). A clamped alpha passes nothing on to sigma and
    opacity.
    """
    mx, my, a, slant, d = row[MX], row[MY], row[A], row[SLANT], row[D]
    opacity, sigma_max = row[OPACITY], row[SIGMA_MAX]
    red, green, blue, depth = row[RED], row[GREEN], row[BLUE], row[DEPTH]
    for y in range(y0, y1):
        dy = my - (top + np.float32(y) + HALF)
        shift, least = mx + slant * dy, d * dy * dy
        start = _row(y, BACKWARD_PLANES)
        for x in range(WIDE):
            i = start + x
            along = shift - (left + np.float32(np.int32(x)) + HALF)
            sigma = a * along * along + least
            bare = opacity * _exp_neg(sigma)
            alpha = min(ALPHA_MAX, bare)
            drawn = (sigma <= sigma_max) & (place <= state[_at(i, LAST)])
            inverse = ONE / (ONE - alpha)
            t, behind = state[_at(i, T)] * inverse, state[_at(i, BEHIND)]
            weight = alpha * t if drawn else ZERO
            vr, vg, vb, vz = state[_at(i, CR)], state[_at(i, CG)], state[_at(i, CB)], state[_at(i, CZ)]
            value = red * vr + green * vg + blue * vb + depth * vz
            v_sigma = bare * (inverse * behind - t * value) if drawn & (bare <= ALPHA_MAX) else ZERO
            state[_at(i, T)] = t if drawn else state[_at(i, T)]
            state[_at(i, BEHIND)] = behind + weight * value
            sums[_at(x, S0)] += v_sigma
            sums[_at(x, SY)] += v_sigma * dy
            sums[_at(x, SYY)] += v_sigma * dy * dy
            sums[_at(x, SR)] += weight * vr
            sums[_at(x, SG)] += weight * vg
            sums[_at(x, SB)] += weight * vb
            sums[_at(x, SZ)] += weight * vz


@kernel()
def _write_gradient(slot_grads, slot, sums, left, mx):
    """Sum over the tile's columns, where dx is constant, into one splat's gradient in this tile; clear the sums."""
    g0, gx, gy, gxx, gxy, gyy = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    red, green, blue, depth = ZERO, ZERO, ZERO, ZERO
    for x in range(WIDE):
        dx = mx - (left + np.float32(np.int32(x)) + HALF)
        s0, sy = sums[_at(x, S0)], sums[_at(x, SY)]
        g0, gx, gxx = g0 + s0, gx + s0 * dx, gxx + s0 * dx * dx
        gy, gxy, gyy = gy + sy, gxy + sy * dx, gyy + sums[_at(x, SYY)]
        red, green = red + sums[_at(x, SR)], green + sums[_at(x, SG)]
        blue, depth = blue + sums[_at(x, SB)], depth + sums[_at(x, SZ)]
    grad = slot_grads[slot]
    grad[G0], grad[GX], grad[GY], grad[GXX], grad[GXY], grad[GYY] = g0, gx, gy, gxx, gxy, gyy
    grad[GRED], grad[GGREEN], grad[GBLUE], grad[GDEPTH] = red, green, blue, depth
    sums[:] = ZERO


@kernel()
def _slot(rects, slots, k, left, top):
    """Where splat k keeps its gradient in the tile at (left, top)."""
    x0, x1, y0 = rects[k, 0] // TILE, (rects[k, 1] + TILE - 1) // TILE, rects[k, 2] // TILE
    return slots[k] + (top // TILE - y0) * (x1 - x0) + left // TILE - x0


@kernel()
def _undraw_list(state, sums, rows, rects, ids, deepest, left, top, height, slots, slot_grads):
    """Walk back over a tile's list from the deepest splat drawn."""
    for i in range(deepest, -1, -1):
        k = ids[i]
        y0, y1 = max(0, rects[k, 2] - top), min(height, rects[k, 3] - top)
        _undraw(state, sums, y0, y1, np.float32(left), np.float32(top), rows[k], np.float32(i))
        _write_gradient(slot_grads, _slot(rects, slots, k, left, top), sums, np.float32(left), rows[k, MX])


@kernel(parallel=True)
def rasterize_vjp(
    rows, rects, tile_starts, ids, tiles_x, tiles, workers, transmittances, lasts, v_colors, v_depths, v_transmittances,
    slots, slot_grads,
):  # fmt: skip
    """Fill slot_grads [pairs, GRAD] from the gradients of colors [I, 3, H, W], depths and transmittances [I, H, W].

    What is not drawn is not written: slot_grads comes as zeros.
    """
    _, height, width = v_depths.shape
    for worker in prange(workers):
        state = np.zeros(TILE * BACKWARD_PLANES * TILE, np.float32)
        sums = np.zeros(NUM_SUMS * TILE, np.float32)
        grid = state.reshape((TILE, BACKWARD_PLANES, TILE))
        for job in range(worker, len(tile_starts) - 1, workers):
            image = job // tiles
            left, top, high, wide = _corner(job % tiles, tiles_x, height, width)
            grid[:, LAST] = -ONE
            for y in range(high):
                for x in range(wide):
                    t = transmittances[image, top + y, left + x]
                    grid[y, T, x] = t
                    grid[y, BEHIND, x] = t * v_transmittances[image, top + y, left + x]
                    grid[y, LAST, x] = lasts[image, top + y, left + x]
                    grid[y, CR, x] = v_colors[image, 0, top + y, left + x]
                    grid[y, CG, x] = v_colors[image, 1, top + y, left + x]
                    grid[y, CB, x] = v_colors[image, 2, top + y, left + x]
                    grid[y, CZ, x] = v_depths[image, top + y, left + x]
            deepest, own = np.int64(grid[:, LAST].max()), ids[tile_starts[job] : tile_starts[job + 1]]
            _undraw_list(state, sums, rows, rects, own, deepest, left, top, high, slots, slot_grads)
