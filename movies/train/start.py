"""What a stage starts from: random weights, an earlier stage's, or a file's or repository's, converted where needed."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from movies.d4rt.config import D4RTConfig
from movies.d4rt.from_vggt import load_vggt
from movies.d4rt.network import D4RT
from movies.d4rt.videomae import load_videomae
from movies.data.manifest import Manifest
from movies.errors import InputError
from movies.model.hub import locate
from movies.model.initialise import resize_patch
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.model.weights import CONFIGS, read_metadata, recognise
from movies.train.checkpoint import latest_checkpoint
from movies.train.stage import Stage, StageFile

FINAL = "model.safetensors"


def start_model(stage: Stage, out: Path) -> nn.Module:
    """The network a stage starts from. Raises InputError where the weights are of another size than its preset."""
    if stage.init == "random":
        return stage.build()
    path = init_path(stage, out)
    if stage.network == "d4rt":
        return start_d4rt(stage, path)
    model = load_network(path)
    if isinstance(model, VGGT) and stage.network == "movies":
        model = MoVieS.from_vggt(model)
        nn.init.constant_(model.plucker_ln.weight, stage.model.ray_gain)
    elif isinstance(model, MoVieS) and stage.network == "vggt":
        model = VGGT.from_movies(model)
    if stage.network == "movies" and model.config.static != stage.model.static:
        model = _without_motion(model) if stage.model.static else _with_motion(model, stage.model.motion_from)
    if model.config.patch_size != stage.model.patch_size:
        model = resize_patch(model, stage.model.patch_size)
    _check_size(stage, model, path)
    return model


def load_network(path: Path) -> nn.Module:
    """A VGGT, a MoVieS or a D4RT of ours, whichever the file holds."""
    found = recognise(path, CONFIGS | {"D4RT": D4RTConfig})
    return found.load({"VGGT": VGGT, "MoVieS": MoVieS, "D4RT": D4RT}[found.network])


def start_d4rt(stage: Stage, path: Path) -> D4RT:
    """Of an earlier stage, or with the encoder of a VideoMAE or the trunk of a VGGT.

    Raises InputError for weights of another size.
    """
    if not read_metadata(path).get("model"):
        model = stage.build()
        load_videomae(model.encoder, path)
        return model
    model = load_network(path)
    if isinstance(model, VGGT):
        fresh = stage.build()
        load_vggt(fresh.encoder, resize_patch(model, fresh.config.patch_size))
        return fresh
    if model.config != stage.model_config_():
        raise InputError(
            f"{path}: these weights are {model.config}, `model` of stage {stage.name} is {stage.model_config_()}"
        )
    return model


def _without_motion(model: MoVieS) -> MoVieS:
    """The network of the static stage: what of a MoVieS does not depend on time."""
    static = MoVieS(replace(model.config, static=True))
    whole = model.state_dict()
    static.load_state_dict({name: whole[name] for name in static.state_dict()})
    return static


def _with_motion(static: MoVieS, motion_from: str) -> MoVieS:
    """A network after the static stage gets its motion heads: VGGT's point head, and moving splats like still ones."""
    vggt = load_network(locate("VGGT", motion_from))
    if not isinstance(vggt, VGGT) or not hasattr(vggt, "point_head"):
        raise InputError(f"`model.motion_from` = {motion_from!r} must name a VGGT with its point head")
    model = MoVieS.from_vggt(vggt)
    model.load_state_dict(static.state_dict(), strict=False)  # all but what the static network does not have
    return model


def _check_size(stage: Stage, model: nn.Module, path: Path) -> None:
    own, wanted = model.config, stage.model_config_()
    for name in ("embed_dim", "vit_depth", "aa_depth", "dpt_features"):
        if getattr(own, name) != getattr(wanted, name):
            raise InputError(
                f"{path}: {name} is {getattr(own, name)}, `model.preset` = {stage.model.preset!r} of stage "
                f"{stage.name} has {getattr(wanted, name)}; give weights of that size, or their preset"
            )


def init_path(stage: Stage, out: Path) -> Path:
    """The weights file that `init` names: a path, a repository `owner/name` of the hub, or a stage's in OUT."""
    if stage.init.endswith(".safetensors"):
        return Path(stage.init)
    if "/" in stage.init:
        return locate("VGGT", stage.init)
    return out / stage.init / FINAL


def check_out(stages: list[StageFile], out: Path, resume: bool) -> None:
    """Refuse to mix two runs in one folder, and stages whose beginning is nowhere."""
    known = ["random"]
    for file in stages:
        stage = file.stage
        if not resume and (latest_checkpoint(out / stage.name) or (out / stage.name / FINAL).exists()):
            raise InputError(f"{out / stage.name}: holds a run already; give --resume to go on, or another --out")
        if stage.init not in known and not init_path(stage, out).exists():
            raise InputError(
                f"{file.path}: `init` = {stage.init!r} is neither an earlier stage ({', '.join(known)}) nor a "
                f".safetensors file that exists"
            )
        known.append(stage.name)


def check_data(stages: list[StageFile]) -> None:
    """Raises InputError, before anything is loaded, for datasets that are not on this machine."""
    for file in stages:
        for key, manifests in (("train", file.train), ("validation", file.validation)):
            for manifest, _ in manifests:
                if reason := absence(manifest):
                    raise InputError(f"{file.path}: `data.{key}`: {reason}")


def absence(manifest: Manifest) -> str:
    """Why a dataset cannot be read here; empty where it can."""
    try:
        root = manifest.identity()["root"]
    except InputError as error:
        return str(error)
    if root and not Path(root).exists():
        return f"manifest {manifest.name!r}: `root` = {root!r} is not there; fetch the data, or correct the root"
    return ""


def choose_device(name: str) -> torch.device:
    """CUDA where it is, for "auto"."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
