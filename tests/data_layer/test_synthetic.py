"""Synthetic worlds: what they claim to be exact is checked against what they render, and against itself."""

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F

from movies.cameras import Cameras
from movies.clip import Clip
from movies.data.buckets import ClipShape
from movies.data.dataset import BatchPlan, ClipConfig, ClipDataset, LoadedBatch
from movies.data.readers import READERS
from movies.data.sampling import SamplingConfig
from movies.data.synthetic import SyntheticSequence, read_sequences, synthetic_sequences
from movies.data.synthetic_materials import pattern_weights
from movies.data.synthetic_render import Rendered
from movies.data.synthetic_textures import material_row
from movies.data.synthetic_worlds import World
from movies.errors import InputError
from movies.geometry import look_at, project, unproject

SIZE = (40, 48)
FRAMES = [0, 9, 23]
SEEDS = (0, 1, 2, 101, 103, 105)
ANCHOR, EYE = [0.062362177, 0.29725168, 0.056317287], [0.1649287, 0.1290092, -0.49666178]  # of seed 5, wide


def sequence(seed: int = 0, difficulty: float = 1.0, is_static: bool = False, num_tracks: int = 64):
    return SyntheticSequence(seed, SIZE, num_tracks=num_tracks, is_static=is_static, difficulty=difficulty)


def render_frames(seq: SyntheticSequence, indices=FRAMES) -> tuple[Rendered, Cameras, torch.Tensor]:
    times = seq.frame_times(indices)
    return seq.render_view(seq.cameras(times), times, *SIZE), seq.cameras(times), times


def first_where(condition, seeds=range(100)) -> SyntheticSequence:
    return next(seq for seq in map(sequence, seeds) if condition(seq))


def unchanging_mask(depth: torch.Tensor, solids: torch.Tensor) -> torch.Tensor:  # [F, H, W] -> bool
    """Pixels all of whose neighbours show the same solid on a smooth surface (small second difference)."""
    inner = depth[:, 1:-1, 1:-1]
    bend_x = (depth[:, 1:-1, 2:] - 2 * inner + depth[:, 1:-1, :-2]).abs()
    bend_y = (depth[:, 2:, 1:-1] - 2 * inner + depth[:, :-2, 1:-1]).abs()
    same = torch.ones_like(inner, dtype=torch.bool)
    for rows, columns in ((slice(1, -1), slice(2, None)), (slice(1, -1), slice(0, -2)),
                          (slice(2, None), slice(1, -1)), (slice(0, -2), slice(1, -1))):  # fmt: skip
        same &= solids[:, rows, columns] == solids[:, 1:-1, 1:-1]
    return same & (bend_x < 2e-3) & (bend_y < 2e-3)


# --- as a Sequence -----------------------------------------------------------------------------------------------


def test_reads_what_every_sequence_gives():
    (seq,) = READERS["synthetic"]("", num_sequences=1, first_seed=7, image_size=SIZE, num_tracks=10, num_frames=5)
    views, tracks = seq.read([4, 0])
    assert (seq.name, seq.num_frames, seq.is_static) == ("synthetic-7-0", 5, False)
    assert views.images.shape == (2, 3, *SIZE)
    assert views.times.tolist() == [1.0, 0.0]
    assert views.images.min() >= 0
    assert views.images.max() <= 1
    assert tracks.points.shape == (2, 10, 3)
    assert all(getattr(views, f.name).dtype == torch.float32 for f in fields(views) if f.name not in _NOT_FLOAT)
    Clip(views, tracks, num_context=1)


_NOT_FLOAT = ("cameras", "depth_mask")


def test_one_seed_gives_one_world_and_another_another():
    first, second = (sequence(3).read(FRAMES) for _ in range(2))
    assert torch.equal(first[0].images, second[0].images)
    assert torch.equal(first[1].points, second[1].points)
    other = sequence(4).read(FRAMES)
    assert (first[0].images - other[0].images).abs().mean() > 0.02


def test_numbers_of_a_seed_are_pinned():
    """The same on every machine: bundled weights and tables name seeds. Change these with the generator only."""
    world, path = sequence(5)._drawn
    assert world.motion.anchor[0, 0].tolist() == pytest.approx(ANCHOR, rel=1e-6)
    assert path.eye[0].tolist() == pytest.approx(EYE, rel=1e-6)


def test_several_sequences_at_once_equal_each_alone():
    """Also where their numbers of solids differ and the smaller worlds are padded."""
    sequences = [sequence(seed, num_tracks=20) for seed in SEEDS]
    assert len({seq.world.num_solids for seq in sequences}) > 1
    views, tracks = read_sequences(sequences, [FRAMES] * len(sequences))
    for i, seq in enumerate(sequences):
        alone, alone_tracks = seq.read(FRAMES)
        assert torch.allclose(views.images[i], alone.images, atol=2e-3)  # an edge sample may round to the other side
        assert (views.depth[i] - alone.depth).abs().median() < 1e-6
        assert torch.allclose(tracks.points[i], alone_tracks.points, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difficulty": "hard"}, "difficulty must be easy, wide"),
        ({"difficulty": 1.5}, "difficulty must be"),
        ({"static": 2.0}, "static must be a fraction"),
        ({"num_frames": 1}, "2 frames or more"),
        ({"off_path": 0.5}, "off_path must be a share"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(InputError, match=message):
        synthetic_sequences(**options)


@pytest.mark.parametrize("indices", [[24], [-1], []])
def test_refuses_frames_it_does_not_have(indices):
    with pytest.raises(InputError, match=r"has frames 0\.\.23"):
        sequence().read(indices)


def test_material_columns_are_checked():
    with pytest.raises(TypeError, match="sheen"):
        material_row(sheen=1.0)
    assert pattern_weights(checks=2.0)[2] == 2.0


def test_static_fraction():
    sequences = synthetic_sequences(num_sequences=400, static=0.3)
    assert 80 < sum(seq.is_static for seq in sequences) < 160


# --- geometry ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> tuple[LoadedBatch, LoadedBatch]:
    """The same plan of clips with targets on the path and beside it."""
    sampling = SamplingConfig(num_targets=3, gap=(4, 6))
    options = {"num_sequences": 2, "image_size": SIZE, "num_frames": 25, "num_tracks": 64, "difficulty": "wide"}
    plan = BatchPlan((0, 1), ClipShape(5, *SIZE), (7, 0))
    sources = (synthetic_sequences(off_path=far, **options) for far in (0.0, 0.08))
    return tuple(ClipDataset([(source, 1)], ClipConfig(sampling))[plan] for source in sources)


def test_targets_beside_the_path_leave_the_context_alone(pair):
    on, off = (loaded.batch for loaded in pair)
    assert torch.equal(on.context.images, off.context.images) and torch.equal(on.context.depth, off.context.depth)
    assert torch.equal(on.tracks.points, off.tracks.points) and torch.equal(on.views.times, off.views.times)
    assert torch.equal(on.tracks.visible[:, :5], off.tracks.visible[:, :5])
    moved = (on.target.cameras.centers - off.target.cameras.centers).norm(dim=-1)
    assert moved.min() > 0 and 0.04 < moved.max() <= 0.08 + 1e-5  # in a world of unit mean distance
    assert torch.allclose(on.target.cameras.c2w[..., :3, :3], off.target.cameras.c2w[..., :3, :3], atol=1e-6)


def test_targets_beside_the_path_show_what_is_there(pair):
    """Tracks that a moved target sees lie where its depth says."""
    off = pair[1].batch
    target, points = off.target, off.tracks.points[:, 5:]
    xy, z = project(points, target.cameras.fxfycxcy, target.cameras.c2w)
    place = (xy * 2 - 1).flatten(0, 1)[:, None]  # [B T, 1, P, 2]
    depth = F.grid_sample(target.depth.flatten(0, 1)[:, None], place, align_corners=False, mode="nearest")
    seen = off.tracks.visible[:, 5:]
    ratio = (depth[:, 0, 0].unflatten(0, seen.shape[:2]) / z)[seen]
    assert seen.float().mean() > 0.3 and (ratio - 1).abs().median() < 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_depth_of_one_view_predicts_another_of_a_static_world(seed):
    rendered, cameras, _ = render_frames(sequence(seed, is_static=True))
    points = unproject(rendered.depth[0], cameras.fxfycxcy[0], cameras.c2w[0]).flatten(0, 1)  # [HW, 3]
    places, z = project(points, cameras.fxfycxcy[1], cameras.c2w[1])
    inside = ((places > 0) & (places < 1)).all(-1) & (z > 0) & rendered.depth_mask[0].flatten()
    sampled = torch.nn.functional.grid_sample(
        rendered.depth[1][None, None], places[None, None] * 2 - 1, align_corners=False
    )[0, 0, 0]
    relative = (sampled - z).abs()[inside] / z[inside]
    assert inside.float().mean() > 0.2
    assert relative.median() < 2e-3  # bilinear depth, so not exact even where both views see the point
    assert (relative < 0.02).float().mean() > 0.7  # the rest is hidden in one of them, or mixed at an edge


@pytest.mark.parametrize("seed", SEEDS)
def test_normals_are_those_of_the_depth(seed):
    rendered, cameras, _ = render_frames(sequence(seed))
    points = unproject(rendered.depth, cameras.fxfycxcy, cameras.c2w)  # [F, H, W, 3]
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    expected = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    normals = rendered.normals[:, 1:-1, 1:-1]
    smooth = unchanging_mask(rendered.depth, rendered.solids) & rendered.depth_mask[:, 1:-1, 1:-1]
    agreement = (expected * normals).sum(-1)[smooth]
    assert torch.allclose(rendered.normals[rendered.depth_mask].norm(dim=-1), torch.ones(()), atol=1e-5)
    assert agreement.quantile(0.05) > 0.97  # finite differences on curved solids
    assert agreement.median() > 0.999


def test_sky_has_no_depth():
    seq = first_where(lambda s: bool(s.world.is_open))
    rendered, _, _ = render_frames(seq)
    sky = ~rendered.depth_mask
    assert sky.any()
    assert not sky.all()
    assert (rendered.depth[sky] == 0).all()
    assert (rendered.normals[sky] == 0).all()
    assert seq.dense_motion([0], torch.tensor([1.0]))[0, 0][sky[0]].isnan().all()
    _, tracks = seq.read(FRAMES)
    assert tracks.points.isfinite().all()


def test_rooms_are_seen_whole():
    rendered, _, _ = render_frames(sequence(0, difficulty=0.0))
    assert rendered.depth_mask.all()


def test_images_are_antialiased():
    """Near a render four times as large, averaged; much nearer than one sample per pixel is."""
    seq, times = sequence(1), torch.tensor([0.3])
    image = seq.render_view(seq.cameras(times), times, *SIZE).images
    large = seq.render_view(seq.cameras(times), times, 4 * SIZE[0], 4 * SIZE[1]).images
    averaged = torch.nn.functional.avg_pool2d(large, 4)
    aliased = large[..., 2::4, 2::4]
    error = (image - averaged).square().mean().sqrt()
    assert error < 0.03
    assert error < 0.6 * (aliased - averaged).square().mean().sqrt()


def test_a_camera_along_an_axis_sees_finite_depth():
    """Rays with components of exactly 0 divide by them."""
    seq = sequence(0, difficulty=0.0)
    cameras = Cameras(torch.eye(4)[None], torch.tensor([[0.8, 0.8, 0.5, 0.5]]))
    rendered = seq.render_view(cameras, torch.tensor([0.5]), 15, 15)
    assert rendered.images.isfinite().all()
    assert (rendered.depth > 0).all()
    assert (rendered.depth < 5).all()


def test_a_ball_has_the_depth_of_a_ball():
    """Hand-worked: a ball of radius r whose centre is at distance d shows depth d - r in the middle."""
    seq = first_where(lambda s: s.world.num_quadrics > 0 and bool(s.world.motion.half_size[0, 0].std() == 0))
    center = seq.world.motion.poses(torch.tensor([0.5]))[1][0, 0].float()
    radius = float(seq.world.motion.half_size[0, 0, 0])
    eye = center + torch.tensor([0.0, -2 * radius, 0.0])  # from above, where nothing stands between
    cameras = Cameras(look_at(eye, center, torch.tensor([0.0, 0.0, 1.0]))[None], torch.tensor([[2.0, 2.0, 0.5, 0.5]]))
    rendered = seq.render_view(cameras, torch.tensor([0.5]), 5, 5)
    assert rendered.depth[0, 2, 2] == pytest.approx(radius, rel=1e-4)


def test_field_of_view_and_baseline_are_in_range():
    for seq in (sequence(seed, difficulty) for seed in range(20) for difficulty in (0.0, 1.0)):
        cameras = seq.cameras(torch.linspace(0, 1, 5))
        horizontal = torch.rad2deg(cameras.fov()[0, 0])
        assert 40 <= horizontal <= 80
        assert cameras.fxfycxcy[0, 1] / cameras.fxfycxcy[0, 0] == pytest.approx(SIZE[1] / SIZE[0])
        assert 0.03 < (cameras.centers[-1] - cameras.centers[0]).norm() < 0.7


# --- motion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_tracks_start_at_pixel_centres_and_lie_on_the_surface(seed):
    views, tracks = sequence(seed).read(FRAMES)
    places, z = project(tracks.points, views.cameras.fxfycxcy, views.cameras.c2w)  # [V, P, 2], [V, P]
    pixels = places * torch.tensor([SIZE[1], SIZE[0]]) - 0.5
    index = pixels.round().long()
    inside = ((index >= 0) & (index < torch.tensor([SIZE[1], SIZE[0]]))).all(-1)
    column, row = index[..., 0].clamp(0, SIZE[1] - 1), index[..., 1].clamp(0, SIZE[0] - 1)
    depth = views.depth[torch.arange(len(FRAMES))[:, None], row, column]
    centred = ((pixels - index).abs() < 1e-3).all(-1) & inside & ((depth - z).abs() < 1e-4)
    assert centred.any(dim=0).all()
    assert tracks.visible[centred].float().mean() > 0.99


@pytest.mark.parametrize("seed", SEEDS)
def test_visible_agrees_with_the_depth(seed):
    seq = sequence(seed, num_tracks=400)
    views, tracks = seq.read(FRAMES)
    places, z = project(tracks.points, views.cameras.fxfycxcy, views.cameras.c2w)
    inside = ((places > 0) & (places < 1)).all(-1) & (z > 0)
    assert not tracks.visible[~inside].any()
    depth = torch.where(views.depth_mask, views.depth, torch.full((), 100.0))[:, None]
    around = -torch.nn.functional.max_pool2d(-depth, 3, 1, 1), torch.nn.functional.max_pool2d(depth, 3, 1, 1)
    grid = places[:, None] * 2 - 1
    nearest, farthest = (
        torch.nn.functional.grid_sample(d, grid, mode="nearest", align_corners=False)[:, 0, 0] for d in around
    )
    # Within a pixel of the image's border there is no depth on all sides to compare with.
    inside &= ((places > 1 / SIZE[0]) & (places < 1 - 1 / SIZE[0])).all(-1)
    # Nearer than the depth all around means seen; farther than it, by more than a surface slants in a pixel, hidden.
    assert not tracks.visible[inside & (z > farthest * 1.1)].any()
    assert tracks.visible[inside & (z < nearest * 0.999)].all()


def test_every_moving_pixel_moves_and_no_other():
    for seed in SEEDS:
        seq = sequence(seed)
        rendered, _, times = render_frames(seq)
        path = seq.dense_motion(FRAMES, torch.linspace(0, 1, 7))  # [T, V, H, W, 3]
        moved = (path - path[:1]).norm(dim=-1).amax(dim=0)  # [V, H, W]
        known = rendered.depth_mask
        assert (moved[known & rendered.moving] > 1e-3).float().mean() > 0.98  # a turning solid's axis stays
        assert (moved[known & ~rendered.moving] < 1e-6).all()
        assert times.shape == (len(FRAMES),)


def test_dense_motion_at_its_own_time_is_the_pixel_itself():
    seq = sequence(101)
    rendered, cameras, times = render_frames(seq, [5])
    points = unproject(rendered.depth, cameras.fxfycxcy, cameras.c2w)
    own = seq.dense_motion([5], times)[0]
    assert torch.allclose(own[rendered.depth_mask], points[rendered.depth_mask], atol=1e-5)


def test_pixels_can_be_followed_to_any_time():
    seq = sequence(1)
    pixels = torch.tensor([[0, 20, 24], [1, 30, 10]])  # (view, row, column)
    times = torch.tensor([0.0, 0.123, 1.0])
    tracks = seq.read_tracks([3, 12], pixels, times)
    dense = seq.dense_motion([3, 12], times)
    assert tracks.visible.shape == (3, 2)
    assert torch.equal(tracks.points[:, 0], dense[:, 0, 20, 24])
    assert torch.equal(tracks.points[:, 1], dense[:, 1, 30, 10])


def test_rigid_solids_keep_distances_and_others_do_not():
    kept, changed = 0, 0
    for seed in range(100, 130):
        world = sequence(seed).world
        for solid in range(world.num_solids):
            matrices = torch.cat([world.motion.poses(torch.tensor([t]))[0][:, solid] for t in (0.0, 0.4, 1.0)])
            gram = matrices.transpose(-1, -2) @ matrices  # distances between points of the solid
            is_rigid = not (world.motion.stretch[0, solid].any() or world.motion.lean[0, solid].any())
            if is_rigid:
                assert torch.allclose(gram, gram[:1].expand_as(gram), atol=1e-9)
                kept += 1
            else:
                changed += int((gram - gram[:1]).abs().max() > 1e-5)
    assert kept > 20
    assert changed > 0


def test_the_static_variant_is_the_same_world_at_rest():
    seq, moving = sequence(2, is_static=True), sequence(2)
    rendered, _, _ = render_frames(seq)
    assert not rendered.moving.any()
    path = seq.dense_motion(FRAMES, torch.tensor([0.0, 1.0]))
    known = rendered.depth_mask
    assert (path[1] - path[0])[known].abs().max() < 1e-7
    middle = torch.tensor([0.5])
    both = [s.render_view(s.cameras(middle), middle, *SIZE).images for s in (seq, moving)]
    assert torch.equal(*both)


def test_every_dynamic_world_moves_enough_to_learn_from():
    for seed in range(30):
        views, tracks = SyntheticSequence(seed, (28, 28), num_tracks=32).read([0, 23])
        moved = (tracks.points[1] - tracks.points[0]).norm(dim=-1)[:16]
        assert moved.mean() > 0.03
        distance = (views.points() - views.cameras.centers[0])[views.depth_mask].norm(dim=-1).mean()
        assert 0.5 < distance < 1.8  # about 1


def test_worlds_stack_and_select():
    worlds = [sequence(seed).world for seed in SEEDS]
    stacked = World.stack(worlds)
    assert stacked.exists.sum(dim=1).tolist() == [world.num_solids for world in worlds]
    assert stacked.moving().sum(dim=1).tolist() == [int(world.moving().sum()) for world in worlds]
    assert stacked.select(torch.tensor([2, 0])).is_open.tolist() == [bool(worlds[2].is_open), bool(worlds[0].is_open)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_worlds():
    sequences = [sequence(seed) for seed in SEEDS]
    cpu = read_sequences(sequences, [FRAMES] * len(SEEDS))
    gpu = read_sequences(sequences, [FRAMES] * len(SEEDS), "cuda")
    difference = (cpu[0].images - gpu[0].images.cpu()).abs()
    assert difference.mean() < 1e-4
    assert (difference > 0.02).float().mean() < 1e-3  # samples on an edge round to either side
    assert torch.allclose(cpu[1].points, gpu[1].points.cpu(), atol=1e-4)
