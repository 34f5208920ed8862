"""A report: what was run on what by whom, every scene's numbers and their mean, as JSON and as a table."""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

import movies
from movies.errors import InputError
from movies.evaluate.protocol import Protocol
from movies.files import replacing_file

LOWER_IS_BETTER = (
    *("lpips", "mlpips", "absrel", "sqrel", "rmse", "log_rmse", "pdbe", "point_l1"),
    *("ate", "rpe", "epe", "flow", "motion_error", "rotation", "translation", "fov"),
)
BY_PIXELS = ("absrel", "sqrel", "rmse", "log_rmse", "delta")  # means of pixels, so scenes count by theirs
DIGITS = 4


@dataclass(frozen=True)
class SceneResult:
    """One scene: the mean of every metric over its samples (None: does not apply), and what it took."""

    metrics: dict[str, float | None]
    weight: float  # valid pixels, where the protocol's mean goes by them; otherwise 1
    absent: dict[str, str]  # what could not be scored, and why
    seconds: float
    peak_memory: dict[str, int]

    @property
    def numbers(self) -> dict:
        """What is the same in every run."""
        return {"metrics": self.metrics, "weight": self.weight, "absent": self.absent}


@dataclass(frozen=True)
class Report:
    """One run of one protocol by one method. `failed` scenes are no part of the mean, and said in every table."""

    protocol: dict  # id, version, digest, and all choices
    method: dict
    code: dict
    scenes: dict[str, SceneResult]
    failed: dict[str, str]

    @property
    def mean(self) -> dict[str, float | None]:
        """Of every metric over the scenes that have it, in the protocol's way."""
        names = sorted({name for result in self.scenes.values() for name in result.metrics})
        return {name: self._mean_of(name) for name in names}

    def _mean_of(self, name: str) -> float | None:
        kept = {k: r for k, r in self.scenes.items() if r.metrics.get(name) is not None}
        if not kept:
            return None
        if self.protocol["choices"]["average"] != "groups":
            weights = [r.weight if name.startswith(BY_PIXELS) else 1.0 for r in kept.values()]
            return sum(r.metrics[name] * w for r, w in zip(kept.values(), weights, strict=True)) / sum(weights)
        groups: dict[str, list[float]] = {}
        for scene, result in kept.items():
            groups.setdefault(scene.split("/")[0], []).append(result.metrics[name])
        return fmean(fmean(values) for values in groups.values())

    def json(self) -> dict:
        """Everything; what differs between two equal runs stands apart under `cost`."""
        absent = {what: why for result in self.scenes.values() for what, why in result.absent.items()}
        costs = {name: {"seconds": r.seconds, "peak_memory": r.peak_memory} for name, r in self.scenes.items()}
        return {
            "protocol": self.protocol,
            "method": self.method,
            "code": self.code,
            "counts": {"scored": len(self.scenes), "failed": len(self.failed)},
            "mean": self.mean,
            "absent": absent,
            "failed": self.failed,
            "scenes": {name: result.numbers for name, result in sorted(self.scenes.items())},
            "cost": {"seconds": sum(r.seconds for r in self.scenes.values()), "scenes": dict(sorted(costs.items()))},
        }

    def save(self, folder: Path) -> None:
        """Write report.json and report.md into `folder`."""
        with replacing_file(folder / "report.json") as temporary:
            temporary.write_text(json.dumps(self.json(), indent=1) + "\n")
        with replacing_file(folder / "report.md") as temporary:
            temporary.write_text(self.markdown() + "\n")

    def markdown(self) -> str:
        """Every metric's mean and range over the scenes, and below it what is missing. The scenes are in the JSON."""
        head = [f"{self.protocol['id']} v{self.protocol['version']}, {len(self.scenes)} scenes", self.method["name"]]
        rows = []
        for name, mean in self.mean.items():
            values = [value for r in self.scenes.values() if (value := r.metrics.get(name)) is not None]
            ends = [text(min(values)), text(max(values))] if values else ["-", "-"]
            rows.append([arrowed(name), text(mean), *ends])
        return "\n".join([table([*head, "lowest", "highest"], rows), *self.remarks()])

    def remarks(self) -> list[str]:
        """One line for every scene that failed and everything that could not be scored."""
        lines = [f"FAILED {scene}: {reason}" for scene, reason in sorted(self.failed.items())]
        if lines:
            total = len(lines) + len(self.scenes)
            lines.insert(0, f"{len(lines)} of {total} scenes failed and are not in the mean:")
        absent = self.json()["absent"]
        lines += [f"not scored: {what} ({why})" for what, why in sorted(absent.items())]
        return ["", *lines] if lines else []


def protocol_summary(protocol: Protocol) -> dict:
    """What a report says of its protocol."""
    return {
        "id": protocol.id,
        "version": protocol.version,
        "digest": protocol.digest,
        "title": protocol.title,
        "source": protocol.source,
        "choices": protocol.choices(),
    }


@cache
def code_version() -> dict:
    """Version of the package and a digest of its source, which says more; taken once, as the code is loaded once."""
    root, digest = Path(movies.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return {"version": movies.__version__, "sha256": digest.hexdigest()[:16]}


def read_report(path: str | Path) -> Report:
    """A report.json, or the folder that holds one. Raises InputError where it is none."""
    path = Path(path) / "report.json" if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(path.read_text())
        costs = content["cost"]["scenes"]
        scenes = {name: SceneResult(**row, **costs[name]) for name, row in content["scenes"].items()}
        return Report(content["protocol"], content["method"], content["code"], scenes, content["failed"])
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a report of `movies evaluate`") from error


def text(value: float | None) -> str:
    """A number for a table; "-" where there is none."""
    if value is None:
        return "-"
    return f"{value:.{DIGITS}g}" if abs(value) < 1000 or math.isinf(value) else f"{value:.0f}"


def arrowed(name: str) -> str:
    """A metric's name with the direction that is better."""
    return f"{name} {'↓' if name.startswith(LOWER_IS_BETTER) else '↑'}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown that is also aligned to the eye."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
