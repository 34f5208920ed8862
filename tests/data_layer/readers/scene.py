"""Scenes whose images, cameras, depth and tracks are known, for tests that write them as a dataset would lie on disk.

A test writes a `make_scene(...)` in the dataset's own layout, reads it back and compares with `assert_reads_back`.
`broken(scene, kind)` gives the scene as a wrong reader would see it; written the same way, it is a broken download.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from movies.cameras import Cameras
from movies.clip import Tracks, Views
from movies.data.synthetic import SyntheticSequence
from movies.data.synthetic_render import visible
from movies.geometry import pixel_rays, project, rigid_inverse, rotation_angle

SEED = 22  # open ground, sky in a fifth of the pixels, moving solids, a camera that turns by 14 degrees
METRES = 8.0  # of one unit of a synthetic world
BREAKS = ("inverted", "opengl", "centimetres", "hundredths", "ray_distance", "off_by_one")


@dataclass(frozen=True)
class Scene:
    """F frames in the canonical form, in metres; images are whole 8-bit steps."""

    views: Views  # F
    tracks: Tracks  # F, P points

    @property
    def c2w(self) -> np.ndarray:  # [F, 4, 4] float64
        return self.views.cameras.c2w.double().numpy()

    @property
    def w2c(self) -> np.ndarray:  # [F, 4, 4] float64
        return np.linalg.inv(self.c2w)

    @property
    def depth(self) -> np.ndarray:  # [F, H, W] float32, 0 in the sky
        return self.views.depth.numpy()

    @property
    def intrinsics(self) -> np.ndarray:  # [F, 4] float64, pixels, centres at +0.5
        height, width = self.views.size
        return self.views.cameras.fxfycxcy.double().numpy() * [width, height, width, height]

    def pixels(self, frame: int) -> np.ndarray:  # [H, W, 3] uint8
        return (self.views.images[frame] * 255).round().byte().permute(1, 2, 0).numpy()

    def __len__(self) -> int:
        return len(self.views)


def make_scene(
    fxfycxcy=(0.8, 0.8 * 32 / 24, 0.5, 0.5),
    size: tuple[int, int] = (24, 32),
    num_frames: int = 6,
    num_tracks: int = 40,
    is_static: bool = False,
    seed: int = SEED,
    metres: float = METRES,
) -> Scene:
    """A synthetic world seen by cameras with these normalised intrinsics, one for all frames or one for each."""
    sequence = SyntheticSequence(seed, size, num_frames, is_static=is_static, difficulty=1.0)
    frames = list(range(num_frames))
    times = sequence.frame_times(frames)
    intrinsics = torch.tensor(fxfycxcy, dtype=torch.float32).expand(num_frames, 4).contiguous()
    cameras = Cameras(sequence.cameras(times).c2w, intrinsics)
    rendered = sequence.render_view(cameras, times, *size)
    images = (rendered.images * 255).round() / 255
    tracks = _tracks(sequence, frames, times, cameras, num_tracks)
    depth = rendered.depth * metres
    return Scene(
        Views(images, cameras.rescaled(metres), times, depth, rendered.depth_mask),
        Tracks(tracks.points * metres, tracks.visible),
    )


def _tracks(sequence: SyntheticSequence, frames: list[int], times, cameras: Cameras, count: int) -> Tracks:
    """Points of pixels of the hand-held camera, spread over all its frames; none in the sky."""
    moving = sequence.dense_motion(frames, times)  # [T, V, H, W, 3]
    known = moving.isfinite().all(dim=-1).all(dim=0).flatten().nonzero()[:, 0]
    chosen = known[torch.linspace(0, len(known) - 1, count).long()]
    points = moving.flatten(1, 3)[:, chosen]
    return Tracks(points, visible(sequence.world, torch.zeros_like(times).long(), cameras, times, points))


def broken(scene: Scene, kind: str) -> Scene:
    """The scene with its cameras or depth wrong in one of the ways of BREAKS."""
    views = scene.views
    c2w = views.cameras.c2w
    if kind == "inverted":
        return _with_c2w(scene, rigid_inverse(c2w))
    if kind == "opengl":
        return _with_c2w(scene, c2w @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])))
    if kind == "off_by_one":
        return _with_c2w(scene, c2w.roll(1, dims=0))
    if kind == "centimetres":
        return replace(scene, views=replace(views, depth=views.depth * 100))
    if kind == "hundredths":  # metres read as centimetres; fits formats of 16 bits, which centimetres would overflow
        return replace(scene, views=replace(views, depth=views.depth / 100))
    if kind == "ray_distance":
        rays = pixel_rays(views.cameras.fxfycxcy, *views.size).norm(dim=-1)
        return replace(scene, views=replace(views, depth=views.depth * rays))
    raise AssertionError(f"no such break: {kind}")


def broken_tracks(scene: Scene, kind: str) -> Scene:
    """The scene with its tracks, not its depth, of a wrong unit or at the ray distance read as z-depth."""
    tracks, cameras = scene.tracks, scene.views.cameras
    factors = {"centimetres": 100.0, "hundredths": 0.01}
    if kind in factors:
        return replace(scene, tracks=Tracks(tracks.points * factors[kind], tracks.visible))
    if kind == "ray_distance":
        offsets = tracks.points - cameras.centers[:, None]
        _, z = project(tracks.points, cameras.fxfycxcy, cameras.c2w)
        points = cameras.centers[:, None] + offsets * (offsets.norm(dim=-1) / z)[..., None]
        return replace(scene, tracks=Tracks(points, tracks.visible))
    return broken(scene, kind)


def _with_c2w(scene: Scene, c2w: torch.Tensor) -> Scene:
    return replace(scene, views=replace(scene.views, cameras=Cameras(c2w, scene.views.cameras.fxfycxcy)))


def assert_reads_back(
    sequence,
    scene: Scene,
    indices=(0, 2, 5),
    depth_rtol: float = 1e-6,
    depth_atol: float = 0.0,
    image_atol: float = 1e-6,
    has_depth: bool = True,
    has_tracks: bool = False,
) -> None:
    """The sequence gives the scene: pose to 1e-4 degrees and 1e-5 m, intrinsics to 0.01 px, the rest as said.

    A pose in float32 has no more than 1e-6 of its size, so 1e-5 m holds within some ten metres of the origin.
    """
    views, tracks = sequence.read(list(indices))
    wanted = scene.views.select(list(indices))
    assert sequence.num_frames == len(scene)
    assert_same_cameras(views.cameras, wanted.cameras, views.size)
    torch.testing.assert_close(views.times, wanted.times, rtol=0, atol=1e-6)
    torch.testing.assert_close(views.images, wanted.images, rtol=0, atol=image_atol)
    if has_depth:
        assert torch.equal(views.depth_mask, wanted.depth_mask)
        torch.testing.assert_close(views.depth, wanted.depth * wanted.depth_mask, rtol=depth_rtol, atol=depth_atol)
    else:
        assert not views.depth_mask.any()
    expected = scene.tracks.select(list(indices)) if has_tracks else Tracks.empty(len(views))
    assert torch.equal(tracks.visible, expected.visible)
    torch.testing.assert_close(tracks.points, expected.points, rtol=0, atol=1e-4, equal_nan=True)


def assert_same_cameras(cameras: Cameras, wanted: Cameras, size: tuple[int, int]) -> None:
    height, width = size
    assert rotation_angle(cameras.c2w[:, :3, :3].double(), wanted.c2w[:, :3, :3].double()).max() < 1e-4
    assert (cameras.centers - wanted.centers).norm(dim=-1).max() < 1e-5
    pixels = torch.tensor([width, height, width, height])
    assert ((cameras.fxfycxcy - wanted.fxfycxcy) * pixels).abs().max() < 0.01
