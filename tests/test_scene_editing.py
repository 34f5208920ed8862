"""Smaller scenes: pruned within the loss that is reported, cropped exactly, and as commands on files."""

import re
from dataclasses import replace

import pytest
import torch

from movies import cli
from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.geometry import rigid
from movies.metrics import psnr
from movies.novel_views import psnr_of_views, render_path
from movies.rendering import render
from movies.scene import Scene4D
from movies.scene_editing import (
    crop_box,
    crop_file,
    crop_sphere,
    prune,
    prune_transparent,
    seen_weights,
    simplify,
    simplify_file,
)
from movies.video import write_video

SIZE = (24, 32)
VIEWS = 3


def build_scene(generator) -> Scene4D:
    """A wall that every frame saw for itself, a ball of splats passing before it, and splats that nobody sees."""

    def sheet(x, y, depth: float) -> Gaussians:
        means = torch.stack([x, y, torch.full_like(x, depth)], dim=-1).reshape(-1, 3)
        num = len(means)
        colors = 0.5 + 0.4 * torch.stack([torch.sin(9 * means[:, 0]), torch.cos(7 * means[:, 1]), means[:, 1]], dim=-1)
        quats = torch.tensor([1.0, 0, 0, 0]).repeat(num, 1)
        return Gaussians(means, quats, torch.full((num, 3), 0.03), torch.full((num,), 0.7), colors.clamp(0, 1))

    y, x = torch.meshgrid(torch.linspace(-0.75, 0.75, 26), torch.linspace(-1.2, 1.2, 40), indexing="ij")
    wall = sheet(x, y, 2.0)
    walls = [replace(wall, means=wall.means + 0.005 * torch.randn(len(x.flatten()), 3, generator=generator))]
    walls += [replace(wall, means=wall.means + 0.005 * torch.randn(len(x.flatten()), 3, generator=generator))]
    behind = sheet(x[:5] - 9, y[:5], -3.0)
    ball = sheet(x[8:16, 8:16] * 0.3, y[8:16, 8:16] * 0.3, 1.2)
    shift = torch.tensor([0.3, 0.0, 0.0])
    moving = Gaussians.stack([replace(ball, means=ball.means + t * shift) for t in (-1, 0, 1)])
    cameras = Cameras(
        rigid(torch.eye(3).expand(VIEWS, 3, 3), torch.tensor([[-0.1, 0, 0], [0, 0, 0], [0.1, 0, 0]])),
        torch.tensor([0.9, 1.2, 0.5, 0.5]).repeat(VIEWS, 1),
    )
    times = torch.linspace(0, 1, 3)
    return Scene4D(Gaussians.cat([*walls, behind]), moving, times, cameras, times, SIZE)


def views_of(scene: Scene4D) -> torch.Tensor:  # [V, 3, H, W]
    return torch.stack(list(render_path(scene, scene.cameras, scene.view_times, SIZE)))


@pytest.fixture
def scene(generator) -> Scene4D:
    return build_scene(generator)


@pytest.fixture
def images(scene, generator) -> torch.Tensor:
    """What a clip of the scene may look like: its views with noise, so that their PSNR is not infinite."""
    views = views_of(scene)
    return (views + 0.05 * torch.randn(views.shape, generator=generator)).clamp(0, 1)


def test_weights_are_the_pixels_filled(scene):
    """Together they are the covered pixels. What stands behind the cameras has none."""
    weights = seen_weights(scene, scene.cameras, scene.view_times, SIZE)
    views = zip(scene.cameras, scene.view_times, strict=True)
    covered = sum(render(scene.at(time), camera, *SIZE).alphas.sum() for camera, time in views)
    assert float(weights.sum()) == pytest.approx(float(covered), rel=1e-4)
    assert (weights[2 * 1040 : 2 * 1040 + 200] == 0).all() and (weights[-64:] > 0).all()


def test_leaving_out_what_nobody_sees_changes_no_picture(scene):
    kept = scene.select(seen_weights(scene, scene.cameras, scene.view_times, SIZE) > 0)
    assert len(kept) <= len(scene) - 200
    assert torch.equal(views_of(kept), views_of(scene))


def test_prune_keeps_the_heaviest_in_their_order(scene):
    weights = torch.zeros(len(scene))
    weights[[3, 7, len(scene) - 1]] = torch.tensor([1.0, 3.0, 2.0])
    pruned = prune(scene, 2, weights)
    assert torch.equal(pruned.static.means, scene.static.means[[7]])
    assert torch.equal(pruned.moving.means, scene.moving.means[:, [-1]])
    assert len(prune(scene, 10**9, weights)) == len(scene)


def test_prune_transparent_asks_every_time(scene):
    opacities = torch.zeros(3, 64)
    opacities[1, 5] = 0.5
    faded = replace(scene, moving=replace(scene.moving, opacities=opacities))
    assert prune_transparent(faded, 0.1).moving.means.shape == (3, 1, 3)
    assert len(prune_transparent(faded, 0.1).static) == len(scene.static)


@pytest.mark.parametrize(("max_loss", "share"), [(0.1, 0.7), (0.5, 0.6)])
def test_simplify_stays_within_its_loss_and_reports_it(scene, images, max_loss, share):
    smaller, stages = simplify(scene, images, max_loss)
    before, after = (float(psnr_of_views(s, images, s.cameras, s.view_times).mean()) for s in (scene, smaller))
    assert before - after <= max_loss
    assert stages[-1].loss == pytest.approx(before - after, abs=1e-4)
    assert stages[-1].input_psnr == pytest.approx(after, abs=1e-4)
    assert len(smaller) < share * len(scene) and smaller.num_bytes < share * scene.num_bytes
    assert [s.name for s in stages] == ["as it was", "unseen left out", "merged", "pruned"]
    counts = [s.num_static + s.num_moving for s in stages]
    assert counts == sorted(counts, reverse=True) and counts[0] == len(scene) and counts[-1] == len(smaller)
    assert stages[-1].num_bytes == smaller.num_bytes and stages[0].novel_loss == 0
    assert 0 < stages[-1].novel_loss <= max_loss


def test_simplify_to_a_budget(scene, images):
    smaller, stages = simplify(scene, images, budget=300)
    assert len(smaller) == 300
    assert float(psnr(views_of(smaller), images).mean()) == pytest.approx(stages[-1].input_psnr, abs=1e-4)


def test_simplify_refuses_nonsense(scene, images):
    for options in ({"max_loss": -1.0}, {"max_loss": float("nan")}, {"budget": 0}):
        with pytest.raises(InputError, match="the loss must be at least 0 and the budget at least 1"):
            simplify(scene, images, **options)


def test_bytes_are_those_of_the_file(scene, tmp_path):
    written = scene.save(tmp_path / "a.safetensors")
    assert 0 < written - scene.num_bytes < 3000


def test_crop_to_a_box_is_exact(scene):
    low, high = torch.tensor([-0.5, -0.5, 1.0]), torch.tensor([0.5, 0.5, 2.0])
    cropped = crop_box(scene, low, high)

    def inside(means):
        return ((means >= low) & (means <= high)).all(dim=-1)

    assert torch.equal(cropped.static.means, scene.static.means[inside(scene.static.means)])
    kept = inside(scene.moving.means).any(dim=0)
    assert torch.equal(cropped.moving.means, scene.moving.means[:, kept])
    assert 0 < len(cropped.static) < len(scene.static) and inside(cropped.static.means).all()


def test_crop_in_the_axes_of_a_camera(scene):
    """A sphere about a point of the first camera's axes is the same sphere about that point in the world."""
    ahead = torch.tensor([0.1, 0.0, 2.0])
    cropped = crop_sphere(scene, ahead, 0.4, scene.cameras.c2w[0])
    world = crop_sphere(scene, ahead + scene.cameras.centers[0], 0.4)
    assert torch.equal(cropped.static.means, world.static.means)
    assert (cropped.static.means - ahead - scene.cameras.centers[0]).norm(dim=-1).max() <= 0.4
    assert 0 < len(cropped.static) < len(scene.static)


def test_crop_refuses_what_is_empty(scene):
    with pytest.raises(InputError, match="the box is empty"):
        crop_box(scene, torch.ones(3), torch.zeros(3))
    with pytest.raises(InputError, match="the radius must be above 0, got 0"):
        crop_sphere(scene, torch.zeros(3), 0.0)


@pytest.fixture
def saved(scene, images, tmp_path):
    """A folder as `movies reconstruct` leaves it."""
    scene.save(tmp_path / "scene.safetensors")
    write_video(tmp_path / "input.mp4", images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3), fps=4)
    return tmp_path / "scene.safetensors"


def test_the_command_simplifies_and_prints_a_table(saved, capsys):
    out = saved.parent / "small.safetensors"
    assert cli.main(["scene", "simplify", str(saved), "--max-loss", "0.3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    before, after = Scene4D.load(saved), Scene4D.load(out)
    assert f"{len(before) / len(after):.1f} x fewer Gaussians" in printed
    assert re.search(rf"as it was +{len(before.static)} +64 ", printed)
    assert float(re.search(r"^pruned.*? dB +(-?[\d.]+) dB", printed, re.MULTILINE)[1]) <= 0.3


def test_the_command_crops(saved, capsys):
    out = saved.parent / "near.safetensors"
    assert cli.main(["scene", "crop", str(saved), "--view", "0", "--box=-9,-9,0,9,9,1.5", "--out", str(out)]) == 0
    assert len(Scene4D.load(out).static) == 0 and len(Scene4D.load(out).moving) == 64
    assert "64 of 2344 Gaussians" in capsys.readouterr().out
    assert cli.main(["scene", "crop", str(saved), "--sphere", "0,0,2,0.5", "--out", str(out)]) == 0
    assert (Scene4D.load(out).static.means - torch.tensor([0, 0, 2.0])).norm(dim=-1).max() <= 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give a box or a sphere, one of them"),
        ({"box": "0,0,0,1,1,1", "sphere": "0,0,0,1"}, "give a box or a sphere, one of them"),
        ({"box": "0,0,0,1,1"}, "box '0,0,0,1,1': 6 numbers with commas between are needed"),
        ({"sphere": "0,0,x,1"}, "sphere '0,0,x,1': 4 numbers"),
        ({"sphere": "0,0,0,1", "view": 3}, "no view 3; the scene has 3, counted from 0"),
        ({"sphere": "50,0,0,1"}, r"no Gaussian lies there; the scene's centres reach from \(-10.2, "),
        ({"sphere": "0,0,2,1", "out": "."}, "a folder; give the file to write"),
    ],
)
def test_what_cannot_be_cropped(saved, options, message):
    before = sorted(saved.parent.iterdir())
    given = {"out": "a.safetensors", **options}
    given["out"] = saved.parent / given["out"]
    with pytest.raises(InputError, match=message):
        crop_file(saved, **given)
    assert sorted(saved.parent.iterdir()) == before


def test_what_cannot_be_simplified(saved, scene):
    out = saved.parent / "small.safetensors"
    with pytest.raises(InputError, match="a folder; give the file to write"):
        simplify_file(saved, saved.parent)
    (saved.parent / "input.mp4").unlink()
    with pytest.raises(InputError, match=r"no input.mp4 lies beside it .* give the clip with --input"):
        simplify_file(saved, out)
    replace(scene, image_size=(0, 0)).save(saved)
    with pytest.raises(InputError, match="does not know the size of its input views"):
        simplify_file(saved, out, clip="clip.mp4")
    assert not out.exists()
