"""Scene4D: between its times, in other worlds, and through its file."""

import os

import pytest
import torch
from safetensors.torch import save_file

from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.geometry import quaternion_to_matrix, rigid
from movies.scene import Scene4D, check_times

ATTRIBUTES = ("means", "quats", "scales", "opacities", "colors")


def random_gaussians(generator, *shape: int) -> Gaussians:
    def draw(*size):
        return torch.rand(*shape, *size, generator=generator)

    quats = torch.nn.functional.normalize(torch.randn(*shape, 4, generator=generator), dim=-1)
    return Gaussians(4 * draw(3) - 2, quats, 0.01 + 0.1 * draw(3), draw(), draw(3))


def random_scene(generator, times=(0.0, 0.5, 1.0), static=5, moving=4) -> Scene4D:
    views = Cameras(torch.eye(4).repeat(2, 1, 1), torch.tensor([1.0, 1.2, 0.5, 0.5]).repeat(2, 1))
    return Scene4D(
        random_gaussians(generator, static),
        random_gaussians(generator, len(times), moving),
        torch.tensor(times),
        views,
        torch.tensor([0.0, 1.0]),
        (24, 32),
    )


def assert_equal(a: Gaussians, b: Gaussians) -> None:
    for name in ATTRIBUTES:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_at_stored_times_gives_what_is_stored(generator):
    scene = random_scene(generator)
    for k, time in enumerate((0.0, 0.5, 1.0)):
        now = scene.at(time)
        assert len(now) == len(scene) == 9
        assert torch.equal(now.means[:5], scene.static.means)
        for name in ATTRIBUTES:
            assert torch.equal(getattr(now, name)[5:], getattr(scene.moving[k], name)), name


def test_between_times_is_linear_and_outside_stands_still(generator):
    scene = random_scene(generator)
    between = scene.at(0.125)
    expected = 0.75 * scene.moving.means[0] + 0.25 * scene.moving.means[1]
    assert torch.allclose(between.means[5:], expected, atol=1e-6)
    assert torch.allclose(between.quats.norm(dim=-1), torch.ones(9), atol=1e-6)
    assert_equal(scene.at(-3.0), scene.at(0.0))
    assert_equal(scene.at(7), scene.at(1.0))


def test_times_in_one_call_equal_single_ones_and_order_does_not_matter(generator):
    scene = random_scene(generator)
    times = torch.tensor([0.9, 0.1, 0.5])
    together = scene.at(times)
    assert together.shape == (3,)
    for k, time in enumerate(times):
        assert_equal(together[k], scene.at(time))
    order = torch.tensor([2, 0, 1])
    shuffled = Scene4D(scene.static, scene.moving[order], scene.times[order], scene.cameras, scene.view_times)
    assert_equal(shuffled.at(times), together)


def test_one_time_and_nothing_moving(generator):
    scene = random_scene(generator, times=(0.3,), moving=0)
    assert_equal(scene.at(0.9), scene.static)


def test_wrong_shapes(generator):
    scene = random_scene(generator)
    with pytest.raises(InputError, match=r"`moving.means` must have shape \[2, \*, 3\]"):
        Scene4D(scene.static, scene.moving, scene.times[:2], scene.cameras, scene.view_times)
    with pytest.raises(InputError, match="at least one time"):
        Scene4D(scene.static, scene.moving[:0], scene.times[:0], scene.cameras, scene.view_times)
    with pytest.raises(InputError, match="`time` must have shape"):
        scene.at(torch.zeros(2, 2))


def test_placed_moves_gaussians_and_cameras_together(generator):
    scene = random_scene(generator)
    turn = quaternion_to_matrix(torch.randn(4, generator=generator))
    transform = rigid(turn, torch.tensor([1.0, 2.0, 3.0]))
    placed = scene.placed(2.0, transform)
    assert torch.allclose(placed.static.means, 2 * scene.static.means @ turn.T + transform[:3, 3], atol=1e-5)
    assert torch.allclose(placed.moving.scales, 2 * scene.moving.scales)
    # a Gaussian's axes turn with the world
    axes = quaternion_to_matrix(scene.static.quats)
    assert torch.allclose(quaternion_to_matrix(placed.static.quats), turn @ axes, atol=1e-5)
    assert torch.allclose(placed.cameras.c2w[0], transform, atol=1e-6)


def test_round_trip(tmp_path, generator):
    scene = random_scene(generator)
    size = scene.save(tmp_path / "a.safetensors")
    loaded = Scene4D.load(tmp_path / "a.safetensors")
    assert size == os.path.getsize(tmp_path / "a.safetensors")
    for part in ("static", "moving"):
        stored, given = getattr(loaded, part), getattr(scene, part)
        assert torch.equal(stored.means, given.means)
        for name in ATTRIBUTES[1:]:
            # float16 keeps 11 bits
            assert torch.allclose(getattr(stored, name), getattr(given, name), rtol=2**-11, atol=1e-7), name
    assert torch.equal(loaded.times, scene.times) and torch.equal(loaded.view_times, scene.view_times)
    assert torch.equal(loaded.cameras.c2w, scene.cameras.c2w) and loaded.image_size == (24, 32)

    loaded.save(tmp_path / "b.safetensors")
    again = Scene4D.load(tmp_path / "b.safetensors")
    assert_equal(again.static, loaded.static)
    assert_equal(again.moving, loaded.moving)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_scales_of_any_world_survive(tmp_path, generator, factor):
    scene = random_scene(generator).placed(factor, torch.eye(4))
    scene.save(tmp_path / "a.safetensors")
    loaded = Scene4D.load(tmp_path / "a.safetensors")
    assert torch.allclose(loaded.static.scales, scene.static.scales, rtol=2**-10, atol=0)


def test_thirteen_times_are_not_thirteen_scenes_large(tmp_path, generator):
    thirteen = tuple(i / 12 for i in range(13))
    still = random_scene(generator, times=(0.0,), static=1000, moving=0).save(tmp_path / "still.safetensors")
    scene = random_scene(generator, times=thirteen, static=900, moving=100)
    assert scene.save(tmp_path / "moving.safetensors") < 2.5 * still
    # moving in means only: the other attributes are stored once
    same = Gaussians(scene.moving.means, *(getattr(scene.moving[:1], n).expand(13, -1, *[-1] * d) for n, d in REST))
    rigid_scene = Scene4D(scene.static, same, scene.times, scene.cameras, scene.view_times)
    assert rigid_scene.save(tmp_path / "rigid.safetensors") < 1.6 * still
    loaded = Scene4D.load(tmp_path / "rigid.safetensors")
    assert torch.allclose(loaded.at(0.5).colors, rigid_scene.at(0.5).colors, atol=1e-3)


REST = (("quats", 1), ("scales", 1), ("opacities", 0), ("colors", 1))


def test_files_that_are_not_scenes(tmp_path, generator):
    path = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="no such scene file"):
        Scene4D.load(path)
    path.write_text("hello")
    with pytest.raises(InputError, match="not a scene, or cut short"):
        Scene4D.load(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="but not a scene"):
        Scene4D.load(path)
    random_scene(generator).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cut short"):
        Scene4D.load(path)
    save_file({"times": torch.zeros(1)}, path, {"format": "movies-scene", "version": "2"})
    with pytest.raises(InputError, match="newer movies"):
        Scene4D.load(path)
    save_file({"times": torch.zeros(1)}, path, {"format": "movies-scene", "version": "1", "scale_unit": "1"})
    with pytest.raises(InputError, match=r"lacks cameras\.c2w"):
        Scene4D.load(path)


def test_a_full_disk_leaves_nothing(tmp_path, generator, monkeypatch):
    import safetensors.torch
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        random_scene(generator).save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("times", [(0.0, 0.5, 1.0), (0.1, 0.15, 0.9), (0.0, 1.0)])
def test_halfway_means_unit_rotations_and_no_jumps(generator, times):
    scene = random_scene(generator, times=times)
    stored = scene.times
    halfway = scene.at((stored[1:] + stored[:-1]) / 2)
    assert torch.allclose(halfway.means[:, 5:], (scene.moving.means[1:] + scene.moving.means[:-1]) / 2, atol=1e-6)
    anywhere = scene.at(torch.rand(50, generator=generator))
    assert torch.allclose(anywhere.quats.norm(dim=-1), torch.ones(50, 9), atol=1e-6)
    for side in (-1e-5, 1e-5):
        near, there = scene.at(stored + side), scene.at(stored)
        assert torch.allclose(near.means, there.means, atol=1e-2)
        turned = (near.quats * there.quats).sum(dim=-1).abs()  # the same rotation, whichever its sign
        assert torch.allclose(turned, torch.ones_like(turned), atol=1e-4)


def test_select_keeps_in_order_and_at_all_times(generator):
    scene = random_scene(generator)
    kept = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 1]).bool()
    chosen = scene.select(kept)
    assert_equal(chosen.at(0.3), scene.at(0.3).select(kept))
    assert len(chosen.static) == 2 and len(chosen.moving) == 2
    with pytest.raises(InputError, match=r"`kept` must have shape \[9\]"):
        scene.select(kept[1:])


def test_times_outside_the_clip_are_refused():
    check_times(torch.tensor([0.0, 1.0]))
    for times, message in (([], "at least one time"), ([1.1], "got 1.1"), ([0.5, float("nan")], "got nan")):
        with pytest.raises(InputError, match=message):
            check_times(torch.tensor(times))
