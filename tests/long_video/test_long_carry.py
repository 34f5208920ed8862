"""Tracks over a joint: a wall, and something that stands before half of it in the frames that both chunks hold."""

from types import SimpleNamespace

import torch

from movies.alignment import Similarity
from movies.cameras import Cameras
from movies.geometry import rigid
from movies.long_video.carry import ChunkTracks, follow, join_tracks
from movies.splats import NUM_ATTRIBUTES, DynamicSplats

SIZE = 28
HIDDEN = (3, 4)  # frames in which the left half of the wall is not seen


def chunk(frames: torch.Tensor, scale: float = 1.0, drift: float = 0.0) -> SimpleNamespace:
    """What a reconstruction of these frames is, in a unit of its own; the wall drifts to the right."""
    count = len(frames)
    depth = torch.full((count, SIZE, SIZE), 2.0)
    depth[torch.isin(frames, torch.tensor(HIDDEN)), :, : SIZE // 2] = 1.0
    cameras = Cameras(torch.eye(4).repeat(count, 1, 1), torch.tensor([1.0, 1.0, 0.5, 0.5]).repeat(count, 1))
    dense = (1, count, count, SIZE, SIZE)
    motion = torch.zeros(*dense, 3)
    motion[..., 0] = drift * (frames[:, None] - frames)[None, :, :, None, None]
    splats = DynamicSplats(
        (scale * depth)[None], torch.ones(1, *depth.shape), scale * motion, torch.ones(dense),
        torch.zeros(dense, dtype=torch.bool), torch.zeros(1, *depth.shape, NUM_ATTRIBUTES),
        torch.zeros(*dense, NUM_ATTRIBUTES), cameras.reshape(1, count), frames[None] / 7, frames[None] / 7,
    )  # fmt: skip
    scene = SimpleNamespace(cameras=cameras)
    return SimpleNamespace(splats=splats, scene=scene, scale=1.0, transform=torch.eye(4))


FIRST, SECOND = torch.arange(5), torch.arange(3, 8)


def followed(drift: float = 0.0) -> tuple[ChunkTracks, ChunkTracks]:
    before = follow(chunk(FIRST, drift=drift), FIRST)
    joint = Similarity(torch.tensor(0.5), torch.eye(3), torch.zeros(3))  # the second chunk is twice as large
    return before, follow(chunk(SECOND, 2.0, drift), SECOND, before, joint).placed(joint)


def test_a_track_goes_on_behind_what_hides_it_at_the_joint():
    before, after = followed()
    points, visible = join_tracks([before, after], 8)
    left = points[0, :, 0] < -0.05
    left &= points[0].isfinite().all(dim=-1)
    assert left.sum() > 50
    assert visible[:3, left].all() and not visible[3:5, left].any() and visible[5:, left].all()
    torch.testing.assert_close(points[:, left], points[:1, left].expand(8, -1, -1), atol=1e-5, rtol=0)


def test_a_track_that_moves_is_found_where_it_went():
    before, after = followed(drift=0.02)
    both = torch.isin(before.ids, after.ids)
    assert both.float().mean() > 0.8
    points, _ = join_tracks([before, after], 8)
    way = points[7, before.ids[both]] - points[0, before.ids[both]]
    assert (way[:, 0] - 0.14).abs().max() < 0.06 and way[:, 1:].abs().max() < 0.06  # to a pixel's width


def test_what_is_seen_no_more_ends_and_new_tracks_begin():
    before = follow(chunk(FIRST), FIRST)
    turned = chunk(SECOND)
    turned.transform = rigid(torch.diag(torch.tensor([-1.0, 1.0, -1.0])), torch.zeros(3))  # looks the other way
    turned.scene.cameras = turned.scene.cameras.transformed(turned.transform)
    after = follow(turned, SECOND, before, Similarity.identity())
    assert not torch.isin(after.ids, before.ids).any() and len(after.ids) > 100
    assert int(after.ids.min()) >= int(before.next_id)


def test_tracks_are_stored_and_read_back(tmp_path):
    before, _ = followed()
    before.save(tmp_path / "tracks.safetensors")
    again = ChunkTracks.load(tmp_path / "tracks.safetensors")
    assert all(torch.equal(x, getattr(again, name)) for name, x in vars(before).items())
