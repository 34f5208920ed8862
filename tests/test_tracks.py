"""Queries as users write them, the window that the network sees of a clip, and the file of tracks."""

import numpy as np
import pytest
import torch

from movies.cameras import Cameras
from movies.clip import Clip
from movies.drawing import draw_tracks
from movies.errors import InputError
from movies.geometry import quaternion_to_matrix, rigid
from movies.network_world import fit_resolution
from movies.tracks import PointTracks, Queries, Window
from movies.video import write_video

# frames of 200x100 of which the network sees the middle 120x80
WINDOW = Window(height=100, width=200, top=0.1, left=0.2, rows=0.8, columns=0.6)
OLD_KEYS = {"points", "positions", "visible", "times", "query_views", "query_positions"}
TAPVID_KEYS = {"tracks_XYZ", "visibility", "queries_xyt", "fx_fy_cx_cy", "extrinsics_w2c"}


def two_times() -> PointTracks:
    """One point that moves 0.5 to the right; the second camera stands 1 behind the first."""
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[1, 2, 3] = -1.0
    return PointTracks(
        points=torch.tensor([[[0.0, 0.0, 2.0]], [[0.5, 0.0, 2.0]]]),
        positions=torch.tensor([[[0.5, 0.5]], [[0.5 + 0.5 / 3, 0.5]]]),
        visible=torch.tensor([[True], [False]]),
        confidence=torch.full((2, 1), 0.5),
        times=torch.tensor([0.0, 1.0]),
        cameras=Cameras(c2w, torch.tensor([1.0, 1.5, 0.5, 0.5]).repeat(2, 1)),
        queries=Queries(torch.tensor([0]), torch.tensor([[0.5, 0.5]])),
    )


# --- the window


def test_pixels_of_the_clip_and_positions_of_a_view():
    # the window's corner is at pixel (40, 10); its middle at (100, 50)
    corner_and_middle = torch.tensor([[40.0, 10.0], [100.0, 50.0]])
    assert torch.allclose(WINDOW.positions(corner_and_middle), torch.tensor([[0.0, 0.0], [0.5, 0.5]]), atol=1e-6)
    assert torch.allclose(WINDOW.pixels(torch.tensor([[0.0, 0.0], [0.5, 0.5]])), corner_and_middle, atol=1e-4)
    # a focal length of 1 in widths of the window is 120 pixels, 1.5 in heights as well
    pixels = WINDOW.intrinsics(torch.tensor([1.0, 1.5, 0.5, 0.5]))
    assert torch.allclose(pixels, torch.tensor([120.0, 120.0, 100.0, 50.0]), atol=1e-4)


def test_the_window_is_found_from_what_fitting_did(tmp_path):
    write_video(tmp_path / "a.mp4", torch.rand(2, 3, 40, 64), fps=4)
    clip = Clip.load(tmp_path / "a.mp4")
    fitted = fit_resolution(clip, 56, 14)  # to 28x56 from 35x56: 7 of 35 rows are cut off, 3 of them above
    window = Window.between(clip.views.size, clip.cameras, fitted.cameras)
    assert (window.height, window.width) == (40, 64)
    assert (window.top, window.left) == (pytest.approx(3 / 35, abs=1e-6), pytest.approx(0, abs=1e-6))
    assert (window.rows, window.columns) == (pytest.approx(28 / 35, abs=1e-6), pytest.approx(1, abs=1e-6))


# --- queries


def test_points_as_they_are_written():
    queries = Queries.parse(("100,50,0", " 40.5, 10 ,2"), WINDOW, 3)
    assert queries.views.tolist() == [0, 2]
    assert torch.allclose(queries.positions, torch.tensor([[0.5, 0.5], [0.5 / 120, 0.0]]), atol=1e-6)
    assert len(Queries.parse((), WINDOW, 3)) == 0


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("100,50", r"point '100,50': give x,y,frame, such as"),
        ("a,50,0", "give x,y,frame"),
        ("1e3,nan,0", "give x,y,frame"),
        ("100,50,3", "no frame 3; frames read are 0 to 2"),
        ("100,50,-1", "no frame -1"),
        ("100,50,0.5", "no frame 0.5"),
        ("200,50,0", "outside the frame of 200x100 pixels"),
        ("100,-0.1,0", "outside the frame of 200x100 pixels"),
        ("10,50,0", r"margin .* x from 40.0 to 160.0 and y from 10.0 to 90.0"),
    ],
)
def test_points_that_are_not_there(point, message):
    with pytest.raises(InputError, match=message):
        Queries.parse(("100,50,0", point), WINDOW, 3)


def test_a_grid_of_any_frames():
    queries = Queries.grid(4, 6, 2, torch.tensor([1, 4]))
    assert queries.views.tolist() == [1] * 6 + [4] * 6
    # every second pixel from the second on: columns 1, 3, 5 of 6 and rows 1, 3 of 4
    assert torch.allclose(queries.positions[:6, 0], torch.tensor([1.5, 3.5, 5.5, 1.5, 3.5, 5.5]) / 6)
    assert torch.allclose(queries.positions[:6, 1], torch.tensor([1.5, 1.5, 1.5, 3.5, 3.5, 3.5]) / 4)


# --- the file


def test_the_file_holds_world_camera_and_pixels(tmp_path):
    two_times().save(tmp_path / "tracks.npz", WINDOW)
    with np.load(tmp_path / "tracks.npz") as file:
        stored = dict(file)
    assert {*stored} >= OLD_KEYS | TAPVID_KEYS
    assert np.array_equal(stored["points"], two_times().points) and stored["visible"].dtype == bool
    assert stored["tracks_XYZ"].tolist() == [[[0.0, 0.0, 2.0]], [[0.5, 0.0, 3.0]]]  # the second camera is 1 behind
    assert np.allclose(stored["queries_xyt"], [[100, 50, 0]])
    assert np.allclose(stored["tracks_xy"], [[[100, 50]], [[120, 50]]], atol=1e-3)
    assert np.allclose(stored["fx_fy_cx_cy"], [120, 120, 100, 50], atol=1e-3)
    assert stored["image_size"].tolist() == [100, 200]


def test_the_tapvid_keys_alone_give_the_pixels(tmp_path):
    """What a reader of TAPVid-3D does: project camera points with the intrinsics, and find the tracks' pixels."""
    two_times().save(tmp_path / "tracks.npz", WINDOW)
    with np.load(tmp_path / "tracks.npz") as stored:
        points, (fx, fy, cx, cy) = stored["tracks_XYZ"], stored["fx_fy_cx_cy"]
        u, v = fx * points[..., 0] / points[..., 2] + cx, fy * points[..., 1] / points[..., 2] + cy
        assert np.allclose(np.stack([u, v], axis=-1), stored["tracks_xy"], atol=1e-3)
        world = np.linalg.inv(stored["extrinsics_w2c"])
        again = np.einsum("tij,tpj->tpi", world[:, :3, :3], points) + world[:, None, :3, 3]
        assert np.allclose(again, stored["points"], atol=1e-6)


def test_camera_frames_of_turned_cameras(generator):
    tracks = two_times()
    turn = rigid(quaternion_to_matrix(torch.randn(2, 4, generator=generator)), torch.randn(2, 3, generator=generator))
    moved = PointTracks(
        points=(turn[:, :3, :3] @ tracks.points.mT).mT + turn[:, None, :3, 3],
        positions=tracks.positions,
        visible=tracks.visible,
        confidence=tracks.confidence,
        times=tracks.times,
        cameras=tracks.cameras.transformed(turn),
        queries=tracks.queries,
    )
    assert torch.allclose(moved.camera_points(), tracks.camera_points(), atol=1e-5)


# --- pictures


def test_tracks_are_drawn_where_they_are_seen():
    black = torch.zeros(2, 3, 20, 40)
    first, second = draw_tracks(black, two_times())
    assert first[:, 10, 20].sum() > 0.5 and first[:, :, 30:].sum() == 0  # a dot at the middle
    assert second.sum() == 0  # the point is hidden there, so nothing is drawn
    seen = two_times()
    seen.visible[1] = True
    _, second = draw_tracks(black, seen)
    x = int((0.5 + 0.5 / 3) * 40)
    assert second[:, 10, x].sum() > 0.5 and second[:, 10, 20:x].sum(dim=0).min() > 0.3  # the dot, and the way to it
    assert black.sum() == 0
