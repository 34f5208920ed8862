"""Stage: one step of the curriculum, read from a TOML file and checked whole before anything is loaded."""

import copy
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from torch import nn

from movies.d4rt.config import PRESETS as D4RT_PRESETS
from movies.d4rt.config import D4RTConfig
from movies.d4rt.network import D4RT
from movies.d4rt.objective import D4RTObjective, D4RTObjectiveConfig
from movies.data.buckets import Buckets
from movies.data.dataset import ClipConfig
from movies.data.manifest import Manifest, load_mix
from movies.data.sampling import SamplingConfig
from movies.data.toml_files import Section, read_toml
from movies.errors import InputError
from movies.model.config import PRESETS, ModelConfig
from movies.model.network import MoVieS
from movies.model.vggt import VGGT
from movies.objective import MoviesObjective, MoviesObjectiveConfig, VGGTObjective, VGGTObjectiveConfig, make_objective
from movies.train.engine import STRATEGIES
from movies.train.optim import group_multipliers

NETWORKS = {"movies": MoVieS, "vggt": VGGT, "d4rt": D4RT}
OBJECTIVES = {"movies": MoviesObjectiveConfig, "vggt": VGGTObjectiveConfig, "d4rt": D4RTObjectiveConfig}


class ModelSection(Section):
    """The network's sizes. `checkpointing` trades time for memory.

    `ray_gain` is what the ray embedding counts when a MoVieS starts from a VGGT: 0 disturbs nothing, as published
    weights want it; after a short pretraining it would stay at a hundredth of the patches and cameras go unseen.
    `static` is the network of the static stage, without times and motion; the stage after it names in `motion_from`
    the VGGT (a file, or `owner/name` of the hub) whose point head becomes the motion head. `rgb_patch` is the side of
    the colour patch of D4RT's queries, 0 for none.
    """

    preset: str
    patch_size: int = Field(14, ge=1)
    checkpointing: bool = False
    ray_gain: float = Field(0.0, ge=0)
    static: bool = False
    motion_from: str = ""
    rgb_patch: int = Field(9, ge=0)


class Source(Section):
    """A manifest or a mix, relative to the stage file; `repeats` replaces those it names itself (0: as they are)."""

    manifest: str
    repeats: int = Field(0, ge=0)


class DataSection(Section):
    """What clips are made of. `views` (context views) and `aspect` (width / height) are drawn for each step.

    The longer side has `image_size` pixels. `images_per_device` bounds the context views a device takes at once (0: no
    bound): batches over it are taken in parts. `video_augmentation` is D4RT's, in place of `min_crop` and `jitter`.
    `max_broken_rate` is the share of broken samples training puts up with.
    """

    train: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[Source, ...] = ()
    image_size: int = Field(ge=1)
    views: tuple[int, int]
    aspect: tuple[float, float] = (1.0, 1.0)
    images_per_device: int = Field(0, ge=0)
    targets: int = Field(ge=0)
    gap: tuple[int, int] = (1, 5)
    clips_per_sequence: int = Field(1, ge=1)
    min_crop: float = Field(1.0, gt=0, le=1)
    jitter: float = Field(0.0, ge=0, lt=1)
    video_augmentation: bool = False
    workers: int = Field(1, ge=0)
    max_broken_rate: float = Field(0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _ranges(self) -> "DataSection":
        for name, (low, high) in (("views", self.views), ("gap", self.gap)):
            if not 1 <= low <= high:
                raise ValueError(f"`{name}` must be [smallest, largest] with 1 <= smallest <= largest, got {low, high}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"`aspect` must be [smallest, largest] with 0 < smallest <= largest, got {self.aspect}")
        return self

    def clip_config(self) -> ClipConfig:
        changes = (self.min_crop, self.jitter, self.video_augmentation)
        return ClipConfig(SamplingConfig(self.targets, self.gap), self.clips_per_sequence, *changes)

    def buckets(self, patch_size: int) -> Buckets:
        return Buckets(self.views, self.image_size, self.aspect, patch_size, self.images_per_device)


class Group(Section):
    """Parameters whose name matches the regular expression learn at `multiplier` times the rate; 0 freezes them."""

    pattern: str
    multiplier: float = Field(ge=0)


class OptimSection(Section):
    """AdamW under a linear warm-up and a cosine; `ema` 0 keeps no moving average of the weights.

    A step is `batch_size` clips times `accumulation` on each process. With `global_batch` it is that many clips in all,
    and the accumulation follows from how many processes there are.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    accumulation: int = Field(1, ge=1)
    global_batch: int = Field(0, ge=0)
    lr: float = Field(gt=0)
    groups: tuple[Group, ...] = ()
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = Field(0, ge=0)
    final_lr: float = Field(0.0, ge=0, le=1)
    clip: float = Field(1.0, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    ema: float = Field(0.0, ge=0, lt=1)


class EngineSection(Section):
    """Who trains: "single", "ddp", "zero1", "zero2", "zero3", or "auto": what the launcher was told.

    `processes` is how many GPUs the recipe is meant for, which plans assume.
    """

    strategy: Literal[STRATEGIES] = "auto"
    processes: int = Field(1, ge=1)


class ScheduleSection(Section):
    """How often things happen, in steps."""

    validate_every: int = Field(500, ge=1)
    validation_batches: int = Field(4, ge=1)
    log_every: int = Field(10, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    keep_checkpoints: int = Field(2, ge=1)


class Stage(Section):
    """One stage. `init` is "random", the name of an earlier stage, or a weights file; [loss] depends on `network`."""

    name: str = ""
    network: Literal[tuple(NETWORKS)]
    init: str
    seed: int = Field(0, ge=0)
    model: ModelSection
    data: DataSection
    optim: OptimSection
    engine: EngineSection = EngineSection()
    loss: dict[str, Any] = Field({})
    schedule: ScheduleSection = ScheduleSection()

    @model_validator(mode="after")
    def _agree(self) -> "Stage":
        legal = D4RT_PRESETS if self.network == "d4rt" else PRESETS
        if self.model.preset not in legal:
            raise ValueError(f"`model.preset` = {self.model.preset!r}: those of {self.network} are {', '.join(legal)}")
        for views in self.data.views:
            self.data.buckets(1).clips_at_once(views, self.optim.batch_size, self.data.clips_per_sequence)
        if self.data.image_size % self.model.patch_size:
            raise ValueError(
                f"`data.image_size` {self.data.image_size} must be a multiple of `model.patch_size` "
                f"{self.model.patch_size}"
            )
        if self.optim.global_batch and self.optim.accumulation > 1:
            raise ValueError("`optim.accumulation` follows from `optim.global_batch`: leave one of the two out")
        if self.network != "movies" and (self.model.static or self.model.motion_from):
            raise ValueError("`model.static` and `model.motion_from` are for `network` = 'movies'")
        if self.network == "movies" and not self.data.targets:
            raise ValueError("`data.targets` of a MoVieS stage must be at least 1")
        self._check_frames(self.model_config_())
        self.objective_config()
        return self

    def _check_frames(self, config: ModelConfig | D4RTConfig) -> None:
        known = getattr(config, "num_frames", self.data.views[1])
        if self.data.views[1] > known:
            raise ValueError(f"`data.views`: the preset {self.model.preset!r} of d4rt reads at most {known} frames")

    def objective(self) -> MoviesObjective | VGGTObjective | D4RTObjective:
        """What the stage minimises."""
        config = self.objective_config()
        return D4RTObjective(config) if isinstance(config, D4RTObjectiveConfig) else make_objective(config)

    def objective_config(self) -> MoviesObjectiveConfig | VGGTObjectiveConfig | D4RTObjectiveConfig:
        """The typed form of [loss]."""
        config = OBJECTIVES[self.network]
        legal = [field.name for field in fields(config)]
        unknown = [key for key in self.loss if key not in legal]
        if unknown:
            raise ValueError(f"unknown key `loss.{unknown[0]}`; legal keys for {self.network} are {', '.join(legal)}")
        try:
            return TypeAdapter(config).validate_python(self.loss)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"`loss.{first['loc'][0]}` = {first['input']!r}: {first['msg'].lower()}") from error

    def model_config_(self) -> ModelConfig | D4RTConfig:
        """Sizes of the network. Raises InputError for a preset of another one."""
        if self.network == "d4rt":
            sizes = {"image_size": self.data.image_size, "patch_size": self.model.patch_size}
            return replace(D4RTConfig.preset(self.model.preset), **sizes, rgb_patch=self.model.rgb_patch)
        config = ModelConfig.preset(self.model.preset).with_patch_size(self.model.patch_size)
        return replace(config, static=self.model.static)

    def build(self) -> nn.Module:
        """The stage's network with random weights."""
        return NETWORKS[self.network](self.model_config_())

    def with_steps(self, steps: int | None) -> "Stage":
        """At most `steps` steps, the schedule shortened with them."""
        if steps is None or steps >= self.optim.steps:
            return self
        return self._with_optim(steps=steps)

    def for_processes(self, processes: int) -> "Stage":
        """With the accumulation that makes `optim.global_batch` of so many processes.

        Raises InputError where it does not divide.
        """
        whole, once = self.optim.global_batch, self.optim.batch_size * processes
        if whole % once:
            raise InputError(
                f"`optim.global_batch` = {whole} must be a multiple of `optim.batch_size` x processes = "
                f"{self.optim.batch_size} x {processes}; change one of the three"
            )
        return self._with_optim(accumulation=whole // once) if whole else self

    def _with_optim(self, **changed) -> "Stage":
        return self.model_copy(update={"optim": self.optim.model_copy(update=changed)})


class StageFile:
    """A stage with the file it came from and its manifests, everything checked."""

    def __init__(self, path: str | Path, max_steps: int | None = None) -> None:
        self.path = Path(path)
        stage = read_toml(self.path, Stage).with_steps(max_steps)
        self.stage = stage.model_copy(update={"name": stage.name or self.path.stem})
        self.train = self._manifests(self.stage.data.train)
        self.validation = self._manifests(self.stage.data.validation)
        for weights in getattr(self.stage.objective_config(), "lpips_weights", ()):
            if not Path(weights).is_file():
                raise InputError(f"{self.path}: `loss.lpips_weights` names {weights}: no such file")
        self.group_sizes()
        self.for_processes(self.stage.engine.processes)

    @cached_property
    def skeleton(self) -> nn.Module:
        """The network without memory: names and shapes of its parameters."""
        with torch.device("meta"):
            return self.stage.build()

    def for_processes(self, processes: int) -> "StageFile":
        """The same for so many processes. Raises InputError where the batch does not divide."""
        other = copy.copy(self)
        try:
            other.stage = self.stage.for_processes(processes)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        return other

    def group_sizes(self) -> dict[float, int]:
        """How many parameters learn at each multiplier of the rate."""
        parameters = dict(self.skeleton.named_parameters())
        sizes: dict[float, int] = {}
        for name, multiplier in group_multipliers(list(parameters), self._groups(), str(self.path)).items():
            sizes[multiplier] = sizes.get(multiplier, 0) + parameters[name].numel()
        return sizes

    def _groups(self) -> list[tuple[str, float]]:
        return [(group.pattern, group.multiplier) for group in self.stage.optim.groups]

    def _manifests(self, sources: tuple[Source, ...]) -> list[tuple[Manifest, int]]:
        loaded = [(load_mix(self.path.parent / source.manifest), source.repeats) for source in sources]
        return [(manifest, repeats or manifest.repeats) for manifests, repeats in loaded for manifest in manifests]


def load_stages(path: str | Path, max_steps: int | None = None) -> list[StageFile]:
    """The stage of a file, or those of a folder in the order of their names; all are checked."""
    path = Path(path)
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: a folder of stages needs at least one .toml file")
    stages = [StageFile(file, max_steps) for file in files]
    names = [stage.stage.name for stage in stages]
    if len(set(names)) != len(names):
        raise InputError(f"{path}: two stages have one name: {', '.join(names)}")
    _check_motion(stages)
    return stages


def _check_motion(stages: list[StageFile]) -> None:
    """A stage with motion after a static one needs to be told where its motion heads come from."""
    static = {file.stage.name for file in stages if file.stage.model.static}
    for file in stages:
        model = file.stage.model
        if file.stage.init in static and not model.static and not model.motion_from:
            raise InputError(
                f"{file.path}: `init` = {file.stage.init!r} is a static stage, which has no motion heads; name a VGGT "
                "in `model.motion_from`"
            )
