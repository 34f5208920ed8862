"""Read-outs of a network that knows the answers: a rigid box of points seen by a camera that moves."""

from dataclasses import dataclass

import pytest
import torch
from small_models import CONFIG as SMALL
from torch import Tensor, nn

from movies.cameras import Cameras
from movies.clip import Clip
from movies.d4rt.config import D4RTConfig
from movies.d4rt.dense import track_all
from movies.d4rt.network import D4RT
from movies.d4rt.queries import OUTPUTS, Queries, QueryAnswers, SceneTokens, cut_patches
from movies.d4rt.reading import D4RTReading, MoVieSReading, Reading
from movies.d4rt.readouts import (
    Reader,
    decode_depth,
    read_depth,
    read_extrinsics,
    read_intrinsics,
    read_points,
    read_tracks,
)
from movies.d4rt.scenes import dense_scene
from movies.data.synthetic import synthetic_sequences
from movies.errors import InputError
from movies.geometry import look_at, project, rigid_inverse, transform_points
from movies.metrics import boundary_error
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.reconstruct import reconstruct
from movies.tracks import Queries as PixelQueries

FOCAL = torch.tensor([0.9, 1.2, 0.5, 0.5])
NUM_FRAMES = 4


@dataclass(frozen=True)
class Oracle:
    """Answers as a perfect network would of a wall at z = 4 that drifts to the right by `drift` a frame."""

    c2w: Tensor  # [T, 4, 4], the first one the identity
    drift: float

    def query(self, tokens: SceneTokens, queries: Queries, memory_budget: int) -> QueryAnswers:
        rays = torch.cat([(queries.uv - 0.5) / FOCAL[:2], torch.ones_like(queries.uv[..., :1])], dim=-1)
        source = self.c2w[queries.source]
        directions = (source[..., :3, :3] @ rays[..., None])[..., 0]
        depth = (4 - source[..., 2, 3]) / directions[..., 2]
        moved = (queries.target - queries.source)[..., None] * torch.tensor([self.drift, 0, 0])
        world = source[..., :3, 3] + directions * depth[..., None] + moved
        camera = self.c2w[queries.camera]
        points = transform_points(rigid_inverse(camera), world[..., None, :])[..., 0, :]
        positions, _ = project(world[..., None, :], FOCAL.expand(*depth.shape, 4), camera)
        ones = torch.ones_like(depth)
        return QueryAnswers(points, positions[..., 0, :], ones, moved, torch.zeros_like(points), ones)


def camera_path() -> Tensor:  # [T, 4, 4]
    eyes = torch.tensor([[0.0, 0, 0], [0.3, 0, 0.1], [0.5, 0.2, 0], [0.2, -0.3, 0.4]])
    turned = look_at(eyes, torch.tensor([0.1, 0, 4.0]).expand(4, 3), torch.tensor([0.0, 1, 0]))
    turned[0] = torch.eye(4)
    return turned


def reader(drift: float = 0.0, still: bool = False) -> Reader:
    c2w = torch.eye(4).repeat(NUM_FRAMES, 1, 1) if still else camera_path()
    frames = torch.rand(1, NUM_FRAMES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Reader(Oracle(c2w, drift), SceneTokens(torch.zeros(1, 1, 1), frames))


def test_cameras_come_back():
    found = reader()
    assert torch.allclose(read_extrinsics(found), camera_path(), atol=1e-5)
    assert torch.allclose(read_intrinsics(found), FOCAL, atol=1e-4)


def test_depth_points_and_tracks():
    found = reader(drift=0.1)
    depth, _ = read_depth(found, 6, 8)
    assert depth.shape == (NUM_FRAMES, 6, 8) and torch.allclose(depth[0], torch.full((6, 8), 4.0))
    points, _ = read_points(found, 6, 8, camera=0)
    assert torch.allclose(points[..., 2], torch.full_like(points[..., 2], 4.0), atol=1e-5)  # the wall, in one camera
    uv, source = torch.tensor([[0.4, 0.6], [0.2, 0.3]]), torch.tensor([0, 2])
    world = read_tracks(found, uv, source, camera=0).points  # [T, 2, 3]
    assert torch.allclose(world[:, 0] - world[0, 0], torch.arange(4)[:, None] * torch.tensor([0.1, 0, 0]), atol=1e-5)
    own = D4RTReading(found, (6, 8), torch.linspace(0, 1, 4)).tracks(PixelQueries(source, uv))
    assert torch.allclose(own.points, world, atol=1e-4)
    assert torch.allclose(own.positions[2, 1], uv[1], atol=1e-5) and own.confidence[0, 0] == 0.5


@pytest.mark.parametrize("network", ["movies", "d4rt"])
def test_one_interface_over_both_models(model, network):
    """A pixel's track, at the time of its own view, is at the depth of that pixel."""
    images = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    if network == "movies":
        result = reconstruct(Clip.of_frames(images), MoVieS(SMALL).eval(), VGGT(SMALL).eval())
        reading: Reading = MoVieSReading(result.splats)
    else:
        reading = D4RTReading(Reader.of(model, images), (28, 28), torch.linspace(0, 1, 3))
    points = PixelQueries.grid(28, 28, 7, torch.arange(3))
    depth, cameras, tracks = reading.depth(), reading.cameras(), reading.tracks(points)
    assert depth.shape == (3, 28, 28) and len(cameras) == 3 and torch.allclose(cameras.c2w[0], torch.eye(4), atol=1e-5)
    assert tracks.points.shape == (3, len(points), 3) and tracks.visible.dtype == torch.bool
    own = tracks.camera_points()[points.views, torch.arange(len(points)), 2]
    column, row = (points.positions * 28).long().unbind(-1)
    assert torch.allclose(own, depth[points.views, row, column], rtol=1e-3, atol=1e-4)


def test_all_pixels_of_a_still_video_are_followed_once():
    """Nothing moves: the first frame's pixels cover every other, and T times the queries are saved."""
    dense = track_all(reader(still=True), 6, 6)
    assert len(dense.source) == 36 and (dense.source == 0).all()
    assert dense.num_queries == 36 * NUM_FRAMES and dense.saved == NUM_FRAMES


def test_all_pixels_are_covered_where_things_move():
    """What comes into the picture becomes a source of its own, and every pixel is somebody's."""
    found = reader(drift=0.8, still=True)
    dense = track_all(found, 6, 6, at_once=7)
    assert dense.source.max() > 0 and 1 < dense.saved < NUM_FRAMES
    assert dense.num_queries == len(dense.source) * NUM_FRAMES
    pixels = (dense.answers.positions * 6).floor().long()
    inside = ((pixels >= 0) & (pixels < 6)).all(dim=-1)
    for frame in range(NUM_FRAMES):
        seen = pixels[frame][inside[frame]]
        assert len((seen[:, 0] * 6 + seen[:, 1]).unique()) == 36
    cameras = Cameras(found.model.c2w, FOCAL.expand(NUM_FRAMES, 4))
    scene = dense_scene(dense, cameras, torch.linspace(0, 1, NUM_FRAMES), found.tokens.frames[0], (6, 6))
    assert len(scene.moving) == len(dense.source) and len(scene.static) == 0
    still = dense_scene(track_all(reader(still=True), 6, 6), cameras, scene.times, found.tokens.frames[0], (8, 8))
    assert len(still.static) == 36 and still.image_size == (8, 8)


def test_the_four_configurations_of_high_resolution(model, video):
    side, native = model.config.image_size, tuple(video.shape[-2:])
    depths = {k: decode_depth(model, video[0], k) for k in (2, 3, 4)}
    assert depths[2].shape == (5, side, side) and depths[3].shape == depths[4].shape == (5, *native)
    assert (depths[3] - depths[4]).abs().max() > 1e-4  # patches of other frames
    one = decode_depth(model, video[0], 4, torch.tensor([3]))
    assert torch.allclose(one[0], depths[4][3], atol=1e-5)
    bare = D4RT(D4RTConfig(**{**vars(model.config), "rgb_patch": 0}))
    assert decode_depth(bare, video[0], 1).shape == (5, side, side)
    with pytest.raises(InputError, match="configuration 1 needs a network trained without colour patches"):
        decode_depth(model, video[0], 1)
    with pytest.raises(InputError, match="configuration 2 needs a network trained with colour patches"):
        decode_depth(bare, video[0], 2)
    with pytest.raises(InputError, match="must be one of 1, 2, 3, 4, got 5"):
        decode_depth(model, video[0], 5)


class Edge(nn.Module):
    """A decoder's stand-in that says 1 where the middle of its patch is dark and 2 where it is bright."""

    def remember(self, features: Tensor) -> list:
        return []

    def forward(self, queries: Queries, tokens: SceneTokens, memory: list) -> Tensor:
        bright = cut_patches(tokens.frames, queries, 1)[:, :, 0, 0, 0]
        raw = torch.zeros(*bright.shape, OUTPUTS)
        raw[..., 2] = bright  # of depth, which is told from 1
        return raw


def test_thin_structures_sharpen_with_original_patches(model):
    """A wire two pixels wide of a picture four times the encoder's size: only original patches keep it."""
    video = torch.zeros(1, 3, 64, 64)
    video[..., 30:32] = 1
    model.decoder = Edge()
    coarse, fine = decode_depth(model, video, 3), decode_depth(model, video, 4)
    truth = 1 + video[:, 0]
    assert (fine - truth).abs().mean() < 0.01 < 0.02 < (coarse - truth).abs().mean()
    assert fine.max() > 1.99 and coarse.max() < 1.7


@pytest.mark.parametrize("sequence", synthetic_sequences(num_sequences=2, image_size=(64, 64), num_tracks=0))
def test_boundaries_of_synthetic_worlds_sharpen_with_original_patches(model, sequence):
    """Worlds painted by their depth, so a stand-in that sees colours knows depth: edges lie where they do."""
    depth = sequence.read([0, 12])[0].depth
    truth = 1 + (depth - depth.min()) / (depth.max() - depth.min())  # [T, H, W] in [1, 2]
    video = (truth - 1)[:, None].expand(-1, 3, -1, -1)
    model.decoder = Edge()
    coarse, fine = (boundary_error(decode_depth(model, video, k), truth)[0] for k in (3, 4))  # [T] pixels
    assert (fine < 0.1).all() and (coarse > 0.3).all()


def test_no_focal_length_is_an_error():
    @dataclass(frozen=True)
    class Flat(Oracle):
        def query(self, tokens, queries, memory_budget):
            answers = super().query(tokens, queries, memory_budget)
            return answers.map(torch.zeros_like)

    found = Reader(Flat(camera_path(), 0.0), reader().tokens)
    with pytest.raises(InputError, match="no focal length can be read"):
        read_intrinsics(found)
