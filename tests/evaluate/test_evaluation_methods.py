"""Methods' answers are told in the case's pixels, frame and unit: true splats give the truth back."""

from dataclasses import replace

import pytest
import torch

from movies.d4rt.config import D4RTConfig
from movies.d4rt.network import D4RT
from movies.errors import InputError
from movies.evaluate.cases import Case
from movies.evaluate.methods import D4RTMethod, MethodSpec, MoVieSMethod, Readout, clip_of
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import Protocol, load_protocol
from movies.evaluate.readers import open_scenes
from movies.evaluate.tasks import motion, pose, tracks
from movies.geometry import pixel_grid, project, transform_points
from movies.network_world import NetworkWorld, fit_resolution
from movies.splats import NUM_ATTRIBUTES, DynamicSplats

SMALL_D4RT = D4RTConfig(
    image_size=32, patch_size=16, num_frames=6, tubelet=2, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2.0,
    decoder_dim=32, decoder_depth=1, decoder_heads=2, rgb_patch=3,
)  # fmt: skip
UNIT = 4.0  # of the case in that of the network


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return load_protocol("synthetic_worlds").model_copy(update={"options": {"num_clips": 1, "size": 28}})


@pytest.fixture(scope="module")
def case(protocol) -> Case:
    (scene,) = open_scenes(protocol, "", ("dynamic/000",))
    return next(scene.cases(protocol))


@pytest.fixture(scope="module")
def readout(case) -> Readout:
    """What a network would predict that knows the world, in a unit of its own."""
    views, size = len(case.context), case.context.size
    offsets = torch.zeros(1, views, views, *size, 3)
    for v in range(views - 1):  # a pixel's motion to the next time; to the others as if it stood still
        offsets[0, v + 1, v] = case.flow[v] / UNIT
    dense, ones = offsets.shape[:-1], torch.ones(1, views, *size)
    cameras = case.inputs.cameras.rescaled(1 / UNIT)
    depth = torch.where(case.context.depth_mask, case.context.depth, 30.0) / UNIT
    attributes = torch.zeros(*dense, NUM_ATTRIBUTES)
    times = case.inputs.times[None]
    splats = DynamicSplats(
        depth[None], ones, offsets, torch.ones(dense), offsets.norm(dim=-1) > 0, attributes[:, 0], attributes,
        cameras[None], times, times,
    )  # fmt: skip
    clip = fit_resolution(clip_of(case.inputs), 28, 14)
    return Readout(case.inputs, clip, NetworkWorld(cameras, UNIT, torch.eye(4), depth), splats)


def test_depth_points_and_flow_come_back_in_the_cases_unit(case, readout, protocol):
    known = case.context.depth_mask
    torch.testing.assert_close(readout.depth()[known], case.context.depth[known], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(readout.points()[known], case.context.points()[known], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(readout.c2w(), case.context.cameras.c2w)
    scores = motion.score_flow(case, Prediction(flow=readout.flow()), protocol)
    assert scores["flow_epe"].max() < 1e-5 and scores["flow_size_moving"].nanmean() > 0.005


def test_points_score_perfectly(case, readout, protocol):
    assert pose.score_points(case, Prediction(points=readout.points()), protocol)["point_l1"].item() < 1e-4


def near(points: torch.Tensor, truth: torch.Tensor) -> float:
    """Share within a twentieth of their distance: a point is seen first between pixels, whose depth is another."""
    return ((points - truth).norm(dim=-1) < 0.05 * truth.norm(dim=-1)).float().mean().item()


def test_tracks_start_at_their_query_and_go_where_the_pixel_goes(case, readout, protocol):
    found = readout.tracks()
    frames = case.inputs.query_frames
    points = torch.arange(len(frames))
    truth = transform_points(case.context.cameras.viewmats(), case.tracks.points)  # [V, P, 3]
    assert near(found["tracks"][frames, points], truth[frames, points]) > 0.8
    assert found["visible"][frames, points].float().mean() > 0.9
    still = (case.tracks.points - case.tracks.points[:1]).norm(dim=-1).amax(dim=0) < 1e-5
    assert near(found["tracks"][:, still], truth[:, still]) > 0.8
    early = frames < 4
    later = (frames[early] + 1, points[early])  # and the next frame of those that move
    assert near(found["tracks"][later], truth[later]) > 0.8
    scores = tracks.score(case, Prediction(**found), protocol)
    assert scores["oa"].item() > 0.8


def test_pixels_cropped_for_the_network_keep_their_places(case):
    """24x32 pixels become 14x28 or so: what the network says of a place is told at that place."""
    inputs = replace(case.inputs, images=torch.rand(5, 3, 22, 40))
    clip = fit_resolution(clip_of(inputs), 28, 14)
    assert clip.views.size == (14, 28)
    readout = Readout(inputs, clip, NetworkWorld(inputs.cameras, 1.0, torch.eye(4), torch.zeros(0, 0, 0)), None)
    window = readout.window
    places = window.pixels(pixel_grid(14, 28)) / torch.tensor([40, 22])  # of the network's pixels in the case's frame
    told = readout.at_pixels(places[None], "bilinear")[0]
    wanted = pixel_grid(22, 40)
    low, high = places[0, 0], places[-1, -1]
    inside = ((wanted > low) & (wanted < high)).all(dim=-1)
    assert inside.float().mean() > 0.7
    torch.testing.assert_close(told[inside], wanted[inside], rtol=0, atol=1e-5)


def test_only_what_is_wanted_is_answered(case, small_networks, protocol):
    method = small_networks.open(protocol)
    assert isinstance(method, MoVieSMethod)
    answer = method.predict(case.inputs, {"depth"}, 0)
    assert answer.has("depth") and not answer.has("images") and not answer.has("tracks")


def test_d4rt_answers_what_has_no_unit(case):
    torch.manual_seed(0)
    method = D4RTMethod(D4RT(SMALL_D4RT).eval(), {"weights": "random", "dtype": "fp32"})
    small = replace(case.inputs, images=case.inputs.images[..., ::4, ::4])
    answer = method.predict(small, {"depth", "points", "c2w", "tracks", "visible", "flow", "images"}, 0)
    answer.checked(small)
    assert all(answer.has(name) for name in ("depth", "points", "c2w", "tracks", "visible"))
    assert not answer.has("flow") and not answer.has("images")
    torch.testing.assert_close(answer.c2w[0], torch.eye(4))
    assert method.describe()["name"] == "D4RT (random)"


def test_nothing_moves_where_nobody_looks(case, protocol):
    method = MethodSpec(model="still").open(protocol)
    assert method.describe() == {"name": "nothing moves"}
    answer = method.predict(case.inputs, set(), 0).checked(case.inputs)
    assert not answer.has("c2w") and answer.visible.all() and not answer.moving.any() and not answer.flow.any()
    queries, points = case.inputs.query_frames, torch.arange(len(case.tracks))
    xy, z = project(answer.tracks[queries, points][:, None], case.inputs.cameras.fxfycxcy[queries], torch.eye(4))
    torch.testing.assert_close(xy[:, 0], case.inputs.queries[:, 1:])  # each is where it was asked for, at depth 1
    torch.testing.assert_close(z, torch.ones_like(z))
    world = transform_points(case.inputs.cameras.c2w, answer.tracks)
    torch.testing.assert_close(world, world[:1].expand_as(world))
    assert torch.equal(answer.images, case.inputs.images[[0, 1, 2, 3]])  # a tie at 1/8, 3/8 ...: the earlier frame


def test_unknown_models_are_told(protocol):
    with pytest.raises(InputError, match="unknown model 'nerf': choose one of movies, d4rt, still"):
        MethodSpec(model="nerf").open(protocol)
