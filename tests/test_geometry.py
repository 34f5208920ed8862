"""Geometry against values worked by hand; conventions are tested here and nowhere else."""

import math

import pytest
import torch

from movies import geometry
from movies.cameras import Cameras
from movies.errors import InputError
from movies.shapes import check_shape


def random_c2w(generator, *lead):
    quats = torch.randn(*lead, 4, generator=generator)
    return geometry.rigid(geometry.quaternion_to_matrix(quats), torch.randn(*lead, 3, generator=generator))


def test_pixel_centres_lie_at_a_half():
    grid = geometry.pixel_grid(2, 4)
    assert grid[0, 0].tolist() == [0.125, 0.25]
    assert grid[1, 3].tolist() == [0.875, 0.75]


def test_unproject_by_hand():
    # fx/W = 0.5 on a 2x2 image with the centre at 0.5: pixel (0, 0) is at x = (0.25 - 0.5) / 0.5 = -0.5, depth 4
    points = geometry.unproject(torch.full((2, 2), 4.0), torch.tensor([0.5, 0.5, 0.5, 0.5]), torch.eye(4))
    assert points[0, 0].tolist() == [-2.0, -2.0, 4.0]
    assert points[1, 0].tolist() == [-2.0, 2.0, 4.0]


def test_project_inverts_unproject(generator):
    c2w = random_c2w(generator, 3)
    fxfycxcy = torch.tensor([0.9, 1.2, 0.45, 0.55]).expand(3, 4)
    depth = torch.rand(3, 5, 7, generator=generator) + 0.5
    points = geometry.unproject(depth, fxfycxcy, c2w)
    xy, z = geometry.project(points.flatten(1, 2), fxfycxcy, c2w)
    torch.testing.assert_close(xy.unflatten(1, (5, 7)), geometry.pixel_grid(5, 7).expand(3, 5, 7, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.unflatten(1, (5, 7)), depth)


def test_points_behind_the_camera_keep_a_negative_depth():
    _, z = geometry.project(torch.tensor([[0.0, 0.0, -2.0]]), torch.ones(4), torch.eye(4))
    assert z.item() == -2


def test_rigid_inverse(generator):
    c2w = random_c2w(generator, 4)
    torch.testing.assert_close(geometry.rigid_inverse(c2w) @ c2w, torch.eye(4).expand(4, 4, 4), atol=1e-6, rtol=0)


def test_quaternions_by_hand():
    # a quarter turn about z takes x to y
    half = math.sqrt(0.5)
    rotation = geometry.quaternion_to_matrix(torch.tensor([half, 0.0, 0.0, half]))
    torch.testing.assert_close(rotation @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))


def test_quaternion_round_trip_over_all_four_branches(generator):
    quats = torch.randn(500, 4, generator=generator)
    quats = torch.cat([quats, torch.eye(4), torch.tensor([[1e-4, 1.0, 0, 0], [1e-4, 0, 0, 1.0]])])
    quats = torch.nn.functional.normalize(quats, dim=-1)
    quats = torch.where(quats[:, :1] < 0, -quats, quats)
    back = geometry.matrix_to_quaternion(geometry.quaternion_to_matrix(quats))
    torch.testing.assert_close((back * quats).sum(-1).abs(), torch.ones(len(quats)), atol=1e-6, rtol=0)
    assert (back[:, 0] >= 0).all()


def test_quaternion_product_composes_rotations(generator):
    a, b = torch.randn(2, 10, 4, generator=generator)
    both = geometry.quaternion_to_matrix(geometry.quaternion_multiply(a, b))
    torch.testing.assert_close(
        both, geometry.quaternion_to_matrix(a) @ geometry.quaternion_to_matrix(b), atol=1e-5, rtol=0
    )


def test_quaternion_lerp_takes_the_shorter_arc():
    a, b = torch.tensor([1.0, 0, 0, 0]), torch.tensor([-1.0, 0, 0, 0])
    assert geometry.quaternion_lerp(a, b, torch.tensor([0.5])).tolist() == [1, 0, 0, 0]


def test_rotation_angle_is_exact_for_small_angles():
    angle = torch.tensor(1e-4)
    quats = torch.stack([torch.cos(angle / 2), torch.sin(angle / 2), torch.tensor(0.0), torch.tensor(0.0)])
    found = geometry.rotation_angle(torch.eye(3), geometry.quaternion_to_matrix(quats))
    assert found.item() == pytest.approx(math.degrees(1e-4), rel=1e-4)


def test_plucker_moment_is_origin_cross_direction():
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    rays = geometry.plucker_rays(c2w, torch.tensor([1.0, 1.0, 0.5, 0.5]), 1, 1)[:, 0, 0]
    # the one pixel looks along +z: d = (0, 0, 1), o x d = (2, -1, 0)
    assert rays.tolist() == [2.0, -1.0, 0.0, 0.0, 0.0, 1.0]


def test_look_at_puts_the_target_on_the_axis():
    c2w = geometry.look_at(torch.tensor([1.0, 0, 0]), torch.tensor([1.0, 0, 5.0]), torch.tensor([0.0, 1.0, 0]))
    torch.testing.assert_close(c2w[:3, :3], torch.eye(3))


def test_check_shape_says_what_it_wants():
    with pytest.raises(InputError, match=r"`depth` must have shape \[2, 4\], got \[2, 3\]"):
        check_shape("depth", torch.zeros(2, 3), (2, 4))
    with pytest.raises(InputError, match=r"\[..., \*, 3\], got \[3\]"):
        check_shape("points", torch.zeros(3), (..., None, 3))
    check_shape("points", torch.zeros(5, 2, 3), (..., None, 3))


def test_cameras_intrinsics_and_viewmats(generator):
    cameras = Cameras(random_c2w(generator, 2), torch.tensor([0.5, 1.0, 0.5, 0.25]).expand(2, 4))
    assert cameras.Ks(100, 200)[0].tolist() == [[100, 0, 100], [0, 100, 25], [0, 0, 1]]
    torch.testing.assert_close(cameras.viewmats() @ cameras.c2w, torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(cameras.fov()[0, 0].item(), math.pi / 2)
    assert cameras[1].shape == torch.Size([]) and len(cameras) == 2


def test_cropping_cameras_keeps_every_point_on_its_pixel(generator):
    cameras = Cameras(torch.eye(4), torch.tensor([0.8, 0.9, 0.5, 0.5]))
    points = torch.randn(6, 3, generator=generator) + torch.tensor([0, 0, 4.0])
    xy, _ = geometry.project(points, cameras.fxfycxcy, cameras.c2w)
    cropped = cameras.cropped(top=0.1, left=0.2, height=0.5, width=0.4)
    moved, _ = geometry.project(points, cropped.fxfycxcy, cropped.c2w)
    torch.testing.assert_close(moved, (xy - torch.tensor([0.2, 0.1])) / torch.tensor([0.4, 0.5]))


def test_relative_and_rescaled_cameras(generator):
    cameras = Cameras(random_c2w(generator, 3), torch.ones(3, 4))
    torch.testing.assert_close(cameras.relative_to(cameras[1]).c2w[1], torch.eye(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(cameras.rescaled(2.0).centers, 2 * cameras.centers)


def test_cameras_refuse_wrong_shapes_and_ellipsis():
    with pytest.raises(InputError, match="`fxfycxcy`"):
        Cameras(torch.eye(4), torch.ones(3))
    with pytest.raises(InputError, match="leading dims only"):
        Cameras(torch.eye(4)[None], torch.ones(1, 4))[..., 0]
