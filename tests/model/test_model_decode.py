"""Decoding: against the plain way, in chunks of bounded memory, under autocast, and with gradients."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.model import dpt
from movies.model.config import ModelConfig
from movies.model.dpt import DPTHead
from movies.model.layers import attend
from movies.model.network import MoVieS
from movies.model.vggt import VGGT

SMALL = ModelConfig(
    image_size=28, embed_dim=16, num_heads=2, vit_depth=1, vit_num_heads=2, aa_depth=4, dpt_features=8,
    dpt_out_channels=(4, 8, 4, 8), dpt_layer_idx=(0, 1, 2, 3), camera_trunk_depth=1, camera_num_heads=2,
)  # fmt: skip
B, V, T, H, W = 2, 3, 4, 28, 42


@pytest.fixture
def model(generator) -> MoVieS:
    """Small, with every parameter random, so that nothing hides behind a zero."""
    torch.manual_seed(2)  # with some (0, 5) a rectifier is so near its kink that rounding decides its gradient
    model = MoVieS(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def inputs(generator) -> tuple[Tensor, Cameras, Tensor, Tensor]:
    c2w = torch.eye(4).repeat(B, V, 1, 1)
    c2w[..., :3, 3] = 0.3 * torch.randn(B, V, 3, generator=generator)
    cameras = Cameras(c2w, torch.tensor([0.9, 1.2, 0.5, 0.5]).expand(B, V, 4))
    images = torch.rand(B, V, 3, H, W, generator=generator)
    return images, cameras, torch.rand(B, V, generator=generator), torch.rand(B, T, generator=generator)


def bench_module():
    path = Path(__file__).parents[2] / "tools" / "bench_model.py"
    spec = importlib.util.spec_from_file_location("bench_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def maps(model: MoVieS, inputs) -> list[Tensor]:
    splats = model(*inputs)
    return [splats.depth, splats.depth_confidence, splats.motion, splats.motion_confidence, splats.raw_motion_splats]


def test_decode_equals_the_plain_way(model, inputs):
    with torch.no_grad():
        tokens = model.encode(*inputs[:3])
        splats = model.decode(tokens, inputs[3])
        motion, moving_splats = bench_module().decode_by_time(model, tokens, inputs[3])
    # The plain way sums in another order; 2e-5 of the largest value is the recorded networks' tolerance.
    for fast, plain in ((splats.motion, motion[:, :, :, :3]), (splats.raw_motion_splats, moving_splats[:, :, :, :11])):
        plain = plain.movedim(3, -1)
        assert (fast - plain).abs().max() <= 2e-5 * plain.abs().max()


def test_gradients_of_decode_equal_the_plain_way(model, inputs):
    weight = torch.randn(B, T, V, H, W, 11, generator=torch.Generator().manual_seed(1))
    grads = []
    for plain in (False, True):
        model.zero_grad()
        tokens = model.encode(*inputs[:3])
        if plain:
            raw = bench_module().decode_by_time(model, tokens, inputs[3])[1][:, :, :, :11].movedim(3, -1)
        else:
            raw = model.decode(tokens, inputs[3]).raw_motion_splats
        (raw * weight).sum().backward()
        grads.append({k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None})
    for name, wanted in grads[1].items():
        assert (grads[0][name] - wanted).abs().max() <= 2e-4 * wanted.abs().max() + 1e-5, name


@pytest.mark.parametrize("images_a_chunk", [1, 2, 3, 7, 100])
def test_chunks_change_nothing(model, inputs, monkeypatch, images_a_chunk):
    with torch.no_grad():
        whole = maps(model, inputs)
        head = model.motion_head
        each = H * W * (head.scratch.output_conv1.out_channels + 3 * dpt.HIDDEN) * 4
        monkeypatch.setattr(dpt, "CHUNK_BYTES", images_a_chunk * each)
        sizes, decode = [], DPTHead.decode
        monkeypatch.setattr(DPTHead, "decode", lambda *a: sizes.append(decode(*a)) or sizes[-1])
        parts = maps(model, inputs)
    assert max(x.shape[:3].numel() for x in sizes) <= images_a_chunk
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_checkpointing_keeps_values_and_gradients(model, inputs, monkeypatch):
    grads = []
    for checkpointing in (False, True):
        monkeypatch.setattr(dpt, "CHUNK_BYTES", 1 if checkpointing else 1 << 30)
        model.set_checkpointing(checkpointing)
        model.zero_grad()
        sum(x.square().mean() for x in maps(model, inputs)).backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-7


def test_geometry_stays_float32_under_autocast(model, inputs):
    images, cameras, times, _ = inputs
    exact = model.condition(cameras, times, H, W)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.condition(cameras, times, H, W)
        tokens = model.encode(images, cameras, times)
        splats = model.decode(tokens, inputs[3])
    assert all(torch.equal(a, b) for a, b in zip(exact, rounded, strict=True))
    assert all(x.dtype == torch.bfloat16 for x in tokens.levels)
    for name in ("depth", "depth_confidence", "motion", "motion_confidence", "raw_splats", "raw_motion_splats"):
        assert getattr(splats, name).dtype == torch.float32, name
    torch.testing.assert_close(splats.depth, model(*inputs).depth, rtol=0.05, atol=0.05)


def test_tokens_of_autocast_decode_without_it(model, inputs):
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            tokens = model.encode(*inputs[:3])
        assert model.decode(tokens, inputs[3]).motion.dtype == torch.float32


def test_tables_made_under_inference_mode_serve_training(model, inputs):
    images, cameras, times, targets = (x[..., :28] if x is inputs[0] else x for x in inputs)
    with torch.inference_mode():
        model(images, cameras, times, targets)
    sum(x.mean() for x in maps(model, (images, cameras, times, targets))).backward()


def test_caches_are_not_in_the_state(model, inputs):
    before = set(model.state_dict())
    maps(model, inputs)
    assert set(model.state_dict()) == before


def test_other_frames_change_a_frame_and_the_batch_does_not(model, inputs):
    images, cameras, times, targets = inputs
    with torch.no_grad():
        both = model(*inputs)
        alone = model(images[1:], cameras[1:], times[1:], targets[1:])
        fewer = model(images[:, :2], cameras[:, :2], times[:, :2], targets)
    torch.testing.assert_close(both.motion[1:], alone.motion, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both.depth[:, :2], fewer.depth)


def test_vggt_answers_the_named_shapes(inputs):
    prediction = VGGT(SMALL)(inputs[0])
    assert prediction.depth.shape == prediction.point_confidence.shape == (B, V, H, W)
    assert prediction.points.shape == (B, V, H, W, 3)
    assert prediction.pose_encodings.shape == (4, B, V, 9) and prediction.cameras.shape == (B, V)
    prediction.pose_encodings.sum().backward()


def test_wrong_inputs_are_named(model, inputs):
    images, cameras, times, targets = inputs
    with pytest.raises(InputError, match="images are 28x41: both sides must be multiples of the patch size, 14"):
        model.encode(images[..., :41], cameras, times)
    with pytest.raises(InputError, match="`images` must have shape"):
        VGGT(SMALL)(images[0])
    with pytest.raises(InputError, match=r"`cameras\.c2w` must have shape"):
        model.encode(images, cameras[:, :2], times)
    with pytest.raises(InputError, match="`times` must have shape"):
        model.decode(model.encode(images, cameras, times), targets[:1])


@pytest.mark.parametrize("length", [5, 71])
def test_attention_written_out_equals_torchs_own(generator, length):
    q, k, v, weight = torch.randn(4, 2, 3, length, 8, generator=generator).bfloat16().unbind(0)
    grads = []
    for function in (attend, F.scaled_dot_product_attention):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        (function(*leaves) * weight).sum().backward()
        grads.append([x.grad.float() for x in leaves])
    for a, b in zip(*grads, strict=True):
        # bf16 keeps 8 bits, and the two round at different places.
        assert (a - b).abs().max() <= 0.03 * b.abs().max()


@pytest.mark.gpu
def test_forward_never_waits_for_the_device():
    model = MoVieS(ModelConfig.preset("tiny")).cuda().eval()
    cameras = Cameras(torch.eye(4).repeat(1, 4, 1, 1), torch.full((1, 4, 4), 0.5)).to("cuda")
    images, times = torch.rand(1, 4, 3, 112, 112).cuda(), torch.rand(1, 4).cuda()
    model(images, cameras, times, times)  # tables are made and kept here
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(images, cameras, times, times)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_peak_memory_does_not_grow_with_times(monkeypatch):
    monkeypatch.setattr(dpt, "CHUNK_BYTES", 1 << 26)
    model = MoVieS(ModelConfig.preset("tiny")).cuda().eval()
    cameras = Cameras(torch.eye(4).repeat(1, 4, 1, 1), torch.full((1, 4, 4), 0.5)).to("cuda")
    tokens = model.encode(torch.rand(1, 4, 3, 112, 112).cuda(), cameras, torch.zeros(1, 4).cuda())
    extra = []
    for num_times in (8, 64):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            splats = model.decode(tokens, torch.rand(1, num_times).cuda())
        kept = torch.cuda.memory_allocated() - before
        extra.append(torch.cuda.max_memory_allocated() - before - kept)
        del splats
    # What is needed beyond the result is a chunk; the norm that marks moving pixels adds a little with T.
    assert extra[1] < 1.5 * extra[0] + (1 << 26)
