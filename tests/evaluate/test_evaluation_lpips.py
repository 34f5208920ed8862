"""`--lpips FILE` from the command line: what it adds to a report, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_protocols import predict, root_of, unchanged

from movies import cli
from movies.evaluate.cases import Case
from movies.evaluate.predictions import Prediction
from movies.evaluate.protocol import FOLDER, load_protocol
from movies.objective import load_lpips
from movies.perceptual import LPIPS


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Random weights of both networks."""
    folder, paths = tmp_path_factory.mktemp("lpips"), {}
    for network in ("alex", "vgg"):
        torch.manual_seed(0)
        state = {k: w.abs() if k.startswith("lin") else w for k, w in LPIPS(network).state_dict().items()}
        paths[network] = str(folder / f"{network}.safetensors")
        save_file(state, paths[network])
    return paths


@pytest.fixture(scope="module")
def protocol(tmp_path_factory) -> str:
    """DyCheck's, with one short scene, enlarged to what AlexNet needs."""
    path = tmp_path_factory.mktemp("protocol") / "mine.toml"
    kept = [x for x in (FOLDER / "dycheck.toml").read_text().splitlines() if not x.startswith(("scenes", "frames"))]
    frames = 'frames = { context = 2, clip = 3, limit = 3, targets = "held_out" }'
    path.write_text("\n".join([*kept, 'scenes = ["apple"]', frames, "image_size = [48, 64]"]))
    return str(path)


def run(protocol: str, data: Path, folder: Path, *options: str, change=unchanged) -> int:
    predict(folder, load_protocol(protocol), root_of(data, "dycheck"), change)
    arguments = ("--data", root_of(data, "dycheck"), "--predictions", str(folder), "--out", str(folder / "out"))
    return cli.main(["evaluate", "file", protocol, *arguments, *options])


def mean_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "out/report.json").read_text())["mean"]


def test_equal_pictures_are_no_distance_apart(protocol, files, data, tmp_path, capsys):
    assert run(protocol, data, tmp_path, "--lpips", files["alex"]) == 0
    assert mean_of(tmp_path)["lpips_alex"] == mean_of(tmp_path)["mlpips_alex"] == 0
    assert "| mlpips_alex ↓" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out/report.json").read_text())["protocol"]["lpips"]) == 64
    assert run(protocol, data, tmp_path) == 2  # the folder's run had weights
    assert "holds a run with protocol.lpips = " in capsys.readouterr().err


def test_the_mask_hides_what_is_outside_of_it_alone(protocol, files, data, tmp_path):
    def outside(prediction: Prediction, case: Case) -> Prediction:
        return replace(prediction, images=prediction.images * case.target_mask[:, None])

    assert run(protocol, data, tmp_path / "a", "--lpips", files["alex"], change=outside) == 0
    assert mean_of(tmp_path / "a")["lpips_alex"] > 1e-4 and mean_of(tmp_path / "a")["mlpips_alex"] == 0

    lpips, expected = load_lpips((files["alex"],), "alex"), []

    def black(prediction: Prediction, case: Case) -> Prediction:
        truth = case.target.images * case.target_mask[:, None]  # [T, 3, H, W]
        maps = lpips.distance_map(torch.zeros_like(truth), truth)
        expected.extend(m[mask].mean().item() for m, mask in zip(maps, case.target_mask, strict=True))
        return replace(prediction, images=torch.zeros_like(truth))

    assert run(protocol, data, tmp_path / "b", "--lpips", files["alex"], change=black) == 0
    wanted = sum(expected) / len(expected)
    # pictures are scored in 8-bit steps
    assert mean_of(tmp_path / "b")["mlpips_alex"] == pytest.approx(wanted, rel=1e-2) and wanted > 1e-3


def test_networks_and_files_that_do_not_fit_are_refused(protocol, files, data, tmp_path, capsys):
    text, half = tmp_path / "notes.txt", tmp_path / "alexnet.safetensors"
    text.write_text("no weights")
    save_file({k: w for k, w in load_file(files["alex"]).items() if k.startswith("features")}, half)
    refused = {
        "none.pth": "none.pth: no such weights file",
        str(text): "notes.txt: ",
        str(half): "alexnet.safetensors: LPIPS needs lin0.model.1.weight, ",
        files["vgg"]: "features.6.bias and 2 more: give torchvision's alexnet and the linear layers of LPIPS for alex",
    }
    for file, message in refused.items():
        assert run(protocol, data, tmp_path, "--lpips", file) == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1
    sintel = ["evaluate", "sintel", "--scenes", "alley_2", "--data", root_of(data, "sintel"), "--lpips", files["vgg"]]
    assert cli.main(sintel) == 2
    assert capsys.readouterr().err == "error: sintel does not score LPIPS; leave --lpips out\n"
    assert not (tmp_path / "out").exists()
