"""Training and evaluation."""

from typing import Annotated

from tyro.conf import Positional, arg

from movies.commands.arguments import Folder, Weights


def train(
    stage: Positional[Annotated[str, arg(metavar="STAGE.toml|DIR")]],
    out: Folder,
    resume: bool = False,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    checkpoint_every: int | None = None,
    dry_run: bool = False,
) -> None:
    """Train a stage, or the stages of a folder one after the other.

    Example: movies train stages/tiny --out runs/tiny

    Args:
        stage: A stage file, or a folder of them.
        out: Folder for checkpoints, logs and final weights.
        resume: Go on from the newest checkpoint in the folder.
        max_steps: Stop every stage after so many steps.
        max_minutes: Stop after so many minutes, with a checkpoint.
        checkpoint_every: Steps between checkpoints.
        dry_run: Say what would be done, and do nothing.
    """
    from movies.train.trainer import train

    told = train(stage, out, resume, max_steps, max_minutes, checkpoint_every, dry_run)
    if told:  # of several processes one speaks
        print(told)


def evaluate_readouts(weights: Weights = "tiny", clips: int = 16, difficulty: float = 0.0) -> None:
    """Measure tracks, flow and masks on held-out synthetic clips, against standing still and the oracle.

    Example: movies evaluate readouts --clips 2

    Args:
        weights: MoVieS weights: tiny (bundled), a file, or a hub id.
        clips: How many dynamic clips.
        difficulty: Of the worlds, 0 (easy) to 1 (wide).
    """
    from movies.evaluate.readouts import evaluate

    print(evaluate(weights, clips, difficulty))
