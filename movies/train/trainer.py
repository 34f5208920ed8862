"""The trainer: stages in order, each one loop of batch -> splats -> rendering -> terms -> backward -> step."""

import copy
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from movies.clip import Batch
from movies.data.batching import PlanSampler, make_loader
from movies.data.dataset import ClipDataset, LoadedBatch, check_broken_share
from movies.data.manifest import Manifest
from movies.errors import InputError
from movies.model.vggt import VGGTPrediction
from movies.model.weights import save_weights
from movies.objective import LossTerms
from movies.splats import DynamicSplats
from movies.train.checkpoint import (
    AVERAGE,
    MODEL,
    Progress,
    clear_parts,
    latest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from movies.train.engine import Engine, make_engine, num_processes, process_rank
from movies.train.optim import make_optimizer, schedule, set_learning_rate
from movies.train.pictures import write_pictures
from movies.train.plan import describe
from movies.train.runlog import RunLog
from movies.train.stage import Stage, StageFile, load_stages
from movies.train.start import FINAL, check_data, check_out, choose_device, load_network, start_model
from movies.train.watch import Watch

MAX_SKIPPED_IN_A_ROW = 10  # steps without a finite gradient before training is given up
SPIKE = 3.0  # times the usual loss, a moving mean over about 50 steps that has seen 20
SPIKE_MEMORY, SPIKE_SETTLING = 0.98, 20
ONE_REQUEST = 2.0  # seconds within which a second stop signal is taken for the first, passed on


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
    stage (with its schedule); `max_minutes` stops the whole run at a checkpoint. Ctrl-C and SIGTERM save a checkpoint,
    then raise KeyboardInterrupt. Started by torchrun or `accelerate launch`, all processes train together. Returns
    what to tell the user, nothing but on the first process. Raises InputError for everything a user did wrong.
    """
    out, stages = Path(out), load_stages(path, max_steps)
    if dry_run:
        return describe(stages) if process_rank() == 0 else ""
    stages = [stage.for_processes(num_processes()) for stage in stages]
    check_data(stages)
    check_out(stages, out, resume)
    deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
    with stop_requests() as stop:
        for stage in stages:
            if (out / stage.stage.name / FINAL).exists():
                continue
            run = StageRun(stage, out, make_engine(stage.stage.engine.strategy, choose_device(device)))
            try:
                finished = run.loop(deadline, stop, checkpoint_every or stage.stage.schedule.checkpoint_every)
            finally:
                run.close()
            if stop.is_set():
                raise KeyboardInterrupt
            if not finished:
                return _told(f"stopped in stage {stage.stage.name} at step {run.progress.step}; continue with --resume")
    return _told(f"trained {', '.join(stage.stage.name for stage in stages)} into {out}")


def _told(text: str) -> str:
    return text if process_rank() == 0 else ""


class StageRun:
    """Everything one stage trains with; `loop` trains."""

    def __init__(self, file: StageFile, out: Path, engine: Engine) -> None:
        stage, self.engine, self.device = file.stage, engine, engine.device
        self.stage, self.folder = stage, out / stage.name
        checkpoint = latest_checkpoint(self.folder)
        self.model, self.average = self._networks(checkpoint, out)
        optim, groups = stage.optim, [(group.pattern, group.multiplier) for group in stage.optim.groups]
        self.optimizer = make_optimizer(self.model, optim.lr, groups, optim.weight_decay, optim.betas)
        self.watch = Watch(self.model)
        self.called = engine.attach(self.model, self.optimizer, optim.clip, optim.precision == "bf16")
        self.progress, self.last_broken = Progress(seed=stage.seed), ("a sample of another process", "see the log")
        if checkpoint:
            self.progress, moments = read_checkpoint(checkpoint)
            engine.set_moments(moments)
        self._check_agreement()
        self.objective = stage.objective()
        self.generator = torch.Generator(self.device)
        self.batches = stage_batches(stage, file.train, self.progress, engine.rank, engine.world)
        self.validation = _validation_batches(stage, file.validation)
        self.log = RunLog(self.folder, stage.name, self.progress.step, optim.steps, engine)
        self._start_log()

    def _networks(self, checkpoint: Path | None, out: Path) -> tuple[nn.Module, nn.Module | None]:
        """The network in training and the moving average of its weights, where the stage keeps one."""
        stage, device = self.stage, self.device
        if stage.optim.ema and not self.engine.holds_whole_weights:
            raise InputError(f"{stage.name}: `optim.ema` needs whole weights, which ZeRO 3 shares out; choose zero2")
        torch.manual_seed(stage.seed)
        model = (load_network(checkpoint / MODEL) if checkpoint else start_model(stage, out)).to(device)
        model.set_checkpointing(stage.model.checkpointing)
        if not stage.optim.ema:
            return model, None
        average = load_network(checkpoint / AVERAGE).to(device) if checkpoint else copy.deepcopy(model)
        return model, average.requires_grad_(False)

    def _check_agreement(self) -> None:
        """Processes that found different checkpoints would train apart without a word."""
        if self.engine.sums({"step": self.progress.step})["step"] != self.engine.world * self.progress.step:
            raise InputError(f"{self.folder}: the processes see different checkpoints; all nodes must share the folder")

    def _start_log(self) -> None:
        if self.engine.is_main:
            clear_parts(self.folder)
        processes = {"processes": self.engine.world, "engine": type(self.engine).__name__}
        self.log.event("start", step=self.progress.step, **processes, stage=self.stage.model_dump(mode="json"))
        if self.objective.config.note:
            self.log.event("note", text=self.objective.config.note)

    def loop(self, deadline: float, stop: threading.Event, checkpoint_every: int) -> bool:
        """Train until the stage is done (True), the deadline passes or a stop is asked for (False); always saved."""
        optim, often = self.stage.optim, self.stage.schedule
        self.called.train()
        while self.progress.step < optim.steps:
            started = time.monotonic()
            factor = schedule(self.progress.step, optim.steps, optim.warmup, optim.final_lr)
            set_learning_rate(self.optimizer, factor)
            counts = self.accumulate()
            asked = stop.is_set() or time.monotonic() > deadline
            sums = self.engine.sums(
                {"bad": not self.watch.finite(), "asked": asked, "loss": self.watch.loss(), **counts}
            )
            self.update(skip=sums["bad"] > 0)
            self.note_loss(sums["loss"] / self.engine.world)
            self.advance(sums, time.monotonic() - started)
            step = self.progress.step
            self.log.step(
                step, often.log_every, optim.lr * factor, sums, {"skipped_steps": self.progress.skipped_steps}
            )
            if step % often.validate_every == 0 or step == optim.steps:
                self.validate()
            enough = sums["asked"] > 0
            if enough or step % checkpoint_every == 0:
                self.save()
            if enough and step < optim.steps:
                return False
        self.finish()
        return True

    def accumulate(self) -> Counter:
        """Forward and backward of a step's batches on this process; answers what it counted."""
        self.watch.clear()
        counts, ends_step = Counter(samples=0, images=0, drawn=0, refused=0, broken=0), False
        while not ends_step:
            loaded = next(self.batches)
            ends_step = loaded.plan.ends_step
            with self.engine.part(ends_step):
                terms = self.forward(loaded)
                self.engine.backward(terms.total.mean() * loaded.plan.share)
            self.watch.batch(loaded.batch.names, terms.total)
            self.log.add(terms.summary())
            counts.update(self.count(loaded))
        return counts

    def count(self, loaded: LoadedBatch) -> dict[str, int]:
        """What a batch cost; clips refused or broken while making it are logged."""
        rejects, samples = loaded.rejects, len(loaded.batch.names)
        self.last_broken = (rejects.broken or [self.last_broken])[-1]
        for kind, found in (("refused", rejects.refused), ("broken", rejects.broken)):
            for name, reason in found:
                self.log.report(kind, step=self.progress.step, name=name, reason=reason)
        return {
            "samples": samples,
            "images": samples * len(loaded.batch.views),
            "drawn": loaded.num_draws,
            "refused": len(rejects.refused),
            "broken": len(rejects.broken),
        }

    def forward(self, loaded: LoadedBatch, model: nn.Module | None = None) -> LossTerms:
        """Predict under autocast; render and measure in float32. What is random comes from the batch's own seed."""
        batch = loaded.batch.to(self.device)
        self.generator.manual_seed(int(np.random.default_rng([*loaded.plan.seed, 2]).integers(2**63)))
        return self.objective.terms(self.predict(batch, model or self.called), batch, self.generator)

    def predict(self, batch: Batch, model: nn.Module) -> DynamicSplats | VGGTPrediction:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.stage.optim.precision == "bf16"):
            return self.objective.predict(model, batch, self.generator)

    def update(self, skip: bool) -> None:
        """One step of the optimiser with clipped gradients, unless any process saw what is not finite."""
        self.optimizer.held = skip
        norm = self.engine.step().item()
        self.optimizer.held = False
        self.log.add({"gradient_norm": norm})
        if skip or not math.isfinite(norm):
            self._skipped()
        else:
            self.progress = replace(self.progress, skipped_in_a_row=0)
            self._update_average()
        if self.progress.step == 0 and (silent := self.watch.silent()):
            self.log.event("no gradient", count=len(silent), of=len(self.watch.names), where=silent)

    def _skipped(self) -> None:
        before = self.progress
        where, samples = self.watch.broken_parameters(), self.watch.broken_samples()
        if where or samples:
            self.log.report("skipped", step=before.step, reason="not finite", where=where, samples=samples)
        self.log.share()
        in_a_row = before.skipped_in_a_row + 1
        self.progress = replace(before, skipped_steps=before.skipped_steps + 1, skipped_in_a_row=in_a_row)
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise InputError(
                f"{self.stage.name}: {in_a_row} steps in a row without a finite gradient; see `skipped` in "
                f"{self.folder / 'log.jsonl'}, or lower `optim.lr`"
            )

    def note_loss(self, loss: float) -> None:
        """Report a loss far above the usual one, with the samples that have the largest."""
        before = self.progress
        if not math.isfinite(loss):
            return
        if before.step >= SPIKE_SETTLING and loss > SPIKE * before.usual_loss:
            self.log.report(
                "spike", step=before.step, loss=loss, usual=before.usual_loss, samples=self.watch.worst_samples()
            )
            self.progress = replace(before, spikes=before.spikes + 1)
            return
        memory = min(SPIKE_MEMORY, before.step / (before.step + 1))
        self.progress = replace(before, usual_loss=memory * before.usual_loss + (1 - memory) * loss)

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is not None:
            weight = 1 - min(self.stage.optim.ema, (1 + self.progress.step) / (10 + self.progress.step))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), weight)

    def advance(self, sums: dict[str, float], seconds: float) -> None:
        """Count the step. Raises InputError where too many samples were broken."""
        before = self.progress
        self.progress = replace(
            before,
            step=before.step + 1,
            seconds=before.seconds + seconds,
            drawn=before.drawn + int(sums["drawn"]),
            refused_clips=before.refused_clips + int(sums["refused"]),
            broken_clips=before.broken_clips + int(sums["broken"]),
        )
        if sums["broken"]:
            self.log.share()
            drawn, broken = self.progress.drawn, self.progress.broken_clips
            check_broken_share(drawn, broken, self.stage.data.max_broken_rate, self.last_broken)

    @torch.no_grad()
    def validate(self) -> None:
        """The same terms on held-out clips, with the averaged weights where they are kept."""
        if not self.validation:
            return
        model = self.average if self.average is not None else self.called
        model.eval()
        summaries = [self.forward(loaded, model).summary() for loaded in self.validation]
        first = self.validation[0].batch.to(self.device)
        prediction = self.predict(first, model)
        model.train()
        if self.engine.is_main:
            sheet = self.folder / "pictures" / f"step-{self.progress.step:08d}.png"
            write_pictures(sheet, self.objective, prediction, first)
        columns = {name: Tensor([s[name] for s in summaries]).nanmean().item() for name in summaries[0]}
        self.log.event("validation", step=self.progress.step, **{k: round(v, 6) for k, v in columns.items()})
        self.log.board("validation", self.progress.step, columns)

    def save(self) -> None:
        """Whole weights and moments are collected by all processes and written by one."""
        model, moments = self.engine.whole_model(), self.engine.moments()
        if self.engine.is_main:
            keep = self.stage.schedule.keep_checkpoints
            save_checkpoint(self.folder, self.progress, model, self.average, moments, keep)
        self.engine.wait()

    def finish(self) -> None:
        """Leave the weights for the next stage and for users."""
        self.save()
        model = self.engine.whole_model()
        if self.engine.is_main:
            save_weights(self.average if self.average is not None else model, self.folder / FINAL)
        self.engine.wait()
        self.log.event("finished", step=self.progress.step, seconds=round(self.progress.seconds, 1))

    def close(self) -> None:
        self.log.close()
        self.watch.close()
        self.engine.close()
        del self.batches  # ends the loader's workers


def _dataset(stage: Stage, manifests: list[tuple[Manifest, int]]) -> ClipDataset:
    sources = [manifest.data_source(repeats) for manifest, repeats in manifests]
    return ClipDataset(sources, stage.data.clip_config())


def stage_batches(
    stage: Stage, manifests: list, progress: Progress, rank: int, world: int, workers: int = -1
) -> Iterator[LoadedBatch]:
    """What process `rank` of `world` takes of every step, from where the stage stands."""
    dataset = _dataset(stage, manifests)
    optim, buckets = stage.optim, stage.data.buckets(stage.model.patch_size)
    clips = (optim.batch_size, optim.accumulation, stage.data.clips_per_sequence)
    sampler = PlanSampler(len(dataset), buckets, *clips, progress.seed, progress.step, rank, world)
    return iter(make_loader(dataset, sampler, stage.data.workers if workers < 0 else workers))


def _validation_batches(stage: Stage, manifests: list) -> list[LoadedBatch]:
    """The same few batches at every validation and on every process, kept in memory."""
    if not manifests:
        return []
    return list(islice(stage_batches(stage, manifests, Progress(), 0, 1, workers=0), stage.schedule.validation_batches))


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step is finished and saved; a later one interrupts at once.

    Launchers pass on what the processes were told already, so those within ONE_REQUEST seconds count once.
    """
    event, first = threading.Event(), math.inf
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame) -> None:
        nonlocal first
        first = min(first, time.monotonic())
        if time.monotonic() - first > ONE_REQUEST:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
