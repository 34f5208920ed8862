"""Every term of the composite loss against hand-computed values, and gradients where labels are missing."""

import math
from dataclasses import replace

import pytest
import torch
from d4rt_cases import synthetic_batch

from movies.clip import Tracks
from movies.d4rt.losses import d4rt_losses, signed_log
from movies.d4rt.network import D4RT
from movies.d4rt.objective import Asked, D4RTObjective, D4RTObjectiveConfig, measures
from movies.d4rt.queries import Queries, QueryAnswers
from movies.d4rt.sampling import Labels


def answers(**other: torch.Tensor) -> QueryAnswers:
    """Two queries of one clip."""
    values = {
        "points": torch.tensor([[[0.0, 0, 1], [0, 0, 3]]]),
        "positions": torch.tensor([[[0.5, 0.5], [0.25, 0.5]]]),
        "visibility": torch.tensor([[0.0, math.log(3)]]),
        "displacement": torch.tensor([[[0.0, 0, 0], [0, 0.6, 0]]]),
        "normals": torch.tensor([[[0.0, 0, -1], [0, 1, 0]]]),
        "confidence": torch.tensor([[1.0, 2.0]]),
    }
    return QueryAnswers(**(values | other))


def labels(**other: torch.Tensor) -> Labels:
    yes = torch.ones(1, 2, dtype=torch.bool)
    values = {
        "points": torch.tensor([[[2.0, 0, 4], [-2, 0, 4]]]),
        "points_mask": yes,
        "positions": torch.tensor([[[0.5, 0.7], [0.45, 0.5]]]),
        "positions_mask": yes,
        "visible": torch.tensor([[True, False]]),
        "displacement": torch.tensor([[[0.0, 0, 0], [0, 0, 1.2]]]),
        "normals": torch.tensor([[[0.0, 0, -1], [0, 0, -1]]]),
        "normals_mask": yes,
    }
    return Labels(**(values | other))


def test_terms_by_hand():
    """Mean depths are 2 and 4, so points become (0, 0, 0.5), (0, 0, 1.5) against (0.5, 0, 1), (-0.5, 0, 1)."""
    terms = d4rt_losses(answers(), labels())
    log = math.log
    first = (log(1.5) + log(2) - log(1.5)) / 3
    second = (log(1.5) + log(2.5) - log(2)) / 3
    expected = {
        "points": (1 * first + 2 * second) / 2,
        "confidence": -log(2) / 2,
        "positions": (0.2 / 2 + 0.2 / 2) / 2,
        "visible": (log(2) + log(4)) / 2,  # -log(1/2) and -log(1 - 3/4)
        "displacement": (0 + (0.3 + 0.3) / 3) / 2,
        "normals": (0 + 1) / 2,
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5), name


def test_squared_terms_by_hand():
    terms = d4rt_losses(answers(), labels(), squared=True)
    log = math.log
    first = (log(1.5) ** 2 + (log(2) - log(1.5)) ** 2) / 3 / 0.15**2
    second = (log(1.5) ** 2 + (log(2.5) - log(2)) ** 2) / 3 / 0.15**2
    assert terms["points"].item() == pytest.approx((2 * first + 3 * second) / 2, rel=1e-5)
    assert terms["positions"].item() == pytest.approx(8.0, rel=1e-5)  # (0.2 / 0.05)^2 in one of two coordinates
    moved = (0.3**2 + 0.3**2) / 0.15**2  # the still point has no error
    assert terms["displacement"].item() == pytest.approx(moved + 0.3 * moved / 2, rel=1e-5)


def test_squared_confidence_weighs_no_gradient():
    given = answers(points=torch.tensor([[[0.0, 0, 1], [0, 0, 3]]], requires_grad=True))
    d4rt_losses(given, labels(), squared=True)["points"].sum().backward()
    small = answers(points=given.points.detach().clone().requires_grad_(), confidence=torch.full((1, 2), 0.01))
    d4rt_losses(small, labels(), squared=True)["points"].sum().backward()
    assert torch.equal(given.points.grad, small.points.grad)


def test_signed_log():
    assert signed_log(torch.tensor([-1.0, 0, math.e - 1])).tolist() == pytest.approx([-math.log(2), 0, 1])


def test_measures_know_no_unit():
    """The truth three times as large is right; displacements of half the truth are half as wrong as none."""
    truth = labels()
    still = torch.zeros(1, 2, dtype=torch.long)
    queries = Queries(torch.full((1, 2, 2), 0.5), still, still, still)
    exact = answers(points=3 * truth.points, displacement=1.5 * truth.displacement, positions=truth.positions)
    found = measures(Asked(queries, exact, truth))
    assert found["absrel"] == found["point_error"] == 0
    assert found["motion_error"] == pytest.approx(0.5)


def test_the_weights_are_the_papers():
    config = D4RTObjectiveConfig()
    weights = (config.points, config.confidence, config.positions, config.visible, config.displacement, config.normals)
    assert weights == (1.0, 0.2, 0.1, 0.1, 0.1, 0.5)
    assert (config.num_queries, config.edge_share, config.same_camera) == (2048, 0.3, 0.4)


def test_missing_labels_count_nothing():
    none = torch.zeros(1, 2, dtype=torch.bool)
    missing = labels(points_mask=none, positions_mask=none, normals_mask=none, points=torch.zeros(1, 2, 3))
    assert all(value.item() == 0 for value in d4rt_losses(answers(), missing).values())
    half = torch.tensor([[True, False]])
    terms = d4rt_losses(answers(), labels(positions_mask=half, normals_mask=half))
    assert terms["positions"].item() == pytest.approx(0.1) and terms["normals"].item() == 0


@pytest.mark.parametrize("kind", ["published", "squared"])
@pytest.mark.parametrize("lacking", ["nothing", "tracks", "everything"])
def test_gradients_are_finite_whatever_is_missing(model, kind, lacking):

    batch = synthetic_batch(static=False)
    if lacking != "nothing":
        batch = replace(batch, tracks=Tracks.empty(2, 5))
    if lacking == "everything":
        mask = torch.zeros_like(batch.views.depth_mask)
        batch = replace(batch, views=replace(batch.views, depth_mask=mask))
    objective = D4RTObjective(D4RTObjectiveConfig(kind=kind, num_queries=40))
    generator = torch.Generator().manual_seed(0)
    asked = objective.predict(model, batch, generator)
    terms = objective.terms(asked, batch, generator)
    terms.total.mean().backward()
    assert terms.total.shape == (2,)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert (model.decoder.head.weight.grad.abs().max() > 0) == (lacking != "everything")


def test_one_clip_is_learned(model):
    """Twenty steps on the same queries with the squared loss: points come near their labels."""
    batch = synthetic_batch(static=False)
    objective = D4RTObjective(D4RTObjectiveConfig(kind="squared", num_queries=128, positions=0.3))
    torch.manual_seed(0)
    model = D4RT(model.config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for _ in range(20):
        generator = torch.Generator().manual_seed(0)
        terms = objective.terms(objective.predict(model, batch, generator), batch)
        optimizer.zero_grad()
        terms.total.mean().backward()
        optimizer.step()
        history.append(terms.summary())
    assert history[-1]["point_error"] < 0.8 * history[0]["point_error"]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
