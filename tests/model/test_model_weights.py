"""Checkpoints in and out: complete, or one line that says what is wrong."""

import gzip
import importlib.util
import json
import sys
import types
from dataclasses import replace

import pytest
import torch
from goldens import DATA
from safetensors.torch import save_file

from movies.cameras import Cameras
from movies.errors import InputError
from movies.model.config import ModelConfig
from movies.model.hub import locate
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import compare, load_state, load_weights, own_names, save_weights
from movies.model.weights_file import read_header
from movies.model.weights_table import convert_weights, inspect_weights

SMALL = ModelConfig(
    image_size=28, embed_dim=16, num_heads=2, vit_depth=1, vit_num_heads=2, aa_depth=4, dpt_features=8,
    dpt_out_channels=(4, 4, 4, 4), dpt_layer_idx=(0, 1, 2, 3), camera_trunk_depth=1, camera_num_heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the published files: "vggt", "movies" and "movies_static" (after the static stage)."""
    return json.loads(gzip.decompress((DATA / "published_keys.json.gz").read_bytes()))


def on_meta(model_class):
    with torch.device("meta"):
        return model_class(ModelConfig.preset("vggt-1b"))


def empty_state(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_every_published_vggt_key_is_accounted_for(published):
    report = compare({k: tuple(s) for k, s in published["vggt"].items()}, on_meta(VGGT), "vggt")
    assert not report.missing and not report.unexpected and not report.mismatched
    assert len(report.matched) + len(report.unused) == len(published["vggt"]) == 1797
    assert {k.split(".")[0] for k in report.unused} == {"track_head", "aggregator"}
    assert [k for k in report.unused if not k.startswith("track_head.")] == ["aggregator.patch_embed.mask_token"]


def test_every_published_movies_key_is_accounted_for(published):
    model = on_meta(MoVieS)
    shapes = {own: tuple(published["movies"][k]) for own, k in own_names(published["movies"], "movies").items()}
    report = compare(shapes, model, "movies")
    assert not report.missing and not report.unexpected and not report.mismatched
    assert report.unused == ("encoder.mask_token",)
    assert len(report.matched) + 1 == len(published["movies"]) == 1478
    assert sum(p.numel() for p in model.parameters()) + 1024 == 1_041_147_254


def test_static_stage_checkpoint_is_refused_naming_the_missing_heads(published):
    with pytest.raises(InputError, match=r"static stage.*motion_head \(64 keys\).*motion_splat_head \(68 keys\)") as e:
        load_state(on_meta(MoVieS), empty_state(published["movies_static"]), source="movies")
    assert "backbone.time_embed" in str(e.value) and "\n" not in str(e.value)


def test_vggt_checkpoint_for_movies_names_the_mend(published):
    with pytest.raises(InputError, match=r"a VGGT checkpoint.*MoVieS\.from_vggt"):
        load_state(on_meta(MoVieS), empty_state(published["vggt"]), source="movies")


def test_outer_prefix_is_optional():
    model = MoVieS(SMALL)
    state = {f"backbone.{k}": v + 1 for k, v in model.state_dict().items()}
    load_state(model, state, source="movies")
    assert torch.equal(model.plucker_ln.weight, state["backbone.plucker_ln.weight"])


def test_unexpected_keys_are_reported():
    model = VGGT(SMALL)
    report = load_state(model, model.state_dict() | {"surprise": torch.zeros(1)})
    assert report.unexpected == ("surprise",)


def test_nothing_is_loaded_unless_everything_is_there():
    model = MoVieS(SMALL)
    before = model.plucker_ln.weight.clone()
    state = {k: v + 1 for k, v in model.state_dict().items() if k != "depth_head.norm.bias"}
    with pytest.raises(InputError, match=r"the state dict: .*1 keys are missing \(depth_head\.norm\.bias\)"):
        load_state(model, state)
    assert torch.equal(model.plucker_ln.weight, before)


def test_other_shapes_are_refused():
    state = MoVieS(SMALL).state_dict()
    state["depth_head.norm.bias"] = torch.zeros(3)
    with pytest.raises(InputError, match=r"depth_head.norm.bias: \[3\], the model has \[32\]\); build the model with"):
        load_state(MoVieS(SMALL), state)


def test_unknown_source_lists_the_known():
    with pytest.raises(InputError, match="unknown source 'dino': choose one of vggt, movies, own"):
        load_state(VGGT(SMALL), {}, source="dino")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_unreadable_files_give_one_line(tmp_path, suffix):
    text = tmp_path / f"text{suffix}"
    text.write_text("<html>not found</html>")
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    state = VGGT(SMALL).state_dict()
    save_file(state, whole) if suffix == ".safetensors" else torch.save(state, whole)
    cut.write_bytes(whole.read_bytes()[:-1000])
    for path in (text, cut):
        with pytest.raises(InputError, match=rf"{path.name}: not a readable weights file .*fetch it again") as error:
            load_state(VGGT(SMALL), path)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such weights file"):
        load_state(VGGT(SMALL), tmp_path / f"none{suffix}")
    assert len(load_state(VGGT(SMALL), whole).matched) == len(state)


def test_file_of_another_model_is_named(tmp_path):
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "resnet.safetensors")
    with pytest.raises(InputError, match=r"resnet.safetensors: this is no checkpoint of VGGT or MoVieS.*fc\.weight"):
        load_state(VGGT(SMALL), tmp_path / "resnet.safetensors", source="vggt")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('pickled code ran')",))


def test_no_pickled_code_is_run(tmp_path):
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(InputError, match=r"bomb\.pt: not a readable weights file"):
        load_state(VGGT(SMALL), tmp_path / "bomb.pt")


def test_pt_of_more_than_tensors_is_refused(tmp_path):
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "nested.pt")
    with pytest.raises(InputError, match="holds no flat dictionary of tensors"):
        load_state(VGGT(SMALL), tmp_path / "nested.pt")


@pytest.mark.parametrize("model_class", [MoVieS, VGGT])
def test_own_files_bring_config_and_weights_back(tmp_path, model_class):
    model = model_class(SMALL)
    save_weights(model, tmp_path / "own.safetensors")
    again = model_class.from_pretrained(tmp_path / "own.safetensors")
    assert again.config == SMALL and not again.training
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in again.parameters())


def test_half_precision_files_are_half_as_large_and_load_as_float32(tmp_path):
    model = MoVieS(SMALL)
    model.round_times = True
    save_weights(model, tmp_path / "half.safetensors", dtype=torch.float16)
    again = load_weights(MoVieS, tmp_path / "half.safetensors")
    assert again.round_times
    torch.testing.assert_close(again.encoder.pos_embed, model.encoder.pos_embed, rtol=1e-3, atol=1e-5)
    assert again.encoder.pos_embed.dtype == torch.float32
    assert (tmp_path / "half.safetensors").stat().st_size < 2.5 * sum(p.numel() for p in model.parameters())


def test_rounded_times_are_embedded_as_bf16_holds_them():
    model = MoVieS(SMALL)
    times = torch.tensor([[0.0, 0.3, 1.0]])
    plain = model.embed_times(times.bfloat16().float())
    model.round_times = True
    assert torch.equal(model.embed_times(times), plain)


def test_own_file_of_the_other_network_is_refused(tmp_path):
    save_weights(VGGT(SMALL), tmp_path / "vggt.safetensors")
    with pytest.raises(InputError, match="holds weights of VGGT, not of MoVieS"):
        MoVieS.from_pretrained(tmp_path / "vggt.safetensors")


def test_unknown_names_are_refused(monkeypatch):
    with pytest.raises(InputError, match=r"no weights named 'nothing\.safetensors': give `tiny`"):
        MoVieS.from_pretrained("nothing.safetensors")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"owner/name: hub ids need huggingface_hub; run `pip install movies\[hub\]`"):
        MoVieS.from_pretrained("owner/name")


def test_unreadable_metadata_names_the_file(tmp_path):
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match=r"text.safetensors: not a readable weights file"):
        MoVieS.from_pretrained(tmp_path / "text.safetensors")


# --- published files: static stage, other precisions, and what is refused


@pytest.fixture
def small_published(monkeypatch):
    """Published files are taken to be of the size of SMALL."""
    monkeypatch.setattr(ModelConfig, "preset", staticmethod(lambda name: SMALL))


def published_state(model_class=MoVieS, config: ModelConfig = SMALL) -> dict[str, torch.Tensor]:
    """A state as the published files have it: the outer prefix, and the keys that are left."""
    torch.manual_seed(0)
    prefix, part = ("backbone.", "encoder.") if model_class is MoVieS else ("", "aggregator.patch_embed.")
    state = {prefix + k: v.detach().clone() for k, v in model_class(config).state_dict().items()}
    return state | {f"{prefix}{part}mask_token": torch.zeros(1, config.embed_dim)}


def test_static_stage_loads_into_a_network_where_nothing_moves(tmp_path, small_published):
    state = published_state(config=replace(SMALL, static=True))
    save_file(state, tmp_path / "static.safetensors")
    model = MoVieS.from_pretrained(tmp_path / "static.safetensors")
    assert model.config.static and not any(k.startswith("motion") for k in model.state_dict())
    cameras = Cameras(torch.eye(4).expand(1, 2, 4, 4), torch.tensor([1.0, 1.0, 0.5, 0.5]).expand(1, 2, 4))
    times = torch.tensor([[0.0, 1.0]])
    with torch.no_grad():
        splats = model(torch.rand(1, 2, 3, 28, 28), cameras, times, torch.tensor([[0.0, 0.5, 1.0]]))
    assert splats.motion.shape == (1, 3, 2, 28, 28, 3) and not splats.motion.any() and not splats.moving.any()
    assert len(splats.to_scene().moving) == 0 and len(splats.to_scene().static) > 0
    save_weights(model, tmp_path / "own.safetensors")
    assert MoVieS.from_pretrained(tmp_path / "own.safetensors").config == model.config


def test_static_layout_is_the_published_one(published):
    with torch.device("meta"):
        model = MoVieS(replace(ModelConfig.preset("vggt-1b"), static=True))
    shapes = {
        own: tuple(published["movies_static"][k]) for own, k in own_names(published["movies_static"], "movies").items()
    }
    report = compare(shapes, model, "movies")
    assert not report.missing and not report.unexpected and not report.mismatched
    assert len(report.matched) + len(report.unused) == 1344


def test_a_vggt_without_points_leaves_the_point_head(published):
    with torch.device("meta"):
        model = VGGT(ModelConfig.preset("vggt-1b"), points=False)
    report = compare({k: tuple(s) for k, s in published["vggt"].items()}, model, "vggt")
    assert not report.missing and not report.unexpected and not report.mismatched
    assert len([k for k in report.unused if k.startswith("point_head.")]) == 62


def test_meta_tensors_are_accepted(published):
    report = load_state(on_meta(MoVieS), empty_state(published["movies"]), source="movies")
    assert len(report.matched) == 1477


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("model_class", [MoVieS, VGGT])
def test_published_files_load(tmp_path, small_published, suffix, model_class):
    state, path = published_state(model_class), tmp_path / f"published{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = model_class.from_pretrained(path)
    assert getattr(model, "round_times", True)  # MoVieS was trained with rounded times
    prefix = "backbone." if model_class is MoVieS else ""
    assert all(torch.equal(v, state[prefix + k]) for k, v in model.state_dict().items())


def test_bf16_holds_products_in_bf16_and_the_rest_in_float32(tmp_path):
    save_weights(MoVieS(SMALL), tmp_path / "own.safetensors")
    model = MoVieS.from_pretrained(tmp_path / "own.safetensors", dtype=torch.bfloat16)
    dtypes = {k: v.dtype for k, v in model.state_dict().items()}
    halves = [k for k, dtype in dtypes.items() if dtype == torch.bfloat16]
    assert "encoder.blocks.0.mlp.fc1.weight" in halves and "splat_head.scratch.output_conv1.weight" in halves
    for kept in ("plucker_embed.net.weight", "backbone.time_embed.weight", "encoder.pos_embed", "plucker_ln.weight"):
        assert dtypes[kept] == torch.float32
    save_weights(model, tmp_path / "half.safetensors", torch.bfloat16)
    again = MoVieS.from_pretrained(tmp_path / "half.safetensors", dtype=torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("model_class", [MoVieS, VGGT])
def test_weights_held_in_bf16_compute_what_autocast_does(tmp_path, model_class):
    """Autocast rounds the same weights at every product; held in bf16 they are rounded once."""
    torch.manual_seed(1)
    save_weights(model_class(SMALL), tmp_path / "own.safetensors")
    half = model_class.from_pretrained(tmp_path / "own.safetensors", dtype=torch.bfloat16)
    full = model_class.from_pretrained(tmp_path / "own.safetensors")
    images = torch.rand(1, 2, 3, 28, 28)
    cameras = Cameras(torch.eye(4).expand(1, 2, 4, 4), torch.tensor([1.0, 1.0, 0.5, 0.5]).expand(1, 2, 4))
    times = torch.tensor([[0.0, 1.0]])
    inputs = (images, cameras, times, times) if model_class is MoVieS else (images,)
    with torch.no_grad():
        a = half(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            b = full(*inputs)
    assert a.depth.dtype == torch.float32
    torch.testing.assert_close(a.depth, b.depth, rtol=2e-2, atol=0)  # the heads' folded matrices are rounded twice


def test_rounded_times_are_bit_for_bit_those_of_bf16(tmp_path, small_published):
    """What published weights were trained with: sin and cos of bf16(t) 2^k, in context and target times alike."""
    save_file(published_state(), tmp_path / "published.safetensors")
    model = MoVieS.from_pretrained(tmp_path / "published.safetensors")
    times = torch.linspace(0, 1, 13)
    rounded = times.to(torch.bfloat16).to(torch.float32)
    assert not torch.equal(rounded, times)
    angles = rounded[:, None] * 2.0 ** torch.arange(10)
    assert torch.equal(model.embed_times(times), torch.cat([angles.sin(), angles.cos()], dim=-1))
    save_weights(model, tmp_path / "own.safetensors")
    assert MoVieS.from_pretrained(tmp_path / "own.safetensors").round_times


def test_what_published_files_are_refused_for(tmp_path, small_published):
    whole, path = published_state(), tmp_path / "a.safetensors"
    name = "backbone.backbone.frame_blocks.1.mlp.fc1.weight"
    bad = whole[name].clone()
    bad[3, 4] = torch.nan
    lora = {"base_model.model.layers.0.q_proj.lora_A.weight": torch.zeros(4, 4)}
    cases = [
        (
            whole | {name: torch.zeros(64, 17)},
            r"1 have other shapes \(backbone\.frame_blocks\.1\.mlp\.fc1\.weight: \[64, 17\]",
        ),
        (
            {k: v for k, v in whole.items() if k != name},
            r"1 keys are missing \(backbone\.frame_blocks\.1\.mlp\.fc1\.weight\)",
        ),
        (whole | {name: bad}, r"backbone\.frame_blocks\.1\.mlp\.fc1\.weight holds 1 numbers that are NaN or infinite"),
        (lora, r"this is a LoRA or other adapter \(keys base_model"),
        ({"unet.conv.weight": torch.zeros(2, 2)}, r"no checkpoint of VGGT or MoVieS \(keys unet\.conv\.weight\)"),
    ]
    for state, message in cases:
        save_file(state, path)
        with pytest.raises(InputError, match=message) as error:
            MoVieS.from_pretrained(path)
        assert "\n" not in str(error.value) and "a.safetensors" in str(error.value)
    save_file(published_state(VGGT), path)
    with pytest.raises(InputError, match="holds weights of VGGT, not of MoVieS; give the other network's file"):
        MoVieS.from_pretrained(path)


def test_nan_changes_nothing():
    model = MoVieS(SMALL)
    before = model.plucker_embed.net.weight.clone()
    state = {k: v + 1 for k, v in model.state_dict().items()}
    state["depth_head.norm.bias"][0] = torch.inf
    with pytest.raises(InputError, match=r"depth_head\.norm\.bias holds 1 numbers"):
        load_state(model, state)
    assert torch.equal(model.plucker_embed.net.weight, before)


# --- the table, converting, and the hub


def test_the_table_accounts_for_every_key(tmp_path, small_published):
    state = published_state() | {"backbone.surprise": torch.zeros(2)}
    del state["backbone.depth_head.norm.bias"]
    save_file(state, tmp_path / "a.safetensors")
    table = inspect_weights(tmp_path / "a.safetensors")
    assert "a MoVieS checkpoint, recognised by its keys" in table
    assert "missing: depth_head.norm.bias" in table and "unexpected: surprise" in table
    assert "unused on purpose: encoder.mask_token" in table and "would be refused" in table
    total = next(line for line in table.splitlines() if line.startswith("all ")).split()
    assert int(total[1]) == len(state) and total[3:7] == ["1", "1", "-", "1"]
    numbers = sum(v.numel() for v in state.values())
    assert total[7:] == [f"{numbers:,}", "float32", f"{4 * numbers:,}"]


def test_convert_recognises_the_network(tmp_path, small_published):
    for model_class, name in ((MoVieS, "MoVieS"), (VGGT, "VGGT")):
        save_file(published_state(model_class), tmp_path / "a.safetensors")
        assert f": {name}, " in convert_weights(tmp_path / "a.safetensors", tmp_path / "own.safetensors", "bf16")
        assert "our own file" in inspect_weights(tmp_path / "own.safetensors")
        assert model_class.from_pretrained(tmp_path / "own.safetensors").config == SMALL
    with pytest.raises(InputError, match=r"written as \.safetensors"):
        convert_weights(tmp_path / "a.safetensors", tmp_path / "own.pt")


def fake_hub(monkeypatch, answer) -> None:
    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = answer
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_hub_ids_name_their_file_and_the_mend(tmp_path, monkeypatch, small_published):
    save_file(published_state(), tmp_path / "movies_ckpt.safetensors")
    fake_hub(monkeypatch, lambda repository, file, **_: str(tmp_path / file))
    assert MoVieS.from_pretrained("chenguolin/MoVieS").round_times

    def offline(repository, file, **_):
        raise OSError("no network\nmore")

    fake_hub(monkeypatch, offline)
    with pytest.raises(InputError, match=r"from the hub \(no network\); put its file movies_ckpt\.safetensors at chen"):
        MoVieS.from_pretrained("chenguolin/MoVieS")
    with pytest.raises(InputError, match=r"put its file model\.safetensors at facebook/VGGT-1B/model\.safetensors"):
        VGGT.from_pretrained("facebook/VGGT-1B")


def test_a_folder_in_the_place_of_a_hub_id(tmp_path, monkeypatch, small_published):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "chenguolin" / "MoVieS"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"the folder holds no movies_ckpt\.safetensors; give the file itself"):
        MoVieS.from_pretrained("chenguolin/MoVieS")
    save_file(published_state(), folder / "movies_ckpt.safetensors")
    assert MoVieS.from_pretrained("chenguolin/MoVieS").config == SMALL


def test_random_checkpoints_have_the_published_layout(tmp_path, published):
    spec = importlib.util.spec_from_file_location("tool", DATA.parents[1] / "tools" / "make_random_checkpoint.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert {k: list(v) for k, v in tool.layout("movies").items()} == published["movies"]
    shapes = {k: tuple(v.shape) for k, v in published_state().items()}
    size = tool.write_checkpoint(tmp_path / "a.safetensors", shapes, "bf16", 0)
    file = read_header(tmp_path / "a.safetensors")
    assert size == file.path.stat().st_size and {k: e.shape for k, e in file.entries.items()} == shapes
    assert all(tensor.isfinite().all() for _, tensor in file.tensors(shapes))


def test_a_folder_called_tiny_does_not_hide_the_bundled_weights(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("MoVieS", "tiny").name == "movies_tiny.safetensors"
    with pytest.raises(InputError, match="the folder holds no model"):
        locate("MoVieS", "./tiny")
