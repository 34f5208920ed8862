"""Running a protocol: scene by scene, in several processes if asked, each result kept as soon as it is there."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from movies.errors import InputError
from movies.evaluate.cases import Case, file_cases
from movies.evaluate.compare import comparison_table, differing, find_difference, published
from movies.evaluate.methods import Method, MethodSpec
from movies.evaluate.predictions import Prediction, only, write_inputs, write_mark
from movies.evaluate.protocol import Protocol, load_protocol
from movies.evaluate.readers import open_scenes
from movies.evaluate.report import Report, SceneResult, code_version, protocol_summary
from movies.evaluate.sheets import write_sheet
from movies.evaluate.tasks import TASKS
from movies.files import replacing_file
from movies.objective import load_lpips
from movies.outputs import peak_memory, weights_digest
from movies.perceptual import LPIPS


@dataclass(frozen=True)
class Job:
    """What every process needs to score scenes."""

    protocol: Protocol
    spec: MethodSpec
    lpips: tuple[str, ...] = ()  # files of its weights
    pictures: Path | None = None  # folder for a sheet of every case


@dataclass(frozen=True)
class Worker:
    """A job with its networks loaded."""

    job: Job
    method: Method
    lpips: LPIPS | None

    @staticmethod
    def open(job: Job) -> "Worker":
        networks = [task.removeprefix("lpips_") for task in job.protocol.tasks if task.startswith("lpips_")]
        if job.lpips and not networks:
            raise InputError(f"{job.protocol.id} does not score LPIPS; leave --lpips out")
        lpips = load_lpips(job.lpips, networks[0]) if job.lpips else None
        return Worker(job, job.spec.open(job.protocol), lpips)

    def score(self, scene) -> SceneResult:
        """All cases of a scene. A metric is the mean over the samples of all of them."""
        torch.manual_seed(self.job.protocol.seed)
        started = time.perf_counter()
        if hasattr(scene, "score"):  # held-out worlds score themselves, with their baselines
            metrics, weight, absent = scene.score(self.method, self.job.pictures), 1.0, {}
        else:
            metrics, weight, absent = self._score_cases(scene)
        return SceneResult(metrics, weight, absent, round(time.perf_counter() - started, 3), peak_memory())

    def _score_cases(self, scene) -> tuple[dict[str, float | None], float, dict[str, str]]:
        protocol, samples, absent, pixels = self.job.protocol, {}, {}, 0
        wanted = {name for task in protocol.tasks for name in TASKS[task].needs}
        wanted |= {"c2w"} if protocol.cameras == "estimated" else set()
        for case in cases_of(scene, protocol):
            answer = self.method.predict(case.inputs, wanted, protocol.input_size)
            answer = only(answer, wanted).checked(case.inputs)
            for name, values in self._score_case(case, answer, absent).items():
                samples.setdefault(name, []).append(values.float())
            pixels += int(case.context.depth_mask.sum())
            if self.job.pictures:
                write_sheet(self.job.pictures / f"{case.name.replace('/', '_')}.png", case, answer)
        metrics = {name: _mean(torch.cat(values)) for name, values in sorted(samples.items())}
        return metrics, float(pixels) if protocol.average == "pixels" else 1.0, absent

    def _score_case(self, case: Case, answer: Prediction, absent: dict[str, str]) -> dict[str, Tensor]:
        scores: dict[str, Tensor] = {}
        for task in self.job.protocol.tasks:
            scorer = TASKS[task]
            lacking = [name for name in scorer.needs if not answer.has(name)]
            if lacking:
                absent[task] = f"the method gives no {' and no '.join(lacking)}"
            elif scorer.library and find_spec(scorer.library) is None:
                absent[task] = f"it needs {scorer.library}: pip install 'movies[evaluate]'"
            elif scorer.network and self.lpips is None:
                absent[task] = "no file of its weights was given (--lpips)"
            else:
                scores |= scorer.score(case, answer, self.job.protocol, *([self.lpips] if scorer.network else []))
        return scores


def _mean(values: Tensor) -> float | None:  # [samples]
    mean = values.double().nanmean().item()
    return None if mean != mean else mean


def cases_of(scene, protocol: Protocol) -> Iterator[Case]:
    """The cases of a scene: its own, or clips cut from a sequence of files."""
    return scene.cases(protocol) if hasattr(scene, "cases") else file_cases(scene, protocol)


def evaluate(
    protocol: str | Protocol,
    spec: MethodSpec,
    data: str = "",
    out: str | Path | None = None,
    scenes: tuple[str, ...] = (),
    workers: int = 1,
    lpips: tuple[str, ...] = (),
) -> Report:
    """Run a protocol on the data under `data`. With `out`, a folder that an interrupted run goes on from.

    `scenes` is a choice of the protocol's (empty: all). Raises InputError before anything is computed: for scenes that
    are missing, weights that do not fit, and a folder that holds another run. A scene that breaks later is reported.
    """
    protocol = protocol if isinstance(protocol, Protocol) else load_protocol(protocol)
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    if "worlds" in protocol.tasks and spec.predictions:
        raise InputError(f"{protocol.id} compares MoVieS with its own baselines; predictions: synthetic_worlds")
    found = open_scenes(protocol, data, scenes)
    folder = Path(out) if out else None
    worker = Worker.open(Job(protocol, spec, tuple(lpips), folder / "pictures" if folder else None))
    run = {"protocol": protocol_summary(protocol), "method": worker.method.describe(), "code": code_version()}
    if worker.lpips:
        run["protocol"]["lpips"] = weights_digest(worker.lpips)
    done = _resume(folder, run, [scene.name for scene in found]) if folder else {}
    failed: dict[str, str] = {}
    for name, result in _run_all(worker, [scene for scene in found if scene.name not in done], workers):
        if isinstance(result, str):
            failed[name] = result
            continue
        done[name] = result
        if folder:
            _write_json(_place(folder, name), asdict(result))
    report = Report(run["protocol"], run["method"], run["code"], dict(sorted(done.items())), failed)
    if folder:
        report.save(folder)
    return report


def evaluate_beside(
    models: tuple[str, ...], protocol: str | Protocol, spec: MethodSpec, data: str, out: str | Path | None, *rest
) -> tuple[str, bool]:
    """`evaluate`, and the same of other models with bundled weights, each in a folder of its own under `out`.

    -> (the tables [str], whether a scene failed). What others have published stands there too.
    """
    others = [MethodSpec(model=model, device=spec.device, dtype=spec.dtype) for model in models]
    reports = [evaluate(protocol, other, data, out and Path(out) / other.model, *rest) for other in others]
    reports.insert(0, evaluate(protocol, spec, data, out, *rest))
    tables = [report.markdown() for report in reports if report is reports[0] or report.failed]
    differences = [difference for other in reports[1:] if (difference := find_difference(reports[0], other))]
    if differences:
        tables.append(f"not side by side: {differences[0]}")
    elif models or published(reports[0].protocol["id"]):
        tables.append(comparison_table(reports))
    return "\n\n".join(tables), any(report.failed for report in reports)


def _run_all(worker: Worker, scenes: list, workers: int) -> Iterator[tuple[str, SceneResult | str]]:
    """Every scene's result, or why it has none, as they come."""
    from tqdm import tqdm

    with tqdm(total=len(scenes), desc=worker.job.protocol.id, unit="scene", delay=2, disable=None, leave=False) as bar:
        results = _in_processes(worker.job, scenes, workers) if workers > 1 else _in_turn(worker, scenes)
        for name, result in results:
            bar.update()
            yield name, result


def _in_turn(worker: Worker, scenes: list) -> Iterator[tuple[str, SceneResult | str]]:
    for scene in scenes:
        yield scene.name, _attempt(worker, scene)


def _attempt(worker: Worker, scene) -> SceneResult | str:
    """One scene must not end a run of hours: whatever goes wrong in it becomes its report."""
    try:
        return worker.score(scene)
    except InputError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


_OPEN: dict[str, Worker] = {}  # the worker of this process


def _in_processes(job: Job, scenes: list, workers: int) -> Iterator[tuple[str, SceneResult | str]]:
    """Fresh processes: a fork of one that has run threads may hang."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, max(1, len(scenes))), context, _open_worker, (job, threads)) as pool:
        futures = {pool.submit(_attempt_here, scene): scene.name for scene in scenes}
        for future in as_completed(futures):
            died = future.exception()  # _attempt raises nothing: the process is gone, killed for its memory perhaps
            yield futures[future], f"its process died ({died}); fewer --workers need less" if died else future.result()


def _open_worker(job: Job, threads: int) -> None:
    torch.set_num_threads(threads)
    _OPEN["worker"] = Worker.open(job)


def _attempt_here(scene) -> SceneResult | str:
    return _attempt(_OPEN["worker"], scene)


def _resume(folder: Path, run: dict, names: list[str]) -> dict[str, SceneResult]:
    """Results that are there already. Raises InputError where the folder is another run's."""
    mark = folder / "run.json"
    run = json.loads(json.dumps(run))
    if not mark.exists():
        _write_json(mark, run)
        return {}
    for key, was, now in differing("", json.loads(mark.read_text()), run):
        raise InputError(f"{folder} holds a run with {key} = {was}, this one has {now}; choose another --out")
    done = {}
    for name in names:
        with suppress(FileNotFoundError):
            done[name] = SceneResult(**json.loads(_place(folder, name).read_text()))
    return done


def _place(folder: Path, name: str) -> Path:
    return folder / "scenes" / f"{name.replace('/', '_')}.json"


def _write_json(path: Path, content: dict) -> None:
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def export_inputs(protocol: str | Protocol, data: str, folder: str | Path, scenes: tuple[str, ...] = ()) -> int:
    """Write what methods elsewhere need to answer a protocol; returns the number of cases."""
    protocol = protocol if isinstance(protocol, Protocol) else load_protocol(protocol)
    if "worlds" in protocol.tasks:
        raise InputError(f"{protocol.id} compares MoVieS with its own baselines; predictions: synthetic_worlds")
    folder, count = Path(folder), 0
    for scene in open_scenes(protocol, data, scenes):
        for case in cases_of(scene, protocol):
            write_inputs(folder, case.inputs)
            count += 1
    write_mark(folder, protocol)
    return count
