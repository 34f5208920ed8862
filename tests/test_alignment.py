import pytest
import torch

from movies.alignment import Similarity, robust_umeyama, symmetric_umeyama, umeyama
from movies.errors import InputError
from movies.geometry import quaternion_to_matrix, rotation_angle, transform_points


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


def test_points_of_one_plane_are_enough(generator):
    points = torch.randn(30, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.0])
    scale, rotation, translation = (x[0] for x in random_similarity(generator, 1))
    target = scale * points @ rotation.T + translation
    torch.testing.assert_close(umeyama(points, target).rotation, rotation, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("which", ["source", "target"])
def test_a_line_is_refused(generator, which):
    """Rounding to float32 leaves points on their line, and half a percent off it is no line."""
    along, sure = torch.randn(50, 1, generator=generator), torch.randn(50, 3, generator=generator)
    line = along * torch.tensor([0.3, -0.5, 0.8]) + 1.0
    pair = (line, sure) if which == "source" else (sure, line)
    with pytest.raises(InputError, match="one line"):
        umeyama(*pair)
    umeyama(*(x + 0.005 * sure if x is line else x for x in pair))


def test_gradients_reach_points_and_weights(generator):
    points = [torch.randn(2, 5, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    weights = torch.rand(2, 5, generator=generator, dtype=torch.float64).requires_grad_()

    def fitted(source, target, weights):
        fit = umeyama(source, target, weights)
        return fit.scale, fit.rotation, fit.translation

    assert torch.autograd.gradcheck(fitted, (*points, weights))


def test_similarities_compose_and_invert(generator):
    points = torch.randn(4, 9, 3, generator=generator, dtype=torch.float64)
    a, b = (Similarity(*random_similarity(generator, 4)) for _ in range(2))
    torch.testing.assert_close(a.after(b)(points), a(b(points)))
    torch.testing.assert_close(a.inverse()(a(points)), points)
    assert torch.equal(Similarity.identity()(points.float()), points.float())
    moved = transform_points(a.transform, a.scale[:, None, None] * points)
    torch.testing.assert_close(moved, a(points))


@pytest.mark.parametrize("seed", range(20))
def test_robust_fit_finds_the_similarity_under_noise_and_outliers(seed):
    """Properties over random similarities: a third of wild points, the worst of them with the least confidence."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(3, 400, 3, generator=generator, dtype=torch.float64)
    scale, rotation, translation = random_similarity(generator, 3)
    target = scale[:, None, None] * (source @ rotation.transpose(-1, -2)) + translation[:, None]
    noise = 0.01 * scale[:, None, None] * torch.randn(3, 400, 3, generator=generator, dtype=torch.float64)
    wild = torch.rand(3, 400, generator=generator) < 0.33
    spread = scale[:, None, None] * 5 * torch.randn(3, 400, 3, generator=generator, dtype=torch.float64)
    given = target + torch.where(wild[..., None], spread + 2, noise)
    fit = robust_umeyama(source, given, confidence=torch.rand(3, 400, generator=generator) - 0.2 * wild)
    # 200 points or more with noise of 1 % of the spread: the mean is good to a tenth of that, five sigma allowed
    assert (fit.similarity.scale / scale - 1).abs().max() < 5e-3
    assert rotation_angle(fit.similarity.rotation, rotation).max() < 0.3
    assert not (fit.inliers & wild & ((given - target).norm(dim=-1) > 0.2 * scale[:, None])).any()
    assert (fit.inliers.sum(dim=-1) > 150).all()
    plain = umeyama(source, given).scale
    assert ((plain / scale - 1).abs() > (fit.similarity.scale / scale - 1).abs()).all()


def test_robust_fit_of_exact_points_keeps_the_confident_share(generator):
    source = torch.randn(200, 3, generator=generator)
    scale, rotation, translation = (x[0].float() for x in random_similarity(generator, 1))
    confidence = torch.rand(200, generator=generator)
    fit = robust_umeyama(source, scale * source @ rotation.T + translation, confidence, share=0.85)
    assert fit.inliers.sum() == 170 and confidence[fit.inliers].min() > confidence[~fit.inliers].max()
    assert fit.residuals.max() < 1e-4


def test_a_robust_fit_of_too_few_or_a_share_outside_its_range_is_refused():
    with pytest.raises(InputError, match="at least 3 points"):
        robust_umeyama(torch.rand(0, 3), torch.rand(0, 3), torch.ones(0))
    with pytest.raises(InputError, match="share"):
        robust_umeyama(torch.rand(5, 3), torch.rand(5, 3), torch.ones(5), share=0.0)


def test_the_symmetric_scale_is_not_biased_by_noise_on_both_sides(generator):
    source = torch.randn(200, 300, 3, generator=generator, dtype=torch.float64)
    scale, rotation, translation = random_similarity(generator, 200)
    target = scale[:, None, None] * (source @ rotation.transpose(-1, -2)) + translation[:, None]
    weights = torch.rand(200, 300, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(symmetric_umeyama(source, target, weights)(source), target)
    noisy = [
        x + 0.2 * s * torch.randn(x.shape, generator=generator)
        for x, s in ((source, 1), (target, scale[:, None, None]))
    ]
    found, plain = (fit(*noisy, weights).scale.log() - scale.log() for fit in (symmetric_umeyama, umeyama))
    # the plain one is biased by 0.2 squared; what is left of the other is the mean of 200 errors of 2 %
    assert abs(found.mean()) < 0.005 and plain.mean() < -0.03
