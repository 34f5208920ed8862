"""Kernels that list, for every 16x16 tile of every picture, the splats that touch it, front to back.

A counting sort by tile: each chunk of splats counts its own hits per tile, a running sum over (tile, chunk) gives every
chunk its place in every tile's list, and all chunks write at once. Then each tile sorts its own list by depth, in
cache and in parallel. Both sorts are stable, so equal depths stay in the order of the Gaussians, as in gsplat, and
nothing depends on the number of threads.
"""

import numpy as np
from numba import prange

from movies.rendering.cpu_jit import kernel

TILE = 16
DIGITS = 256  # of the radix sort: four passes of 8 bits, those with a single digit skipped


@kernel()
def _tile_span(rects, k):
    """Tiles x0 x1 y0 y1 (exclusive ends) under a splat's pixels; empty for an empty rect."""
    x0, x1, y0, y1 = rects[k, 0], rects[k, 1], rects[k, 2], rects[k, 3]
    return x0 // TILE, (x1 + TILE - 1) // TILE, y0 // TILE, (y1 + TILE - 1) // TILE


@kernel(parallel=True)
def count_tiles(rects, num, tiles_x, hits):
    """hits [I, tiles, chunks]: how many splats of a chunk touch a tile."""
    images, _, chunks = hits.shape
    for job in prange(images * chunks):
        image, chunk = job // chunks, job % chunks
        hits[image, :, chunk] = 0
        for n in range(num * chunk // chunks, num * (chunk + 1) // chunks):
            x0, x1, y0, y1 = _tile_span(rects, image * num + n)
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    hits[image, ty * tiles_x + tx, chunk] += 1


@kernel()
def place_lists(hits, tile_starts):
    """Turn hits into the places where each chunk begins to write, fill tile_starts [I*tiles + 1]; return the total."""
    images, tiles, chunks = hits.shape
    total = 0
    for image in range(images):
        for tile in range(tiles):
            tile_starts[image * tiles + tile] = total
            for chunk in range(chunks):
                count = hits[image, tile, chunk]
                hits[image, tile, chunk] = total
                total += count
    tile_starts[images * tiles] = total
    return total


@kernel(parallel=True)
def fill_lists(rects, num, tiles_x, places, ids):
    """Write every splat's index into the lists of its tiles, ids [pairs]."""
    images, _, chunks = places.shape
    for job in prange(images * chunks):
        image, chunk = job // chunks, job % chunks
        for n in range(num * chunk // chunks, num * (chunk + 1) // chunks):
            k = image * num + n
            x0, x1, y0, y1 = _tile_span(rects, k)
            for ty in range(y0, y1):
                for tx in range(x0, x1):
                    place = places[image, ty * tiles_x + tx, chunk]
                    ids[place] = k
                    places[image, ty * tiles_x + tx, chunk] = place + 1


@kernel()
def _sort_insertion(keys, ids, n):
    """Stable, for the short lists where counting digits would cost more."""
    for i in range(1, n):
        key, value, j = keys[i], ids[i], i - 1
        while j >= 0 and keys[j] > key:
            keys[j + 1], ids[j + 1] = keys[j], ids[j]
            j -= 1
        keys[j + 1], ids[j + 1] = key, value


@kernel()
def _count_digits(keys, n, counts):
    counts[:] = 0
    for i in range(n):
        key = keys[i]
        for digit in range(4):
            counts[digit, (key >> np.uint32(8 * digit)) & np.uint32(DIGITS - 1)] += 1


@kernel()
def _sort_pass(keys, ids, to_keys, to_ids, n, digit, counts):
    """Move everything to its place by one digit; False where all share it and nothing has to move."""
    shift, mask = np.uint32(8 * digit), np.uint32(DIGITS - 1)
    if counts[digit, (keys[0] >> shift) & mask] == n:
        return False
    total = 0
    for d in range(DIGITS):
        count = counts[digit, d]
        counts[digit, d] = total
        total += count
    for i in range(n):
        d = (keys[i] >> shift) & mask
        place = counts[digit, d]
        counts[digit, d] = place + 1
        to_keys[place], to_ids[place] = keys[i], ids[i]
    return True


@kernel()
def _sort_radix(keys, ids, spare_keys, spare_ids, n, counts):
    """Sort by key, least digit first; the result lies in keys, ids."""
    _count_digits(keys, n, counts)
    swapped = False
    for digit in range(4):
        if swapped:
            moved = _sort_pass(spare_keys, spare_ids, keys, ids, n, digit, counts)
        else:
            moved = _sort_pass(keys, ids, spare_keys, spare_ids, n, digit, counts)
        swapped = swapped != moved
    if swapped:
        ids[:n] = spare_ids[:n]


@kernel(parallel=True)
def sort_lists(depth_bits, column, tile_starts, ids, workers):
    """Sort each tile's ids by depth. A positive float32's bits, depth_bits [I*N, ROW], grow with it.

    The workers take tiles in turn, so that a crowded part of the picture is shared among them.
    """
    tiles = len(tile_starts) - 1
    longest = (tile_starts[1:] - tile_starts[:-1]).max()
    for worker in prange(workers):
        keys, spare_keys = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
        spare_ids, counts = np.empty(longest, np.int32), np.empty((4, DIGITS), np.int64)
        for tile in range(worker, tiles, workers):
            start, n = tile_starts[tile], tile_starts[tile + 1] - tile_starts[tile]
            own = ids[start : start + n]
            for i in range(n):
                keys[i] = depth_bits[own[i], column]
            if n <= 48:
                _sort_insertion(keys, own, n)
            else:
                _sort_radix(keys, own, spare_keys, spare_ids, n, counts)


@kernel(parallel=True)
def count_slots(rects, num, chunks, totals):
    """totals [I, chunks]: how many tiles the splats of a chunk touch in all."""
    for job in prange(totals.size):
        image, chunk = job // chunks, job % chunks
        total = 0
        for n in range(num * chunk // chunks, num * (chunk + 1) // chunks):
            x0, x1, y0, y1 = _tile_span(rects, image * num + n)
            total += (x1 - x0) * (y1 - y0)
        totals[image, chunk] = total


@kernel(parallel=True)
def fill_slots(rects, num, starts, slots):
    """slots [I*N + 1]: the first of each splat's own slots, one a tile; starts [I, chunks] is totals summed before."""
    images, chunks = starts.shape
    for job in prange(images * chunks):
        image, chunk = job // chunks, job % chunks
        total = starts[image, chunk]
        for n in range(num * chunk // chunks, num * (chunk + 1) // chunks):
            slots[image * num + n] = total
            x0, x1, y0, y1 = _tile_span(rects, image * num + n)
            total += (x1 - x0) * (y1 - y0)
        if job == images * chunks - 1:
            slots[images * num] = total
