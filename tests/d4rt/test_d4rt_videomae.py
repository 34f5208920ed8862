"""VideoMAE checkpoints at the published key layouts, Hugging Face's and the original one."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from movies.d4rt.config import D4RTConfig
from movies.d4rt.encoder import VideoEncoder
from movies.d4rt.videomae import load_videomae, videomae_positions
from movies.errors import InputError

DIM, DEPTH, HIDDEN = 24, 2, 48
CONFIG = D4RTConfig(image_size=32, patch_size=16, num_frames=4, embed_dim=DIM, depth=DEPTH, num_heads=2, mlp_ratio=2.0)


def norm(name: str) -> dict[str, tuple]:
    return {f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)}


def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def huggingface_shapes() -> dict[str, tuple]:
    """MCG-NJU/videomae-base: VideoMAEForPreTraining, its sizes but not its names changed."""
    shapes = {"videomae.embeddings.patch_embeddings.projection.weight": (DIM, 3, 2, 16, 16)}
    shapes |= {"videomae.embeddings.patch_embeddings.projection.bias": (DIM,)}
    for i in range(DEPTH):
        layer = f"videomae.encoder.layer.{i}."
        shapes |= {f"{layer}attention.attention.{name}.weight": (DIM, DIM) for name in ("query", "key", "value")}
        shapes |= {f"{layer}attention.attention.{name}_bias": (DIM,) for name in ("q", "v")}
        shapes |= linear(f"{layer}attention.output.dense", DIM, DIM)
        shapes |= linear(f"{layer}intermediate.dense", HIDDEN, DIM) | linear(f"{layer}output.dense", DIM, HIDDEN)
        shapes |= norm(f"{layer}layernorm_before") | norm(f"{layer}layernorm_after")
    shapes |= norm("videomae.layernorm") | {"encoder_to_decoder.weight": (12, DIM), "mask_token": (1, 1, 12)}
    return shapes | linear("decoder.head", 1536, 12) | {"position_embeddings": (1, 8 * 196, 12)}


def original_shapes() -> dict[str, tuple]:
    """The authors' own fine-tuned files: fused qkv, biases of queries and values beside it."""
    shapes = {"patch_embed.proj.weight": (DIM, 3, 2, 16, 16), "patch_embed.proj.bias": (DIM,)}
    for i in range(DEPTH):
        block = f"blocks.{i}."
        shapes |= {f"{block}attn.qkv.weight": (3 * DIM, DIM)}
        shapes |= {f"{block}attn.q_bias": (DIM,), f"{block}attn.v_bias": (DIM,)}
        shapes |= linear(f"{block}attn.proj", DIM, DIM) | norm(f"{block}norm1") | norm(f"{block}norm2")
        shapes |= linear(f"{block}mlp.fc1", HIDDEN, DIM) | linear(f"{block}mlp.fc2", DIM, HIDDEN)
    return shapes | norm("fc_norm") | linear("head", 400, DIM)


def random_state(shapes: dict[str, tuple]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def encoder() -> VideoEncoder:
    torch.manual_seed(1)
    return VideoEncoder(CONFIG)


def test_huggingface_layout_with_split_qkv(encoder):
    state = random_state(huggingface_shapes())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    report = load_videomae(encoder, state)
    assert set(report.unused) == {"encoder_to_decoder.weight", "mask_token", "decoder.head.weight",
                                  "decoder.head.bias", "position_embeddings"}  # fmt: skip
    ours = {"aspect_embed.weight", "aspect_embed.bias"} | {f"blocks.{i}.ls{j}.gamma" for i in (0, 1) for j in (1, 2)}
    assert set(report.missing) == ours and not report.unexpected and not report.mismatched
    assert set(report.matched) == set(before) - ours
    own, layer = encoder.state_dict(), "videomae.encoder.layer.1."
    names = ("query", "key", "value")
    assert torch.equal(own["blocks.1.attn.qkv.weight"],
                       torch.cat([state[f"{layer}attention.attention.{n}.weight"] for n in names]))  # fmt: skip
    biases = [state[f"{layer}attention.attention.{n}_bias"] for n in ("q", "v")]
    assert torch.equal(own["blocks.1.attn.qkv.bias"], torch.cat([biases[0], torch.zeros(DIM), biases[1]]))
    assert torch.equal(own["blocks.0.mlp.fc2.weight"], state["videomae.encoder.layer.0.output.dense.weight"])
    assert torch.equal(own["patch_embed.proj.weight"], state["videomae.embeddings.patch_embeddings.projection.weight"])
    assert all(torch.equal(own[key], before[key]) for key in ours)


def test_original_layout_with_fused_qkv_from_a_file(encoder, tmp_path):
    state = random_state(original_shapes())
    save_file(state, tmp_path / "videomae.safetensors")
    report = load_videomae(encoder, tmp_path / "videomae.safetensors")
    assert set(report.unused) == {"head.weight", "head.bias"} and not report.unexpected
    own = encoder.state_dict()
    assert torch.equal(own["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])
    assert torch.equal(own["norm.bias"], state["fc_norm.bias"])
    prefixed = VideoEncoder(CONFIG)
    load_videomae(prefixed, {f"encoder.{key}": value for key, value in state.items()})
    assert all(torch.equal(value, own[key]) for key, value in prefixed.state_dict().items() if "aspect" not in key)


def test_positions_are_the_fixed_table_or_the_files_own_resampled():
    same = VideoEncoder(replace(CONFIG, image_size=224, num_frames=16))
    state = random_state(huggingface_shapes())
    load_videomae(same, state)
    table = videomae_positions(8 * 196, DIM)
    assert torch.allclose(same.pos_embed.flatten(0, 1), table)
    assert table[3, :2].tolist() == pytest.approx([0.14112, -0.98999], abs=1e-5)  # sin 3, cos 3
    stored = torch.arange(8.0)[:, None].expand(8, 4).reshape(1, 32, 1).expand(1, 32, DIM)  # the slice's number
    twice = VideoEncoder(replace(CONFIG, num_frames=32))
    load_videomae(twice, state | {"videomae.embeddings.position_embeddings": stored})
    along = twice.pos_embed[:, 0, 0].tolist()
    assert along[1:-1] == pytest.approx([0.25 + 0.5 * i for i in range(14)])


def test_refusals_change_nothing(encoder):
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    state = random_state(huggingface_shapes())
    with pytest.raises(InputError, match="no VideoMAE checkpoint"):
        load_videomae(encoder, {"splat_head.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"another size \(encoder.layer.1.* finds no block\); choose the D4RT preset"):
        load_videomae(VideoEncoder(replace(CONFIG, depth=1)), state)
    with pytest.raises(InputError, match=r"another size .*blocks\.2.* is not there"):
        load_videomae(VideoEncoder(replace(CONFIG, depth=3)), state)
    wide = state | {"videomae.layernorm.weight": torch.zeros(48)}
    with pytest.raises(InputError, match=r"norm.weight: \[48\], the model has \[24\]"):
        load_videomae(encoder, wide)
    with pytest.raises(InputError, match="not of 8 square slices"):
        load_videomae(encoder, state | {"videomae.embeddings.position_embeddings": torch.zeros(1, 30, DIM)})
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_the_published_sizes_fit():
    """MCG-NJU's base, large and huge, and the giant of VideoMAE V2: widths, depths and hidden widths."""
    sizes = {"base": (768, 12, 3072), "large": (1024, 24, 4096), "huge": (1280, 32, 5120), "giant": (1408, 40, 6144)}
    for name, (dim, depth, hidden) in sizes.items():
        with torch.device("meta"):
            encoder = VideoEncoder(D4RTConfig.preset(name))
        assert encoder.patch_embed.proj.weight.shape == (dim, 3, 2, 16, 16)
        assert len(encoder.blocks) == depth and encoder.blocks[-1].mlp.fc1.weight.shape == (hidden, dim)
