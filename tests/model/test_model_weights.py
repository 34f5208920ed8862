"""Checkpoints in and out: complete, or one line that says what is wrong."""

import gzip
import json
import sys

import pytest
import torch
from goldens import DATA
from safetensors.torch import save_file

from movies.errors import InputError
from movies.model.config import ModelConfig
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import compare, load_state, load_weights, own_names, save_weights

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
