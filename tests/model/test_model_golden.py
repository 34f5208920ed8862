"""Both networks against recorded runs of the reference: every stored activation and output."""

import pytest
import torch
from goldens import Golden

from movies.cameras import Cameras
from movies.model import dpt
from movies.model.dpt import normalise_tokens
from movies.model.embeddings import pose_encoding
from movies.model.heads import confidence
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import load_state


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=["a", "b"])
def vggt(request) -> tuple[Golden, VGGT]:
    golden = Golden(f"vggt_{request.param}")
    model = VGGT(golden.config).eval()
    load_state(model, golden.weights, source="vggt")
    return golden, model


@pytest.fixture(scope="module", params=["a", "b"])
def movies(request) -> tuple[Golden, MoVieS]:
    golden = Golden(f"movies_{request.param}")
    model = MoVieS(golden.config).eval()
    load_state(model, golden.weights, source="movies")
    return golden, model


def inputs(golden: Golden) -> tuple:
    cameras = Cameras(golden["in/C2W"], golden["in/fxfycxcy"])
    return golden["in/images"], cameras, golden["in/input_timesteps"], golden["in/output_timesteps"]


def planes(x: torch.Tensor) -> torch.Tensor:  # [..., H, W, C] -> [..., C, H, W]
    return x.movedim(-1, -3)


def test_vggt_reproduces_every_recorded_tensor(vggt):
    golden, model = vggt
    images = golden["in/images"]
    height, width = images.shape[-2:]
    grid = (height // 14, width // 14)
    patches = model.aggregator.patch_embed(images.flatten(0, 1))
    golden.check("mid/patch_tokens", patches)
    patches = patches.unflatten(0, images.shape[:2])
    levels = model.aggregator(patches, patches[:, :, :0], grid, range(golden.config.aa_depth))
    for i, level in enumerate(levels):
        golden.check(f"mid/agg_{i}", level)

    prediction = model(images)
    golden.check("out/depth", prediction.depth[..., None])
    golden.check("out/depth_conf", prediction.depth_confidence)
    golden.check("out/world_points", prediction.points)
    golden.check("out/world_points_conf", prediction.point_confidence)
    golden.check("out/pose_enc", prediction.pose_encoding)
    golden.check("out/pose_enc_all", prediction.pose_encodings)
    golden.check("out/extrinsic", prediction.cameras.viewmats()[..., :3, :])
    golden.check("out/intrinsic", prediction.cameras.Ks(height, width))
    assert not golden.unchecked


def check_middle(golden: Golden, model: MoVieS) -> list[torch.Tensor]:
    """Everything up to the levels of the backbone, which are returned."""
    images, cameras, times, target_times = inputs(golden)
    num_batch, num_views, _, height, width = images.shape
    grid = (height // 14, width // 14)
    rays = cameras.plucker(height, width)
    embedded = model.plucker_embed(rays)  # [B, V, L, D]
    golden.check("mid/plucker", rays.transpose(1, 2))
    golden.check("mid/plucker_conv", embedded.permute(0, 3, 1, 2).unflatten(-1, grid))
    golden.check("mid/plucker_ln", model.plucker_ln(embedded).permute(0, 3, 1, 2).unflatten(-1, grid))
    golden.check("mid/pose_enc", pose_encoding(cameras))
    golden.check("mid/input_time_embed", model.embed_times(times))
    golden.check("mid/output_time_embed", model.embed_times(target_times))
    patches = model.encoder(images.flatten(0, 1))
    golden.check("mid/encoder_patch_tokens", patches)
    embedding, prefix = model.condition(cameras, times, height, width)
    patches = patches + embedding.flatten(0, 1)
    golden.check("mid/backbone_patch_tokens", patches)
    patches = patches.unflatten(0, (num_batch, num_views))
    levels = model.backbone(patches, prefix, grid, range(golden.config.aa_depth))
    for i, level in enumerate(levels):
        golden.check(f"mid/agg_{i}", level)
    return levels


def check_confidences(golden: Golden, model: MoVieS, levels: list[torch.Tensor], moving: torch.Tensor) -> None:
    """The splat heads' confidences, which `decode` has no use for."""
    images, _, _, target_times = inputs(golden)
    grid = (images.shape[-2] // 14, images.shape[-1] // 14)
    tokens = normalise_tokens([levels[i] for i in golden.config.dpt_layer_idx], 7)
    static = model.splat_head(tokens, grid, images.new_zeros(1, 1, 0), images.movedim(2, -1))[:, 0]
    dynamic = model.motion_splat_head(tokens, grid, model.embed_times(target_times), static[..., :-1])
    golden.check("out/conf", confidence(static[..., -1:]).movedim(-1, 2))
    for t in range(target_times.shape[1]):
        blended = torch.where(moving[:, t], confidence(dynamic[:, t, ..., -1]), confidence(static[..., -1]))
        golden.check(f"out/t{t}/motion_conf", blended[:, :, None])


def check_splats(golden: Golden, splats) -> None:
    names = ("color", "scale", "rotation", "opacity")
    golden.check("out/depth", splats.depth[:, :, None])
    golden.check("out/depth_conf", splats.depth_confidence)
    golden.check("out/motions", planes(torch.cat([splats.motion, splats.motion_confidence[..., None]], dim=-1)))
    for name, part in zip(names, splats.raw_splats.split([3, 3, 4, 1], dim=-1), strict=True):
        golden.check(f"out/{name}", planes(part))
    blended = torch.where(splats.moving[..., None], splats.raw_motion_splats, splats.raw_splats[:, None])
    for t in range(splats.times.shape[1]):
        recorded = golden["out/motions"][:, t, :, :3].norm(dim=2) >= golden.config.motion_threshold
        assert torch.equal(splats.moving[:, t], recorded)
        for name, part in zip(names, blended[:, t].split([3, 3, 4, 1], dim=-1), strict=True):
            golden.check(f"out/t{t}/motion_{name}", planes(part))


def check_gaussians(golden: Golden, splats) -> None:
    """What goes to the rasteriser at every time, and what of it is pruned."""
    gaussians = splats.gaussians()
    height, width = splats.depth.shape[-2:]
    cameras = Cameras(golden["in/output_C2W"], golden["in/output_fxfycxcy"])
    for t in range(splats.times.shape[1]):
        usage = []
        for b in range(splats.times.shape[0]):
            name = f"out/t{t}/b{b}"
            for field in ("means", "quats", "scales", "opacities", "colors"):
                # A quaternion's length amplifies the raw channels' rounding where it is small.
                golden.check(f"{name}/gs_{field}", getattr(gaussians, field)[b, t], 5e-5 if field == "quats" else 2e-5)
            kept = gaussians.opacities[b, t] > 0.001
            golden.check(f"{name}/gs_keep_idx", kept.nonzero()[:, 0])
            golden.check(f"{name}/viewmat", cameras[b, t].viewmats()[None])
            golden.check(f"{name}/K", cameras[b, t].Ks(height, width)[None])
            usage.append(kept.float().mean())
        golden.check(f"out/t{t}/gaussian_usage", torch.stack(usage))


def test_movies_reproduces_every_recorded_tensor(movies):
    golden, model = movies
    levels = check_middle(golden, model)
    splats = model(*inputs(golden))
    check_splats(golden, splats)
    check_gaussians(golden, splats)
    check_confidences(golden, model, levels, splats.moving)
    assert not golden.unchecked


def test_movies_decoded_image_by_image_reproduces_the_recording(movies, monkeypatch):
    golden, model = movies
    monkeypatch.setattr(dpt, "CHUNK_BYTES", 1)
    splats = model(*inputs(golden))
    check_splats(golden, splats)
    check_gaussians(golden, splats)


def test_movies_decoded_one_time_after_another_equals_all_times_at_once(movies):
    golden, model = movies
    images, cameras, times, target_times = inputs(golden)
    tokens = model.encode(images, cameras, times)
    together = model.decode(tokens, target_times)
    for t in range(target_times.shape[1]):
        alone = model.decode(tokens, target_times[:, t : t + 1])
        torch.testing.assert_close(alone.motion[:, 0], together.motion[:, t], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            alone.raw_motion_splats[:, 0], together.raw_motion_splats[:, t], rtol=1e-4, atol=1e-4
        )
