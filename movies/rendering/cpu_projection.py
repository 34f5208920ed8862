"""Kernels that project 3D Gaussians to splats on the picture, and carry the gradients back.

The camera-space covariance is M M^T with M = R_camera R(quat) diag(scale), the splat's is A A^T + 0.3 I with A = J M,
J being the Jacobian of the perspective projection at the centre (EWA, Zwicker et al. 2001, equation 29). Working with
the factors keeps both directions short. Rules and constants are gsplat's.

float32 throughout: constants are np.float32, for a plain Python number would turn every expression into float64.
3x3 matrices are tuples of nine, row by row. Only functions of this file are called here, as numba's disk cache does
not notice when a kernel in another file has changed.
"""

import math

import numpy as np
from numba import prange

from movies.rendering.cpu_jit import kernel

# Columns of a splat's row. With the inverse covariance [[a, b], [b, c]] they are A = a / 2, SLANT = b / a and
# D = (c - b^2 / a) / 2, so that sigma = A (dx + SLANT dy)^2 + D dy^2: a sum of squares, where the usual form cancels
# for needles, down to the negative values that gsplat has to skip. (Whoever changes a column must also save
# cpu_raster.py: its kernels on disk hold these numbers.)
ROW = 11
MX, MY, A, SLANT, D, OPACITY, SIGMA_MAX, RED, GREEN, BLUE, DEPTH = range(ROW)
# Columns of a splat's gradient in one tile: moments of d loss / d sigma over the pixels, then colours and depth.
GRAD = 10
G0, GX, GY, GXX, GXY, GYY, GRED, GGREEN, GBLUE, GDEPTH = range(GRAD)

NEAR, FAR = np.float32(0.001), np.float32(100.0)
BLUR = np.float32(0.3)  # added to the splat's variances so that none falls between pixels
EXTENT = np.float32(3.33)
HUGE = np.float32(1e30)
ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
INVERSE_THRESHOLD = np.float32(255.0)  # contributions below 1/255 are not drawn


@kernel()
def _mul(a, b):
    """a b of 3x3 matrices."""
    return (
        a[0] * b[0] + a[1] * b[3] + a[2] * b[6],
        a[0] * b[1] + a[1] * b[4] + a[2] * b[7],
        a[0] * b[2] + a[1] * b[5] + a[2] * b[8],
        a[3] * b[0] + a[4] * b[3] + a[5] * b[6],
        a[3] * b[1] + a[4] * b[4] + a[5] * b[7],
        a[3] * b[2] + a[4] * b[5] + a[5] * b[8],
        a[6] * b[0] + a[7] * b[3] + a[8] * b[6],
        a[6] * b[1] + a[7] * b[4] + a[8] * b[7],
        a[6] * b[2] + a[7] * b[5] + a[8] * b[8],
    )


@kernel()
def _transpose(a):
    return (a[0], a[3], a[6], a[1], a[4], a[7], a[2], a[5], a[8])


@kernel()
def _scale_columns(a, s):
    return (
        *(a[0] * s[0], a[1] * s[1], a[2] * s[2]),
        *(a[3] * s[0], a[4] * s[1], a[5] * s[2]),
        *(a[6] * s[0], a[7] * s[1], a[8] * s[2]),
    )


@kernel()
def _rotation(w, x, y, z):
    """The rotation of a unit quaternion."""
    return (
        *(ONE - TWO * (y * y + z * z), TWO * (x * y - w * z), TWO * (x * z + w * y)),
        *(TWO * (x * y + w * z), ONE - TWO * (x * x + z * z), TWO * (y * z - w * x)),
        *(TWO * (x * z - w * y), TWO * (y * z + w * x), ONE - TWO * (x * x + y * y)),
    )


@kernel()
def _unit_quat(quats, g):
    """The normalised quaternion and the inverse of its length."""
    w, x, y, z = quats[g, 0], quats[g, 1], quats[g, 2], quats[g, 3]
    inverse = ONE / np.float32(math.sqrt(w * w + x * x + y * y + z * z))
    return w * inverse, x * inverse, y * inverse, z * inverse, inverse


@kernel()
def _camera(cams, i):
    """Rotation and translation of world-to-camera, fx fy cx cy in pixels, and the limits of x/z and y/z."""
    c = cams[i]
    rotation = (c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8])
    return rotation, (c[9], c[10], c[11]), (c[12], c[13], c[14], c[15]), (c[16], c[17], c[18], c[19])


@kernel()
def _to_camera(means, g, rotation, translation):
    x, y, z = means[g, 0], means[g, 1], means[g, 2]
    return (
        rotation[0] * x + rotation[1] * y + rotation[2] * z + translation[0],
        rotation[3] * x + rotation[4] * y + rotation[5] * z + translation[1],
        rotation[6] * x + rotation[7] * y + rotation[8] * z + translation[2],
    )


@kernel()
def _jacobian(x, y, z, intrinsics, limits):
    """J = [[j00, 0, j02], [0, j11, j12]]; far outside the view x/z and y/z are held at 1.3 times the field of view."""
    rz = ONE / z
    tx = min(limits[1], max(-limits[0], x * rz))
    ty = min(limits[3], max(-limits[2], y * rz))
    return intrinsics[0] * rz, -intrinsics[0] * tx * rz, intrinsics[1] * rz, -intrinsics[1] * ty * rz


@kernel()
def _image_axes(jacobian, m):
    """A = J M, two rows of three."""
    j00, j02, j11, j12 = jacobian
    return (
        *(j00 * m[0] + j02 * m[6], j00 * m[1] + j02 * m[7], j00 * m[2] + j02 * m[8]),
        *(j11 * m[3] + j12 * m[6], j11 * m[4] + j12 * m[7], j11 * m[5] + j12 * m[8]),
    )


@kernel()
def _covariance(a):
    """A A^T + 0.3 I as xx, xy, yy, and its determinant.

    |row x row|^2 is the determinant without the blur: for needles xx yy - xy^2 would lose most of its bits.
    """
    xx = a[0] * a[0] + a[1] * a[1] + a[2] * a[2]
    xy = a[0] * a[3] + a[1] * a[4] + a[2] * a[5]
    yy = a[3] * a[3] + a[4] * a[4] + a[5] * a[5]
    c0, c1, c2 = a[1] * a[5] - a[2] * a[4], a[2] * a[3] - a[0] * a[5], a[0] * a[4] - a[1] * a[3]
    det = c0 * c0 + c1 * c1 + c2 * c2 + BLUR * (xx + yy + BLUR)
    return xx + BLUR, xy, yy + BLUR, det


@kernel()
def _is_sound(means, quats, scales, opacities, colors, g):
    """Everything finite, a rotation there, and the opacity not under the threshold."""
    total = abs(opacities[g])
    for k in range(3):
        total += abs(means[g, k]) + abs(scales[g, k]) + abs(colors[g, k])
    length = ZERO
    for k in range(4):
        length += quats[g, k] * quats[g, k]
    # Comparisons are written so that NaN fails them.
    return total < HUGE and length > ZERO and length < HUGE and opacities[g] * INVERSE_THRESHOLD > ONE


@kernel()
def _pixel_span(center, radius, size):
    """The pixels, from inclusive to exclusive, whose centres lie within `radius`; clamped before it becomes an int."""
    low = min(max(np.float32(math.ceil(center - radius - HALF)), ZERO), size)
    high = min(max(np.float32(math.floor(center + radius - HALF)) + ONE, ZERO), size)
    return np.int16(low), np.int16(high)


@kernel()
def _splat(means, quats, scales, g, camera):
    """Depth, centre, covariance and its determinant; depth 0 where it is not between near and far."""
    rotation, translation, intrinsics, limits = camera
    x, y, z = _to_camera(means, g, rotation, translation)
    if not (z >= NEAR and z <= FAR):
        return ZERO, ZERO, ZERO, ONE, ZERO, ONE, ONE
    w, qx, qy, qz, _ = _unit_quat(quats, g)
    scale = (scales[g, 0], scales[g, 1], scales[g, 2])
    m = _scale_columns(_mul(rotation, _rotation(w, qx, qy, qz)), scale)
    xx, xy, yy, det = _covariance(_image_axes(_jacobian(x, y, z, intrinsics, limits), m))
    mx = intrinsics[0] * x / z + intrinsics[2]
    my = intrinsics[1] * y / z + intrinsics[3]
    return z, mx, my, xx, xy, yy, det


@kernel()
def _write_row(rows, k, splat, sigma_max):
    z, mx, my, _, xy, yy, det = splat
    rows[k, MX], rows[k, MY], rows[k, DEPTH] = mx, my, z
    rows[k, A], rows[k, SLANT], rows[k, D] = HALF * yy / det, -xy / yy, HALF / yy
    rows[k, SIGMA_MAX] = sigma_max


@kernel(parallel=True)
def project(gaussians, num, cams, scene_of, width, height, chunks, rows, rects):
    """Fill rows [I*N, ROW] and rects [I*N, 4] (pixels x0 x1 y0 y1, empty where nothing is drawn) of I pictures.

    gsplat bounds a splat by min(3.33, sqrt(2 ln(255 opacity))) standard deviations, rounded up to pixels and then to
    tiles. Outside the unrounded bound alpha is under 1/255 and never drawn, so this tighter one (with a hair to
    spare for rounding) gives the same picture.
    """
    means, quats, scales, opacities, colors = gaussians
    for job in prange(len(scene_of) * chunks):
        image, chunk = job // chunks, job % chunks
        camera = _camera(cams, image)
        for n in range(num * chunk // chunks, num * (chunk + 1) // chunks):
            g, k = scene_of[image] * num + n, image * num + n
            rects[k, 0] = rects[k, 1] = rects[k, 2] = rects[k, 3] = np.int16(0)
            if not _is_sound(means, quats, scales, opacities, colors, g):
                continue
            splat = _splat(means, quats, scales, g, camera)
            z, mx, my, xx, _, yy, det = splat
            if z == ZERO or not (det > ZERO and det < HUGE):
                continue
            sigma_max = np.float32(math.log(opacities[g] * INVERSE_THRESHOLD))
            extent = min(EXTENT, np.float32(math.sqrt(TWO * sigma_max))) * np.float32(1.0001)
            x0, x1 = _pixel_span(mx, extent * np.float32(math.sqrt(xx)), np.float32(width))
            y0, y1 = _pixel_span(my, extent * np.float32(math.sqrt(yy)), np.float32(height))
            if x0 >= x1 or y0 >= y1:
                continue
            rects[k, 0], rects[k, 1], rects[k, 2], rects[k, 3] = x0, x1, y0, y1
            _write_row(rows, k, splat, sigma_max)
            rows[k, OPACITY] = opacities[g]
            rows[k, RED], rows[k, GREEN], rows[k, BLUE] = colors[g, 0], colors[g, 1], colors[g, 2]


@kernel()
def _sum_slots(slot_grads, first, count):
    """The gradient of one splat: its tiles' gradients added, in a fixed order, into the first slot."""
    for s in range(first + 1, first + count):
        for column in range(GRAD):
            slot_grads[first, column] += slot_grads[s, column]
    return slot_grads[first]


@kernel()
def _is_drawn(total):
    """False for the all-zero gradient of a splat that nothing of is seen: often most of them."""
    largest = ZERO
    for column in range(GRAD):
        largest = max(largest, abs(total[column]))
    return largest != ZERO


@kernel()
def _inverse_covariance(row):
    """a, b, c of a splat's row."""
    a = TWO * row[A]
    b = a * row[SLANT]
    return a, b, TWO * row[D] + b * row[SLANT]


@kernel()
def _covariance_vjp(inverse, total):
    """d loss / d covariance (its xx, xy, yy) = -P G P, with P its inverse and G the gradient of P."""
    p, q, r = inverse
    gxx, gxy, gyy = HALF * total[GXX], HALF * total[GXY], HALF * total[GYY]
    t0, t1 = gxx * p + gxy * q, gxx * q + gxy * r
    t2, t3 = gxy * p + gyy * q, gxy * q + gyy * r
    return -(p * t0 + q * t2), -(p * t1 + q * t3), -(q * t1 + r * t3)


@kernel()
def _point_vjp(x, y, z, jacobian, v_j, v_center, v_depth, intrinsics, limits):
    """d loss / d camera-space centre, from the centre on the picture, the depth, and the Jacobian's own change.

    Where x/z is held at its limit, j02 = -fx limit / z no longer depends on x.
    """
    j00, j02, j11, j12 = jacobian
    v00, v02, v11, v12 = v_j
    rz = ONE / z
    v_x = j00 * v_center[0]
    v_y = j11 * v_center[1]
    v_z = v_depth - (j00 * x * v_center[0] + j11 * y * v_center[1]) * rz - (j00 * v00 + j11 * v11) * rz
    v_z -= (j02 * v02 + j12 * v12) * rz
    if x * rz <= limits[1] and x * rz >= -limits[0]:
        v_x -= j00 * rz * v02
        v_z -= j02 * v02 * rz
    if y * rz <= limits[3] and y * rz >= -limits[2]:
        v_y -= j11 * rz * v12
        v_z -= j12 * v12 * rz
    return v_x, v_y, v_z


@kernel()
def _quat_vjp(w, x, y, z, inverse, v):
    """d loss / d quaternion from d loss / d rotation (v, row by row), through the normalisation."""
    vw = TWO * (x * (v[7] - v[5]) + y * (v[2] - v[6]) + z * (v[3] - v[1]))
    vx = TWO * (-TWO * x * (v[4] + v[8]) + y * (v[1] + v[3]) + z * (v[2] + v[6]) + w * (v[7] - v[5]))
    vy = TWO * (x * (v[1] + v[3]) - TWO * y * (v[0] + v[8]) + z * (v[5] + v[7]) + w * (v[2] - v[6]))
    vz = TWO * (x * (v[2] + v[6]) + y * (v[5] + v[7]) - TWO * z * (v[0] + v[4]) + w * (v[3] - v[1]))
    along = vw * w + vx * x + vy * y + vz * z
    return (
        (vw - along * w) * inverse,
        (vx - along * x) * inverse,
        (vy - along * y) * inverse,
        (vz - along * z) * inverse,
    )


@kernel()
def _shape_vjp(quats, scales, v_quats, v_scales, g, rotation, jacobian, v_a):
    """Add to v_quats and v_scales what comes back through A = J R_camera R(quat) diag(scale)."""
    w, x, y, z, inverse = _unit_quat(quats, g)
    r = _rotation(w, x, y, z)
    scale = (scales[g, 0], scales[g, 1], scales[g, 2])
    j00, j02, j11, j12 = jacobian
    v_m = (
        *(j00 * v_a[0], j00 * v_a[1], j00 * v_a[2]),
        *(j11 * v_a[3], j11 * v_a[4], j11 * v_a[5]),
        *(j02 * v_a[0] + j12 * v_a[3], j02 * v_a[1] + j12 * v_a[4], j02 * v_a[2] + j12 * v_a[5]),
    )
    v_axes = _mul(_transpose(rotation), v_m)  # d loss / d (R(quat) diag(scale))
    for k in range(3):
        v_scales[g, k] += r[k] * v_axes[k] + r[3 + k] * v_axes[3 + k] + r[6 + k] * v_axes[6 + k]
    v_quat = _quat_vjp(w, x, y, z, inverse, _scale_columns(v_axes, scale))
    for k in range(4):
        v_quats[g, k] += v_quat[k]


@kernel()
def _splat_vjp(means, quats, scales, g, camera, row, total, v_means, v_quats, v_scales):
    """Carry one splat's gradient to its Gaussian's mean, quaternion and scale."""
    rotation, translation, intrinsics, limits = camera
    x, y, z = _to_camera(means, g, rotation, translation)
    jacobian = _jacobian(x, y, z, intrinsics, limits)
    wq, xq, yq, zq, _ = _unit_quat(quats, g)
    m = _scale_columns(_mul(rotation, _rotation(wq, xq, yq, zq)), (scales[g, 0], scales[g, 1], scales[g, 2]))
    a = _image_axes(jacobian, m)
    inverse = _inverse_covariance(row)
    vxx, vxy, vyy = _covariance_vjp(inverse, total)
    v_a = (
        *(TWO * (vxx * a[0] + vxy * a[3]), TWO * (vxx * a[1] + vxy * a[4]), TWO * (vxx * a[2] + vxy * a[5])),
        *(TWO * (vxy * a[0] + vyy * a[3]), TWO * (vxy * a[1] + vyy * a[4]), TWO * (vxy * a[2] + vyy * a[5])),
    )
    _shape_vjp(quats, scales, v_quats, v_scales, g, rotation, jacobian, v_a)
    v_j = (
        v_a[0] * m[0] + v_a[1] * m[1] + v_a[2] * m[2],
        v_a[0] * m[6] + v_a[1] * m[7] + v_a[2] * m[8],
        v_a[3] * m[3] + v_a[4] * m[4] + v_a[5] * m[5],
        v_a[3] * m[6] + v_a[4] * m[7] + v_a[5] * m[8],
    )
    v_center = (inverse[0] * total[GX] + inverse[1] * total[GY], inverse[1] * total[GX] + inverse[2] * total[GY])
    v_point = _point_vjp(x, y, z, jacobian, v_j, v_center, total[GDEPTH], intrinsics, limits)
    for k in range(3):
        v_means[g, k] += rotation[k] * v_point[0] + rotation[3 + k] * v_point[1] + rotation[6 + k] * v_point[2]


@kernel(parallel=True)
def project_vjp(gaussians, num, cams, scene_of, chunks, rows, slots, slot_grads, grads):
    """Add the gradients of I pictures' splats to those of their Gaussians (means quats scales opacities colors).

    Parallel over Gaussians, with the pictures of one scene in turn: no two threads add to the same number, and the
    order of the additions does not depend on the threads.
    """
    means, quats, scales, opacities, _ = gaussians
    v_means, v_quats, v_scales, v_opacities, v_colors = grads
    for chunk in prange(chunks):
        for image in range(len(scene_of)):
            camera = _camera(cams, image)
            for n in range(num * chunk // chunks, num * (chunk + 1) // chunks):
                g, k = scene_of[image] * num + n, image * num + n
                first, count = slots[k], slots[k + 1] - slots[k]
                if count == 0:
                    continue
                total = _sum_slots(slot_grads, first, count)
                if not _is_drawn(total):
                    continue
                _splat_vjp(means, quats, scales, g, camera, rows[k], total, v_means, v_quats, v_scales)
                v_opacities[g] -= total[G0] / opacities[g]
                v_colors[g, 0] += total[GRED]
                v_colors[g, 1] += total[GGREEN]
                v_colors[g, 2] += total[GBLUE]
