"""Pictures larger than the input views: no gaps between the splats."""

import pytest
import torch

from movies.cameras import Cameras
from movies.gaussians import Gaussians
from movies.geometry import pixel_grid, unproject
from movies.novel_views import render_video
from movies.rendering import render
from movies.scene import Scene4D
from movies.video import read_frames
from movies.widening import BLUR, widened

SIZE, DEPTH, FOCAL = 32, 3.0, 0.9


@pytest.fixture(scope="module")
def scene() -> Scene4D:
    """A wall as a network predicts it: a splat for every pixel of an input view, smaller than the pixel."""
    cameras = Cameras(torch.eye(4)[None], torch.tensor([[FOCAL, FOCAL, 0.5, 0.5]]))
    depth = torch.full((SIZE, SIZE), DEPTH)
    means = unproject(depth, cameras.fxfycxcy[0], cameras.c2w[0]).flatten(0, 1)  # [N, 3]
    colors = torch.cat([pixel_grid(SIZE, SIZE).flatten(0, 1), torch.full((len(means), 1), 0.5)], dim=-1)
    quats, scales = torch.tensor([1.0, 0, 0, 0]).repeat(len(means), 1), torch.full_like(means, 0.01)
    wall = Gaussians(means, quats, scales, torch.full((len(means),), 0.95), colors)
    return Scene4D(wall, Gaussians.empty(1), torch.zeros(1), cameras, torch.zeros(1), (SIZE, SIZE))


def test_a_larger_picture_averaged_back_is_the_small_one(scene):
    camera = scene.cameras[0]
    small = render(scene.at(0.0), camera, SIZE, SIZE).images

    def error(shown: Scene4D) -> float:
        large = render(shown.at(0.0), camera, 4 * SIZE, 4 * SIZE).images
        return float((torch.nn.functional.avg_pool2d(large[None], 4)[0] - small).square().mean())

    assert error(widened(scene, 4.0)) < 1e-3  # 30 dB
    assert error(scene) > 1e-2  # the gaps


def test_what_is_added_is_what_the_renderer_adds_at_the_input_size(scene):
    pixel = DEPTH / (FOCAL * SIZE)
    added = widened(scene).static.scales ** 2 - 0.01**2
    torch.testing.assert_close(added, torch.full((SIZE**2, 3), BLUR * pixel**2))
    assert torch.equal(widened(scene, 1.0).static.scales, scene.static.scales)


def test_films_larger_than_the_clip_have_no_gaps(scene, tmp_path):
    scene.save(tmp_path / "scene.safetensors")
    render_video(tmp_path / "scene.safetensors", tmp_path / "a.mp4", "hold", frames=1, size=4 * SIZE)
    middle = read_frames(tmp_path / "a.mp4", 1).images[0, 2, 32:96, 32:96]  # blue, the same everywhere
    assert middle.std() < 0.03 and middle.mean() == pytest.approx(0.48, abs=0.05)
