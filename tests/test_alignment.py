import pytest
import torch

from movies.alignment import umeyama
from movies.errors import InputError
from movies.geometry import quaternion_to_matrix


def random_similarity(generator, *lead):
    rotation = quaternion_to_matrix(torch.randn(*lead, 4, generator=generator, dtype=torch.float64))
    scale = torch.rand(*lead, generator=generator, dtype=torch.float64) * 3 + 0.1
    return scale, rotation, torch.randn(*lead, 3, generator=generator, dtype=torch.float64)


def test_recovers_random_similarities_exactly(generator):
    points = torch.randn(20, 7, 3, generator=generator, dtype=torch.float64)
    scale, rotation, translation = random_similarity(generator, 20)
    target = scale[:, None, None] * points @ rotation.transpose(-1, -2) + translation[:, None]
    found = umeyama(points, target)
    torch.testing.assert_close(found.scale, scale, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found.rotation, rotation, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found(points), target, atol=1e-10, rtol=1e-10)


def test_rigid_leaves_the_scale_at_one(generator):
    points = torch.randn(9, 3, generator=generator)
    assert umeyama(points, 2 * points, with_scale=False).scale == 1


def test_zero_weights_ignore_outliers(generator):
    points = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    target = points * 2 + 1
    target[0] += 100
    weights = torch.ones(9, dtype=torch.float64)
    weights[0] = 0
    torch.testing.assert_close(umeyama(points, target, weights).scale, torch.tensor(2.0, dtype=torch.float64))


def test_a_mirror_image_gives_a_rotation_not_a_reflection(generator):
    points = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    rotation = umeyama(points, points * torch.tensor([1.0, 1.0, -1.0])).rotation
    torch.testing.assert_close(torch.linalg.det(rotation), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.zeros(2, 3), "at least 3 points"),
        (torch.full((4, 3), float("nan")), "finite points"),
        (torch.ones(4, 3), "do not all coincide"),
    ],
)
def test_degenerate_points_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        umeyama(source, source)
