"""A clip to a scene and its files, with a network small enough for tests and random weights."""

import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import CONFIG

from movies import outputs as module
from movies.camera_files import load_cameras
from movies.cameras import Cameras
from movies.clip import Clip
from movies.data.synthetic import SyntheticSequence
from movies.errors import InputError
from movies.geometry import project, quaternion_to_matrix, rigid
from movies.jobs import reconstruct_file
from movies.metrics import psnr
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import Pretrained, save_weights
from movies.network_world import fit_resolution, network_unit
from movies.novel_views import psnr_of_views, render_video, scene_size
from movies.outputs import write_outputs
from movies.reconstruct import PHASES, choose_device, choose_dtype, reconstruct
from movies.scene import Scene4D
from movies.splats import NUM_ATTRIBUTES, DynamicSplats
from movies.video import read_frames, write_video

FILES = [
    "cameras.json", "depth.mp4", "input.mp4", "masks", "motion.mp4", "novel_view.mp4", "overview.png",
    "scene.safetensors", "summary.json", "tracks.mp4", "tracks.npz",
]  # fmt: skip


@pytest.fixture(autouse=True)
def short_films(monkeypatch) -> None:
    """Four novel views are as good as 48 for a test."""
    monkeypatch.setattr(module, "NOVEL_FRAMES", 4)


@pytest.fixture(scope="module")
def models() -> tuple[MoVieS, VGGT]:
    torch.manual_seed(0)
    return MoVieS(CONFIG).eval(), VGGT(CONFIG).eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    """Four frames of 40x64 without cameras."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    ramp = torch.linspace(0, 1, 64).expand(4, 3, 40, 64) * torch.linspace(0.5, 1, 4)[:, None, None, None]
    write_video(path, ramp, fps=4)
    return Clip.load(path)


def posed(clip: Clip, step: float = 0.1) -> Clip:
    """The clip with cameras of a world that is turned, moved and five times as large."""
    turn = quaternion_to_matrix(torch.tensor([1.0, 0.3, -0.2, 0.5])).expand(4, 3, 3)
    along = step * torch.arange(4.0)[:, None] * turn[:, :, 0]
    c2w = rigid(turn, 5 * (along + torch.tensor([1.0, 2.0, 3.0])))
    cameras = Cameras(c2w, torch.tensor([0.8, 1.28, 0.5, 0.5]).repeat(4, 1))
    return replace(clip, views=replace(clip.views, cameras=cameras), has_cameras=True)


def test_resolution_keeps_proportions_and_crops_the_rest(clip):
    fitted = fit_resolution(posed(clip), 56, 14)
    assert fitted.views.size == (28, 56)  # 40x64 is 35x56 there; the nearest multiples of the patch
    # square pixels stay square: fx * W = fy * H
    fx, fy, cx, cy = fitted.cameras.fxfycxcy[0].tolist()
    assert fx * 56 == pytest.approx(fy * 28, rel=0.01)
    assert (cx, cy) == (pytest.approx(0.5, abs=0.02), pytest.approx(0.5, abs=0.02))
    assert fit_resolution(clip, 14, 14).views.size == (14, 14)


@pytest.mark.parametrize("resolution", [7, 30])
def test_resolution_that_does_not_fit(clip, resolution):
    with pytest.raises(InputError, match=f"multiple of the patch size 14, got {resolution}; try"):
        fit_resolution(clip, resolution, 14)


def test_estimated_cameras_start_at_the_identity(clip, models):
    result = reconstruct(clip, *models)
    scene = result.scene
    assert torch.allclose(scene.cameras.c2w[0], torch.eye(4), atol=1e-6)
    assert result.scale == 1.0 and torch.equal(result.transform, torch.eye(4))
    assert scene.image_size == result.clip.views.size == (14, 28)
    assert torch.equal(scene.times, clip.times) and torch.equal(scene.view_times, clip.times)
    assert 0 < len(scene) <= 4 * 14 * 28
    assert set(result.seconds) == set(PHASES)
    assert scene.at(0.5).means.isfinite().all()


def test_given_cameras_come_back_in_their_own_world(clip, models):
    given = posed(clip)
    result = reconstruct(given, *models)
    fitted = fit_resolution(given, 28, 14)
    assert torch.allclose(result.scene.cameras.c2w, fitted.cameras.c2w, atol=1e-3)
    assert torch.allclose(result.scene.cameras.fxfycxcy, fitted.cameras.fxfycxcy, atol=1e-5)
    # what the first view sees lies before it in that world too
    first = result.scene.cameras[0]
    _, z = project(result.scene.at(0.0).means, first.fxfycxcy, first.c2w)
    assert (z > 0).float().mean() > 0.9


def test_the_picture_does_not_depend_on_the_given_world(clip, models):
    """Turning and moving the user's world changes nothing but the world: the same pictures come out."""
    model, _ = models
    given = posed(clip)
    canonical = given.canonical()
    pictures = []
    for each in (given, canonical):
        result = reconstruct(each, model)
        pictures.append(psnr_of_views(result.scene, result.clip.images, result.scene.cameras, result.scene.times))
    assert torch.allclose(*pictures, atol=0.05)


def test_cameras_that_stand_still_leave_the_unit_alone():
    still = Cameras(torch.eye(4).repeat(3, 1, 1), torch.ones(3, 4))
    assert network_unit(torch.rand(3, 3, 8, 8), torch.ones(3, 8, 8), still) == 1.0


@pytest.mark.parametrize("unit", [0.1, 0.5, 2.0])
def test_unit_is_found_from_depth_that_explains_the_frames(unit):
    views, _ = SyntheticSequence(3, (56, 56), 9).read([0, 2, 4, 6, 8])  # something moves in it
    depth = torch.where(views.depth_mask, views.depth, 30.0)
    assert network_unit(views.images, unit * depth, views.cameras) == pytest.approx(unit, rel=0.1)


def test_cameras_that_cannot_be_had(clip, models):
    model, _ = models
    with pytest.raises(InputError, match="no cameras: give a VGGT"):
        reconstruct(clip, model)
    with pytest.raises(InputError, match="not finite"):
        reconstruct(clip, model, lambda images: Prediction(float("nan")))


class Prediction:
    """What a camera network would say: cameras that stand still, with `value` in the third one's place."""

    def __init__(self, value: float) -> None:
        c2w = torch.eye(4).repeat(1, 4, 1, 1)
        c2w[0, 2, 0, 3] = value
        self.cameras = Cameras(c2w, torch.ones(1, 4, 4))


def test_devices():
    assert choose_device("cpu").type == "cpu" and choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="cuda is not available"):
            choose_device("cuda")


def test_dtypes():
    assert choose_dtype("bf16") == torch.bfloat16
    with pytest.raises(InputError, match="unknown dtype 'fp8': choose one of fp32, bf16"):
        choose_dtype("fp8")


def test_the_camera_network_is_gone_before_the_other_comes(clip, models, tmp_path, monkeypatch):
    """Two networks of the published size would not fit side by side; files say what they need beforehand."""
    held, kinds = [], []
    load = Pretrained.load

    def watched(self, build, dtype):
        gc.collect()
        kinds.append(self.network)
        assert not any(ref() is not None for ref in held)
        model = load(self, build, dtype)
        held.append(weakref.ref(model))
        return model

    monkeypatch.setattr(Pretrained, "load", watched)
    paths = [tmp_path / "movies.safetensors", tmp_path / "vggt.safetensors"]
    for model, path in zip(models, paths, strict=True):
        save_weights(model, path)
    frames = tmp_path / "clip.mp4"
    write_video(frames, clip.images, fps=4)
    summary = reconstruct_file(frames, tmp_path / "out", *map(str, paths), dtype="bf16")
    assert kinds == ["VGGT", "MoVieS"] and "load" in summary["seconds"]
    assert isinstance(summary["warnings"], list)


def test_every_file_is_written_and_finite(clip, models, tmp_path):
    result = reconstruct(posed(clip), *models)
    weights = {"movies": module.describe_weights(models[0], "random")}
    summary = write_outputs(result, tmp_path / "out", weights)
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert json.loads((out / "summary.json").read_text()) == summary
    assert summary["scene_bytes"] == (out / "scene.safetensors").stat().st_size
    assert np.isfinite(summary["input_psnr"]) and summary["frames"] == 4
    assert len(summary["weights"]["movies"]["sha256"]) == 64
    assert set(summary["seconds"]) == {*PHASES, "render", "write"}
    assert summary["peak_memory"]["resident"] > 1e8
    assert [set(row) for row in summary["reprojection"]] == [{"error_px", "share_within_1px", "overlap"}] * 4
    assert summary["parallax"] > 0 and summary["depth_over_camera_depth"] > 0
    scene = Scene4D.load(out / "scene.safetensors")
    assert len(scene.static) == summary["num_static"] and len(scene.moving) == summary["num_moving"]
    assert torch.allclose(load_cameras(out / "cameras.json").c2w, scene.cameras.c2w, atol=1e-5)
    for name, count in (("input", 4), ("depth", 4), ("motion", 4), ("novel_view", 4)):
        assert read_frames(out / f"{name}.mp4", 100).num_total == count
    with np.load(out / "tracks.npz") as tracks:
        assert np.isfinite(tracks["points"]).all() and tracks["points"].shape == (4, summary["num_tracks"], 3)
    # tracks are in the scene's world: the first view sees those that start in it where they start
    first = scene.cameras[0]
    with np.load(out / "tracks.npz") as tracks:
        own = tracks["query_views"] == 0
        seen, _ = project(torch.from_numpy(tracks["points"][0][own]), first.fxfycxcy, first.c2w)
        assert np.abs(seen.numpy() - tracks["query_positions"][own]).max() < 0.05


def test_a_failure_leaves_nothing(clip, models, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_image", fail)
    result = reconstruct(clip, *models)
    with pytest.raises(KeyboardInterrupt):
        write_outputs(result, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def scene_path(clip, models, tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.safetensors"
    reconstruct(clip, *models).scene.save(path)
    return path


def test_a_scene_is_rendered_along_a_path_and_from_a_file(scene_path, tmp_path):
    out = tmp_path / "a.mp4"
    render_video(scene_path, out, "orbit", frames=3, size=56)
    assert read_frames(out, 9).images.shape == (3, 3, 28, 56)
    from movies.camera_files import save_cameras

    save_cameras(Scene4D.load(scene_path).cameras, tmp_path / "cameras.json")
    render_video(scene_path, out, cameras=tmp_path / "cameras.json", time=0.5)
    assert read_frames(out, 9).num_total == 4
    render_video(scene_path, out, cameras=tmp_path / "cameras.json", frames=6)
    assert read_frames(out, 9).num_total == 6


def test_size_of_a_scene_that_does_not_know_its_own(scene_path):
    scene = replace(Scene4D.load(scene_path), image_size=(0, 0))
    assert scene_size(scene)[1] == 448 and scene_size(scene, 64)[1] == 64
    assert all(n % 2 == 0 for n in scene_size(scene, 33))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "a.txt"}, "videos are written as"),
        ({"fps": 0}, "frames per second must be above 0"),
        ({"size": 1}, "at least 2 pixels"),
        ({"frames": 0}, "at least 1, got 0"),
        ({"path": "loop"}, "unknown camera path"),
        ({"cameras": "none.json"}, "no such camera file"),
    ],
)
def test_rendering_what_does_not_fit(scene_path, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        render_video(scene_path, **{"out": tmp_path / "a.mp4", **options})
    assert not list(tmp_path.iterdir())


class TrueDepth(torch.nn.Module):
    """Stands in for the network: it knows the true depth, in a unit half as long as the world's, and the colours."""

    UNIT = 0.5

    def __init__(self, depth: torch.Tensor) -> None:
        super().__init__()
        self.config, self.depth = CONFIG, torch.nn.Parameter(self.UNIT * depth)

    def encode(self, images, cameras, times):
        return images, cameras, times

    def decode(self, tokens, times) -> DynamicSplats:
        images, cameras, view_times = tokens
        depth = self.depth[None]
        dense = (1, times.shape[1], *depth.shape[1:])
        scales = 0.3 * depth / (cameras.fxfycxcy[0, 0, 0] * depth.shape[-1])  # of a pixel's footprint
        raw = torch.zeros(*depth.shape, NUM_ATTRIBUTES)
        raw[..., :3] = images.movedim(2, -1).clamp(0.01, 0.99).logit() / 2
        raw[..., 3:6] = (scales / 0.001 + (-torch.expm1(-scales / 0.001)).log())[..., None]  # softplus undone
        raw[..., 6], raw[..., 10] = 1.0, 2.5
        return DynamicSplats(
            depth=depth,
            depth_confidence=torch.ones_like(depth),
            motion=torch.zeros(*dense, 3),
            motion_confidence=torch.ones(dense),
            moving=torch.zeros(dense, dtype=torch.bool),
            raw_splats=raw,
            raw_motion_splats=raw[:, None].expand(*dense, NUM_ATTRIBUTES),
            cameras=cameras,
            view_times=view_times,
            times=times,
        )


def test_with_true_depth_the_scene_matches_the_world_it_came_from():
    """The whole way, world to network and back: new views of a static world in the user's own coordinates."""
    sequence = SyntheticSequence(3, (56, 56), 9, is_static=True)
    views, tracks = sequence.read([0, 4, 8])
    clip = Clip(views, tracks, len(views))
    depth = torch.where(views.depth_mask, views.depth, 30.0)

    def vggt(images):
        prediction = Prediction(0.0)
        prediction.depth = TrueDepth.UNIT * depth[None]
        return prediction

    result = reconstruct(clip, TrueDepth(depth), vggt, resolution=56)
    assert result.scale == pytest.approx(1 / TrueDepth.UNIT, rel=0.1)
    between = sequence.frame_times([2, 6])
    cameras = sequence.cameras(between)
    truth = sequence.render_view(cameras, between, 56, 56).images
    copied = psnr(views.images[[0, 2]], truth).mean()
    quality = psnr_of_views(result.scene, truth, cameras, between).mean()
    # the splats blur a little (25 dB here); a wrong unit, turn or place would lose to the frame copied (21 dB)
    assert quality > copied + 2 and quality > 23
