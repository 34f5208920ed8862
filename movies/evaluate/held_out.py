"""The protocol `synthetic`, run and told as the README's table."""

from pathlib import Path

from movies.errors import InputError
from movies.evaluate.methods import MethodSpec
from movies.evaluate.protocol import load_protocol
from movies.evaluate.runner import evaluate
from movies.evaluate.synthetic import Report


def evaluate_held_out(
    weights: str, camera_weights: str, clips: int, difficulty: float, out: str | Path | None, workers: int = 1
) -> tuple[str, bool]:
    """The README's table, and whether a scene failed. Raises InputError for a number of clips below 1."""
    if clips < 1:
        raise InputError(f"clips must be at least 1, got {clips}")
    frozen = load_protocol("synthetic")
    options = frozen.options | {"num_clips": clips, "difficulty": difficulty}
    protocol = frozen.model_copy(update={"options": options, "num_scenes": 2 * clips})
    report = evaluate(protocol, MethodSpec(weights, camera_weights), out=out, workers=workers)
    if not all(any(name.startswith(kind) for name in report.scenes) for kind in ("dynamic", "static")):
        return "\n".join(report.remarks()), True
    scenes = {name: result.metrics for name, result in report.scenes.items()}
    table = Report.of(scenes, difficulty, options["size"]).markdown()
    return "\n".join([table, *report.remarks()]), bool(report.failed)
