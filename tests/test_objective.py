"""Objectives: the geometry part against the reference, and every term against a hand-made truth."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from movies import losses, metrics
from movies.cameras import Cameras
from movies.clip import Batch, Tracks, Views
from movies.errors import InputError
from movies.geometry import unproject
from movies.model.embeddings import pose_encoding
from movies.model.vggt import VGGTPrediction
from movies.objective import (
    LossTerms,
    MoviesObjectiveConfig,
    VGGTObjectiveConfig,
    gather_motion,
    make_objective,
    motion_targets,
    track_pixels,
)
from movies.splats import DynamicSplats

B, V, T, H, W = 2, 3, 2, 14, 28
GOLDEN = load_file(Path(__file__).parent / "data" / "golden_losses.safetensors")
CL = {name.removeprefix("in/cl/"): value for name, value in GOLDEN.items() if name.startswith("in/cl/")}


def cameras(lead):
    c2w = torch.eye(4).repeat(*lead, 1, 1)
    c2w[..., 0, 3] = 0.1 * torch.arange(lead[-1])
    return Cameras(c2w, torch.tensor([1.0, 2.0, 0.5, 0.5]).expand(*lead, 4))


def batch_of(depth, tracks, is_static=(False, False)):
    images = torch.rand(B, V + T, 3, H, W, generator=torch.Generator().manual_seed(0))
    times = torch.linspace(0, 1, V + T).expand(B, -1)
    views = Views(images, cameras((B, V + T)), times, depth, depth > 0)
    return Batch(views, tracks, V, torch.tensor(is_static), ("a", "b"))


def splats_of(batch, depth, motion):
    one = torch.ones(B, V, H, W)
    raw = torch.zeros(B, V, H, W, 11)
    raw[..., 3:6] = 4.0
    return DynamicSplats(
        depth, one, motion, torch.ones(B, T, V, H, W), motion.norm(dim=-1) >= 0.005, raw,
        raw[:, None].expand(-1, T, -1, -1, -1, -1), batch.context.cameras, batch.context.times, batch.target.times,
    )  # fmt: skip


def placed_tracks(generator, num_points=40):
    """Points that start at pixel centres of view 0 at depth 2 and drift."""
    rows = torch.randint(0, H, (B, num_points), generator=generator)
    columns = torch.randint(0, W, (B, num_points), generator=generator)
    first = unproject(torch.full((B, H, W), 2.0), cameras((B, 1)).fxfycxcy[:, 0], cameras((B, 1)).c2w[:, 0])
    start = first[torch.arange(B)[:, None], rows, columns]  # [B, P, 3]
    drift = 0.05 * torch.randn(B, 1, num_points, 3, generator=generator)
    points = start[:, None] + torch.arange(V + T)[None, :, None, None] * drift
    return Tracks(points, torch.ones(B, V + T, num_points, dtype=torch.bool)), rows, columns


def test_geometry_terms_equal_the_reference_with_nan_tracks_and_visibilities():
    x, y = CL["track_xy"].unbind(-1)
    pixels = (y * W + x)[:, :V]
    motion = CL["pred_motions"][:, :, :, :3].movedim(3, -1)  # [B, T, V, H, W, 3]
    predicted = gather_motion(motion, pixels).flatten(1, 3)
    points, visible = CL["track_world"], CL["visibility"].bool()
    target = points[:, V:, None] - points[:, None, :V]
    mask = (visible[:, None, :V] & target.isfinite().all(dim=-1)).flatten(1, 3)
    got = losses.masked_motion_loss(predicted, target.flatten(1, 3), mask) * CL["motion_weight"]
    torch.testing.assert_close(got, GOLDEN["out/cl/alpha0/motion_loss"])

    confidence = gather_motion(CL["pred_motions"][:, :, :, 3:].movedim(3, -1).expand(-1, -1, -1, -1, -1, 3), pixels)
    confident = losses.confident_motion_loss(predicted, target.flatten(1, 3), mask, confidence[..., 0].flatten(1, 3))
    torch.testing.assert_close(confident * CL["motion_weight"], GOLDEN["out/cl/alpha0.2/motion_loss"])

    depth = losses.depth_loss(CL["pred_depth"][:, :, 0], CL["depth"][:, :V], CL["depth_mask"][:, :V].bool())
    torch.testing.assert_close(depth * CL["depth_weight"], GOLDEN["out/cl/alpha0/depth_loss"])
    total = LossTerms(
        {"depth": depth * CL["depth_weight"], "motion": got}, {"depth": 1.0, "motion": 10.0}
    ).total  # fmt: skip
    torch.testing.assert_close(total, GOLDEN["out/cl/alpha0/loss"])


def test_tracks_fall_into_the_pixel_whose_centre_is_nearest(generator):
    tracks, rows, columns = placed_tracks(generator)
    pixels, inside = track_pixels(tracks, cameras((B, V + T)), H, W)
    assert inside[:, 0].all() and torch.equal(pixels[:, 0], rows * W + columns)
    behind = Tracks(-tracks.points, tracks.visible)
    unknown = Tracks(torch.full_like(tracks.points, float("nan")), tracks.visible)
    for lost in (behind, unknown):
        pixels, inside = track_pixels(lost, cameras((B, V + T)), H, W)
        assert not inside.any() and (pixels == 0).all()


def test_gathering_equals_a_loop(generator):
    tracks, _, _ = placed_tracks(generator, 7)
    batch = batch_of(torch.full((B, V + T, H, W), 2.0), tracks)
    motion = torch.randn(B, T, V, H, W, 3, generator=generator)
    truth = motion_targets(batch)
    got = gather_motion(motion, truth.pixels)
    for b, t, v, p in [(0, 0, 0, 0), (1, 1, 2, 6), (1, 0, 1, 3)]:
        row, column = divmod(truth.pixels[b, v, p].item(), W)
        assert torch.equal(got[b, t, v, p], motion[b, t, v, row, column])
        torch.testing.assert_close(truth.motion[b, t, v, p], tracks.points[b, V + t, p] - tracks.points[b, v, p])


def test_points_unseen_in_the_view_or_unknown_at_the_target_do_not_count(generator):
    tracks, _, _ = placed_tracks(generator)
    visible, points = tracks.visible.clone(), tracks.points.clone()
    visible[:, 0, :5] = False  # hidden in view 0
    visible[:, V:, 10:15] = False  # hidden at the targets: their position is known all the same
    points[:, V, 20:25] = float("nan")
    truth = motion_targets(batch_of(torch.full((B, V + T, H, W), 2.0), Tracks(points, visible)))
    assert not truth.mask[:, :, 0, :5].any() and not truth.mask[:, 0, :, 20:25].any()
    assert truth.mask[:, :, 0, 10:15].all() and truth.mask[:, 1, 0, 20:25].all()


@pytest.mark.parametrize("kind", ["published", "squared"])
def test_true_motion_costs_nothing_and_has_no_error(generator, kind):
    tracks, _, _ = placed_tracks(generator, 1)  # one point, so no pixel is asked for two motions
    batch = batch_of(torch.full((B, V + T, H, W), 2.0), tracks)
    truth = motion_targets(batch)
    motion = torch.zeros(B, T, V, H * W, 3)
    index = truth.pixels[:, None, :, :, None].expand(-1, T, -1, -1, 3)
    motion = motion.scatter(3, index, truth.motion).unflatten(3, (H, W))
    objective = make_objective(MoviesObjectiveConfig(mse=0, motion_kind=kind))
    terms = objective.terms(splats_of(batch, batch.context.depth, motion), batch)
    torch.testing.assert_close(terms.losses["motion"], torch.zeros(B))
    torch.testing.assert_close(terms.losses["depth"], torch.zeros(B))
    torch.testing.assert_close(terms.measures["motion_error"], torch.zeros(B))
    still = objective.terms(splats_of(batch, batch.context.depth, 0 * motion), batch)
    torch.testing.assert_close(still.measures["motion_error"], torch.ones(B))
    assert (still.losses["motion"] > 0).all()


@pytest.mark.parametrize("kind", ["published", "squared"])
def test_static_clips_are_supervised_to_zero_motion_and_trackless_dynamic_ones_not(kind):
    batch = batch_of(torch.full((B, V + T, H, W), 2.0), Tracks.empty(B, V + T), is_static=(True, False))
    motion = torch.full((B, T, V, H, W, 3), 0.1, requires_grad=True)
    objective = make_objective(MoviesObjectiveConfig(depth=0, mse=0, motion_kind=kind))
    terms = objective.terms(splats_of(batch, batch.context.depth, motion), batch)
    expected = 0.03**0.5 if kind == "published" else 0.3 * 0.03 / losses.MOTION_UNIT**2
    assert terms.losses["motion"][0].item() == pytest.approx(expected, rel=1e-4)
    assert terms.losses["motion"][1].item() == 0 and terms.measures["motion_error"].isnan().all()
    terms.total.sum().backward()
    assert motion.grad[0].abs().min() > 0 and not motion.grad[1].any()


def test_zero_motion_of_static_clips_has_a_finite_gradient():
    batch = batch_of(torch.full((B, V + T, H, W), 2.0), Tracks.empty(B, V + T), is_static=(True, True))
    motion = torch.zeros(B, T, V, H, W, 3, requires_grad=True)
    objective = make_objective(MoviesObjectiveConfig(depth=0, mse=0))
    objective.terms(splats_of(batch, batch.context.depth, motion), batch).total.sum().backward()
    assert motion.grad.isfinite().all()


def test_photometric_terms_compare_the_rendered_targets():
    batch = batch_of(torch.full((B, V + T, H, W), 2.0), Tracks.empty(B, V + T))
    splats = splats_of(batch, batch.context.depth, torch.zeros(B, T, V, H, W, 3))
    objective = make_objective(MoviesObjectiveConfig(depth=0, motion=0, ssim=0.2, num_rendered=1, render_size=(12, 16)))
    terms = objective.terms(splats, batch)
    assert set(terms.losses) == {"mse", "ssim"} and objective.rendered_targets(batch).images.shape == (B, 1, 3, 12, 16)
    images = objective.render(splats, batch).images
    target = objective.rendered_targets(batch).images
    torch.testing.assert_close(terms.losses["mse"], (images - target).square().mean(dim=(1, 2, 3, 4)))
    torch.testing.assert_close(terms.losses["ssim"], 1 - metrics.ssim(images, target)[:, 0])
    torch.testing.assert_close(terms.total, terms.losses["mse"] + 0.2 * terms.losses["ssim"])


class HalfOfTheError(torch.nn.Module):
    def forward(self, images, target):  # [B, R, 3, h, w] each -> [B, R]
        return 0.5 * (images - target).abs().mean(dim=(2, 3, 4))


def test_the_perceptual_term_is_on_with_weights_and_off_and_said_so_without():
    config = MoviesObjectiveConfig(depth=0, motion=0)
    batch = batch_of(torch.full((B, V + T, H, W), 2.0), Tracks.empty(B, V + T))
    splats = splats_of(batch, batch.context.depth, torch.zeros(B, T, V, H, W, 3))
    objective = make_objective(config)
    assert set(objective.terms(splats, batch).losses) == {"mse"} and "LPIPS term is off" in config.note
    objective.perceptual = HalfOfTheError()
    terms = objective.terms(splats, batch)
    images, target = objective.render(splats, batch).images, objective.rendered_targets(batch).images
    assert images.shape == (B, 1, 3, H, W)  # at the clips' own size where the config names none
    expected = 0.5 * (images - target).abs().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(terms.losses["lpips"], expected)
    torch.testing.assert_close(terms.total, terms.losses["mse"] + 0.5 * expected)  # MSE + 0.5 LPIPS
    assert not MoviesObjectiveConfig(lpips=0).note and not MoviesObjectiveConfig(lpips_weights=("vgg.pth",)).note


def test_the_papers_weights_and_the_trust_in_every_dataset(generator):
    tracks, _, _ = placed_tracks(generator)
    batch = batch_of(torch.full((B, V + T, H, W), 2.0), tracks)
    batch = replace(batch, depth_weight=torch.tensor([1.0, 0.2]), motion_weight=torch.tensor([0.0, 0.5]))
    splats = splats_of(batch, batch.context.depth + 0.1, torch.zeros(B, T, V, H, W, 3))
    terms = make_objective(MoviesObjectiveConfig()).terms(splats, batch)
    depth, motion, mse = (terms.losses[name] for name in ("depth", "motion", "mse"))
    by_hand = depth * torch.tensor([1.0, 0.2]) + 10 * motion * torch.tensor([0.0, 0.5]) + mse
    torch.testing.assert_close(terms.total, by_hand)
    before = {name: value.clone() for name, value in terms.losses.items()}
    summary = terms.summary()  # adding up changes no term: each is logged as itself
    assert all(torch.equal(before[name], value) for name, value in terms.losses.items())
    assert summary["mse"] == pytest.approx(mse.mean().item()) and summary["loss"] > summary["mse"]


def test_true_geometry_costs_vggt_nothing():
    batch = batch_of(torch.full((B, V + T, H, W), 2.0), Tracks.empty(B, V + T))
    context, one = batch.context, torch.ones(B, V, H, W)
    encoding = pose_encoding(context.cameras)
    prediction = VGGTPrediction(context.depth, one, context.points(), one, encoding.expand(4, B, V, 9))
    terms = make_objective(VGGTObjectiveConfig()).terms(prediction, batch)
    torch.testing.assert_close(terms.total, torch.zeros(B))
    assert terms.measures["rotation"].abs().max() < 1e-3 and terms.measures["translation"].abs().max() < 1e-6
    worse = make_objective(VGGTObjectiveConfig()).terms(replace(prediction, depth=2 * context.depth), batch)
    torch.testing.assert_close(worse.measures["absrel"], torch.ones(B))


def test_summary_skips_what_does_not_apply():
    terms = LossTerms({"a": torch.tensor([1.0, 3.0])}, {"a": 2.0}, {"m": torch.tensor([float("nan"), 5.0])})
    assert terms.summary() == {"loss": 4.0, "a": 2.0, "m": 5.0}


def test_unknown_kinds_are_refused():
    with pytest.raises(InputError, match="unknown kind of loss"):
        make_objective(MoviesObjectiveConfig(motion_kind="l1"))
