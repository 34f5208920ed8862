"""The trainer: stages in order, each one loop of batch -> splats -> rendering -> terms -> backward -> step."""

import copy
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from movies.clip import Batch
from movies.data.batching import PlanSampler, make_loader
from movies.data.dataset import ClipDataset, LoadedBatch, check_broken_share
from movies.data.manifest import Manifest
from movies.errors import InputError
from movies.model.initialise import resize_patch
from movies.model.network import MoVieS
from movies.model.vggt import VGGT, VGGTPrediction
from movies.model.weights import load_weights, read_metadata, save_weights
from movies.objective import LossTerms, make_objective
from movies.splats import DynamicSplats
from movies.train.checkpoint import Progress, latest_checkpoint, load_checkpoint, save_checkpoint
from movies.train.optim import make_optimizer, schedule, set_learning_rate
from movies.train.pictures import write_pictures
from movies.train.plan import describe
from movies.train.runlog import RunLog
from movies.train.stage import Stage, StageFile, load_stages

FINAL = "model.safetensors"
MAX_SKIPPED_IN_A_ROW = 10  # steps without a finite gradient before training is given up


def train(
    path: str | Path,
    out: str | Path,
    resume: bool = False,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    checkpoint_every: int | None = None,
    dry_run: bool = False,
    device: str = "auto",
) -> str:
    """Train the stage of a file, or the stages of a folder in the order of their names, each from the one it names.

    Every stage leaves OUT/<stage>/model.safetensors, log.jsonl and checkpoints. `resume` goes on where OUT stands:
    finished stages are passed over, a started one continues from its newest checkpoint. `max_steps` shortens every
    stage (with its schedule); `max_minutes` stops the whole run at a checkpoint. Ctrl-C saves a checkpoint, then
    raises KeyboardInterrupt. Returns what to tell the user. Raises InputError for everything a user did wrong.
    """
    stages = load_stages(path, max_steps)
    if dry_run:
        return describe(stages)
    out = Path(out)
    _check_out(stages, out, resume)
    device = _device(device)
    deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
    with stop_requests() as stop:
        for stage in stages:
            if (out / stage.stage.name / FINAL).exists():
                continue
            run = StageRun(stage, out, device)
            try:
                finished = run.loop(deadline, stop, checkpoint_every or stage.stage.schedule.checkpoint_every)
            finally:
                run.close()
            if stop.is_set():
                raise KeyboardInterrupt
            if not finished:
                return f"stopped in stage {stage.stage.name} at step {run.progress.step}; continue with --resume"
    return f"trained {', '.join(stage.stage.name for stage in stages)} into {out}"


class StageRun:
    """Everything one stage trains with; `loop` trains."""

    def __init__(self, file: StageFile, out: Path, device: torch.device) -> None:
        stage = self.stage = file.stage
        self.folder, self.device = out / stage.name, device
        torch.manual_seed(stage.seed)
        self.model = start_model(stage, out).to(device)
        self.model.set_checkpointing(stage.model.checkpointing)
        self.average = copy.deepcopy(self.model).requires_grad_(False) if stage.optim.ema else None
        optim, groups = stage.optim, [(group.pattern, group.multiplier) for group in stage.optim.groups]
        self.optimizer = make_optimizer(self.model, optim.lr, groups, optim.weight_decay, optim.betas)
        self.objective = make_objective(stage.objective_config())
        self.generators = {"objective": torch.Generator(device).manual_seed(stage.seed)}
        self.progress, self.skipped_in_a_row = Progress(seed=stage.seed), 0
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint:
            self.progress = load_checkpoint(checkpoint, self.model, self.average, self.optimizer, self.generators)
        self.batches = _batches(stage, file.train, self.progress.seed, self.progress.position)
        self.validation = _validation_batches(stage, file.validation)
        self.log = RunLog(self.folder / "log.jsonl", stage.name, self.progress.step, stage.optim.steps)
        self.log.event("start", step=self.progress.step, stage=stage.model_dump(mode="json"))
        if self.objective.config.note:
            self.log.event("note", text=self.objective.config.note)

    def loop(self, deadline: float, stop: threading.Event, checkpoint_every: int) -> bool:
        """Train until the stage is done (True), the deadline passes or a stop is asked for (False); always saved."""
        optim, often = self.stage.optim, self.stage.schedule
        self.model.train()
        while self.progress.step < optim.steps:
            started = time.monotonic()
            factor = schedule(self.progress.step, optim.steps, optim.warmup, optim.final_lr)
            set_learning_rate(self.optimizer, factor)
            ends_step = False
            while not ends_step:
                loaded = self.next_batch()
                terms = self.forward(loaded)
                (terms.total.mean() * loaded.plan.share).backward()
                self.log.add(terms.summary())
                ends_step = loaded.plan.ends_step
            self.update()
            self.advance(time.monotonic() - started)
            step = self.progress.step
            self.log.step(step, often.log_every, optim.lr * factor, optim.batch_size * optim.accumulation)
            if step % often.validate_every == 0 or step == optim.steps:
                self.validate()
            enough = stop.is_set() or time.monotonic() > deadline
            if enough or step % checkpoint_every == 0:
                self.save()
            if enough and step < optim.steps:
                return False
        self.finish()
        return True

    def next_batch(self) -> LoadedBatch:
        """The next batch; clips refused or broken while making it are counted and logged."""
        loaded = next(self.batches)
        rejects, before = loaded.rejects, self.progress
        self.progress = replace(
            before,
            position=before.position + loaded.plan.ends_step,
            drawn=before.drawn + loaded.num_draws,
            refused_clips=before.refused_clips + len(rejects.refused),
            broken_clips=before.broken_clips + len(rejects.broken),
        )
        for kind, found in (("refused", rejects.refused), ("broken", rejects.broken)):
            for name, reason in found:
                self.log.event(kind, step=before.step, name=name, reason=reason)
        if rejects.broken:
            limit = self.stage.data.max_broken_rate
            check_broken_share(self.progress.drawn, self.progress.broken_clips, limit, rejects.broken[-1])
        return loaded

    def forward(self, loaded: LoadedBatch, model: nn.Module | None = None) -> LossTerms:
        """Predict under autocast; render and measure in float32."""
        batch = loaded.batch.to(self.device)
        return self.objective.terms(self.predict(batch, model or self.model), batch, self.generators["objective"])

    def predict(self, batch: Batch, model: nn.Module) -> DynamicSplats | VGGTPrediction:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.stage.optim.precision == "bf16"):
            return self.objective.predict(model, batch)

    def update(self) -> None:
        """One step of the optimiser with clipped gradients; a gradient that is not finite never reaches the weights."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.stage.optim.clip)
        finite = bool(norm.isfinite())
        if finite:
            self.optimizer.step()
            self._update_average()
        else:
            self.log.event("skipped", step=self.progress.step, reason="gradient not finite", where=self._broken())
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        self.optimizer.zero_grad(set_to_none=True)
        self.log.add({"gradient_norm": norm.item()})
        if not finite:
            self.progress = replace(self.progress, skipped_steps=self.progress.skipped_steps + 1)
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise InputError(
                f"{self.stage.name}: {self.skipped_in_a_row} steps in a row without a finite gradient; lower `optim.lr`"
            )

    def _broken(self) -> list[str]:
        named = self.model.named_parameters()
        return [name for name, p in named if p.grad is not None and not p.grad.isfinite().all()][:10]

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is not None:
            weight = 1 - min(self.stage.optim.ema, (1 + self.progress.step) / (10 + self.progress.step))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), weight)

    def advance(self, seconds: float) -> None:
        step, total = self.progress.step + 1, self.progress.seconds + seconds
        self.progress = replace(self.progress, step=step, seconds=total)

    @torch.no_grad()
    def validate(self) -> None:
        """The same terms on held-out clips, with the averaged weights where they are kept."""
        if not self.validation:
            return
        model = self.average if self.average is not None else self.model
        state = self.generators["objective"].get_state()  # validation must not change what training draws
        model.eval()
        summaries = [self.forward(loaded, model).summary() for loaded in self.validation]
        first = self.validation[0].batch.to(self.device)
        sheet = self.folder / "pictures" / f"step-{self.progress.step:08d}.png"
        write_pictures(sheet, self.objective, self.predict(first, model), first)
        model.train()
        self.generators["objective"].set_state(state)
        columns = {name: Tensor([s[name] for s in summaries]).nanmean().item() for name in summaries[0]}
        self.log.event("validation", step=self.progress.step, **{k: round(v, 6) for k, v in columns.items()})

    def save(self) -> None:
        keep = self.stage.schedule.keep_checkpoints
        save_checkpoint(self.folder, self.progress, self.model, self.average, self.optimizer, self.generators, keep)

    def finish(self) -> None:
        """Leave the weights for the next stage and for users."""
        self.save()
        save_weights(self.average if self.average is not None else self.model, self.folder / FINAL)
        self.log.event("finished", step=self.progress.step, seconds=round(self.progress.seconds, 1))

    def close(self) -> None:
        self.log.close()
        del self.batches  # ends the loader's workers


def start_model(stage: Stage, out: Path) -> nn.Module:
    """The network a stage starts from: random, an earlier stage's, or a file's, converted where it is another kind."""
    if stage.init == "random":
        return stage.build()
    path = init_path(stage, out)
    kind = read_metadata(path).get("model", "MoVieS" if stage.network == "movies" else "VGGT")
    model = load_weights(VGGT if kind == "VGGT" else MoVieS, path)
    if kind == "VGGT" and stage.network == "movies":
        model = MoVieS.from_vggt(model)
        nn.init.constant_(model.plucker_ln.weight, stage.model.ray_gain)
    elif kind == "MoVieS" and stage.network == "vggt":
        model = VGGT.from_movies(model)
    if model.config.patch_size != stage.model.patch_size:
        model = resize_patch(model, stage.model.patch_size)
    return model


def init_path(stage: Stage, out: Path) -> Path:
    """The weights file that `init` names: a stage's in OUT, or a path."""
    if stage.init.endswith(".safetensors"):
        return Path(stage.init)
    return out / stage.init / FINAL


def _check_out(stages: list[StageFile], out: Path, resume: bool) -> None:
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


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _dataset(stage: Stage, manifests: list[tuple[Manifest, int]]) -> ClipDataset:
    sources = [manifest.data_source(repeats) for manifest, repeats in manifests]
    return ClipDataset(sources, stage.data.clip_config())


def _batches(stage: Stage, manifests: list, seed: int, step: int, workers: int = -1) -> Iterator[LoadedBatch]:
    dataset = _dataset(stage, manifests)
    optim, buckets = stage.optim, stage.data.buckets(stage.model.patch_size)
    clips = (optim.batch_size, optim.accumulation, stage.data.clips_per_sequence)
    sampler = PlanSampler(len(dataset), buckets, *clips, seed, step)
    return iter(make_loader(dataset, sampler, stage.data.workers if workers < 0 else workers))


def _validation_batches(stage: Stage, manifests: list) -> list[LoadedBatch]:
    """The same few batches at every validation, kept in memory."""
    if not manifests:
        return []
    return list(islice(_batches(stage, manifests, 0, 0, workers=0), stage.schedule.validation_batches))


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step is finished and saved; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
