"""The query network: independence of queries, refusals, sizes, patches and weights files."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from movies import VGGT, ModelConfig, MoVieS
from movies.cli import main
from movies.d4rt import network
from movies.d4rt.config import PRESETS, D4RTConfig
from movies.d4rt.network import D4RT
from movies.d4rt.queries import Queries, QueryAnswers, SceneTokens, cut_patches
from movies.errors import InputError
from movies.model import hub
from movies.model.weights import save_weights

EXACT = 1e-6  # another order of a product's sums


def close(a: QueryAnswers, b: QueryAnswers) -> None:
    for name, tensor in vars(a).items():
        assert torch.allclose(tensor, getattr(b, name), rtol=0, atol=EXACT), name


def equal(a: QueryAnswers, b: QueryAnswers) -> None:
    for name, tensor in vars(a).items():
        assert torch.equal(tensor, getattr(b, name)), name


@torch.no_grad()
@pytest.mark.parametrize("block", [7, 512])
def test_answers_do_not_depend_on_order_or_company(model, video, queries, monkeypatch, block):
    monkeypatch.setattr(network, "BLOCK", block)
    tokens = model.encode(video)
    whole = model.query(tokens, queries)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    equal(model.query(tokens, queries[order]), whole.map(lambda x: x[:, order]))
    equal(QueryAnswers.cat([model.query(tokens, queries[i : i + 1]) for i in range(40)]), whole)
    equal(model.query(tokens, queries[[7] * 9]), whole.map(lambda x: x[:, [7] * 9]))


@torch.no_grad()
def test_a_memory_budget_makes_chunks(model, video, queries, monkeypatch):
    tokens, chunks = model.encode(video), []
    handle = model.decoder.register_forward_pre_hook(lambda _, args: chunks.append(len(args[0])))
    answers = model.query(tokens, queries, memory_budget=7 * 4 * (14 * 16 + 12 * 100))
    handle.remove()
    assert chunks == [7] * 6  # the last one filled up
    monkeypatch.setattr(network, "BLOCK", 7)
    equal(answers, model.query(tokens, queries))


@torch.no_grad()
def test_every_part_of_a_query_matters(model, video, queries):
    tokens = model.encode(video)
    whole = model.query(tokens, queries).points
    for name in ("source", "target", "camera"):
        other = replace(queries, **{name: (getattr(queries, name) + 1) % 5})
        assert ((model.query(tokens, other).points - whole).abs().amax(-1) > 1e-4).all(), name
    moved = replace(queries, uv=1 - queries.uv)
    assert (model.query(tokens, moved).points - whole).abs().max() > 1e-3
    other_frames = tokens.with_frames(tokens.frames.flip(-1))
    assert (model.query(other_frames, queries).points - whole).abs().max() > 1e-3


@torch.no_grad()
def test_every_frame_and_the_aspect_reach_every_answer(model, video, queries):
    whole = model.query(model.encode(video), queries[:1])
    own = int(queries.source[0, 0])
    for frame in set(range(5)) - {own}:  # not by way of the query's own patch
        changed = video.clone()
        changed[:, frame] = 1 - changed[:, frame]
        assert (model.query(model.encode(changed), queries[:1]).points - whole.points).abs().max() > 1e-6, frame
    taller = model.encode(video, torch.tensor([0.5]))
    assert (model.query(taller, queries[:1]).points - whole.points).abs().max() > 1e-6


@torch.no_grad()
def test_no_queries_give_no_answers(model, video, queries):
    answers = model.query(model.encode(video), queries[:0])
    assert answers.points.shape == (1, 0, 3) and answers.confidence.shape == (1, 0)


def test_answers_have_their_ranges(model, video, queries):
    answers = model(video, torch.ones(1), queries)
    assert answers.positions.shape == (1, 40, 2) and answers.visible.dtype == torch.bool
    assert (answers.confidence > 0).all()
    assert torch.allclose(answers.normals.norm(dim=-1), torch.ones(1, 40))
    answers.points.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_refusals(model, video, queries):
    with pytest.raises(InputError, match="reads 1 to 6 frames, got 10: take fewer, or reconstruct the video in chunks"):
        model.encode(torch.cat([video, video], dim=1))
    tokens = model.encode(video)
    with pytest.raises(InputError, match=r"must lie in \[0, 1\]"):
        model.query(tokens, replace(queries, uv=queries.uv + 0.5))
    with pytest.raises(InputError, match=r"`target` must be a frame in 0..4, got 5..5"):
        model.query(tokens, replace(queries, target=torch.full((1, 40), 5)))
    with pytest.raises(InputError, match="`camera` must be whole frame numbers"):
        model.query(tokens, replace(queries, camera=torch.zeros(1, 40)))
    with pytest.raises(InputError, match=r"`source` must have shape \[1, 40\]"):
        replace(queries, source=torch.zeros(40).long())
    with pytest.raises(InputError, match=r"`frames` must have shape"):
        tokens.with_frames(video[:, :3])


def test_patches_are_those_of_grid_sample():
    frames = torch.rand(2, 3, 3, 11, 17, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(1)
    uv = torch.cat([torch.rand(2, 20, 2, generator=random), torch.tensor([[0.0, 0], [1, 1]]).expand(2, 2, 2)], dim=1)
    times = torch.randint(3, (2, 22), generator=random)
    queries = Queries(uv, times, times, times)
    for size in (9, 12):
        steps = (torch.arange(size) - (size - 1) / 2) * 2
        offsets = torch.stack(torch.meshgrid(steps / 17, steps / 11, indexing="xy"), dim=-1)  # [size, size, 2]
        for b in range(2):
            grid = 2 * uv[b, :, None, None] - 1 + offsets
            wanted = F.grid_sample(frames[b, times[b]], grid, padding_mode="border", align_corners=False)
            assert torch.allclose(cut_patches(frames, queries, size)[b], wanted, atol=1e-5)


def test_config_refusals_and_presets():
    with pytest.raises(InputError, match="image_size = 60 must be a multiple of patch_size"):
        D4RTConfig(image_size=60)
    with pytest.raises(InputError, match="depth must be positive, got 0"):
        D4RTConfig(depth=0)
    with pytest.raises(InputError, match="choose one of tiny, base, large, huge, giant"):
        D4RTConfig.preset("small")
    with pytest.raises(InputError, match="not one of D4RT"):
        D4RTConfig.from_json('{"aa_depth": 3}')
    assert all(D4RTConfig.from_json(config.to_json()) == config for config in PRESETS.values())


def test_published_sizes():
    """The paper: about a billion parameters in ViT-g, 144 M in its decoder, 6,144 tokens of 48 frames."""
    with torch.device("meta"):
        model = D4RT(D4RTConfig.preset("giant"))
        features = model.encoder(torch.zeros(1, 48, 3, 256, 256), torch.ones(1))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert 1.0e9 < count["encoder"] < 1.03e9 and 140e6 < count["decoder"] < 150e6
    assert features.shape == (1, 6144 + 24, 1408)  # and one of the aspect a slice
    with torch.device("meta"):
        assert sum(p.numel() for p in D4RT(D4RTConfig.preset("tiny")).parameters()) * 2 < 16e6


def test_weights_come_back_and_others_are_refused(model, tmp_path, video):
    save_weights(model, tmp_path / "d4rt.safetensors")
    again = D4RT.from_pretrained(tmp_path / "d4rt.safetensors")
    assert torch.equal(again.encode(video).features, model.encode(video).features)
    save_weights(VGGT(ModelConfig.preset("tiny")), tmp_path / "vggt.safetensors")
    with pytest.raises(InputError, match="holds weights of VGGT, not of D4RT"):
        D4RT.from_pretrained(tmp_path / "vggt.safetensors")
    with pytest.raises(InputError, match="holds weights of D4RT, not of MoVieS or VGGT"):
        MoVieS.from_pretrained(tmp_path / "d4rt.safetensors")


@torch.no_grad()
def test_frames_without_patches_are_not_looked_at(model, video, queries):
    model = D4RT(replace(model.config, rgb_patch=0)).eval()
    tokens = model.encode(video)
    blind = SceneTokens(tokens.features, torch.zeros_like(tokens.frames))
    close(model.query(blind, queries), model.query(tokens, queries))


def test_commands_know_weights_of_d4rt(model, tmp_path, capsys):
    save_weights(model, tmp_path / "d4rt.safetensors")
    assert main(["weights", "inspect", str(tmp_path / "d4rt.safetensors")]) == 0
    assert "fills D4RT" in capsys.readouterr().out
    half = str(tmp_path / "half.safetensors")
    assert main(["weights", "convert", str(tmp_path / "d4rt.safetensors"), half, "--dtype", "fp16"]) == 0
    assert D4RT.from_pretrained(half).config == model.config


def test_tiny_is_offered_only_where_it_is_bundled(model, tmp_path, monkeypatch):
    bundled = tmp_path / "tiny.safetensors"
    monkeypatch.setattr(hub, "_bundled", lambda network, name: bundled)
    with pytest.raises(InputError, match=r"no weights named 'small': give a .safetensors file"):
        D4RT.from_pretrained("small")
    with pytest.raises(InputError, match="no weights of D4RT are bundled: train some"):
        D4RT.from_pretrained("tiny")
    save_weights(model, bundled)
    assert D4RT.from_pretrained("tiny").config == model.config
