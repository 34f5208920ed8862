"""The command `movies`: parse, call one function, one-line errors. Exit 0; 2 for a user's mistake; 130 for Ctrl-C."""

import contextlib
import functools
import io
import re
import sys
import warnings
from collections.abc import Callable

import tyro

from movies.commands import datasets, editing, evaluation, scenes, tracking, training, viewing, weights

COMMANDS: dict[str, Callable] = {
    "reconstruct": scenes.reconstruct,
    "render": scenes.render,
    "export": scenes.export,
    "track": tracking.track,
    "view": viewing.view,
    "train": training.train,
    "doctor": weights.doctor,
}
GROUPS: dict[str, tuple[str, dict[str, Callable]]] = {
    "scene": (
        "Make scenes smaller.\n\nExample: movies scene simplify out/clip/scene.safetensors --out small.safetensors",
        {"simplify": editing.scene_simplify, "crop": editing.scene_crop},
    ),
    "data": (
        "Check, index or look at datasets.\n\nExample: movies data check data_manifests/synthetic_wide_56.toml",
        {"check": datasets.data_check, "index": datasets.data_index, "preview": datasets.data_preview},
    ),
    "weights": (
        "Inspect or convert files of weights.\n\nExample: movies weights inspect model.safetensors",
        {"inspect": weights.weights_inspect, "convert": weights.weights_convert},
    ),
    "evaluate": (
        "Measure weights by a protocol.\n\nExample: movies evaluate synthetic --clips 2",
        evaluation.COMMANDS | {"readouts": training.evaluate_readouts},
    ),
}
DESCRIPTION = (
    "One monocular video to a 4D scene of moving 3D Gaussians.\n\n"
    "Example: movies reconstruct clip.mp4 --out out/clip\n\n--debug, anywhere, shows the traceback of an error."
)


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")  # libraries' advice to programmers
            call = _parse(arguments)
            return (call() or 0) if call is not None else 0
    except KeyboardInterrupt:
        if debug:
            raise
        return _fail("interrupted", 130, "")
    except Exception as error:
        if debug:
            raise
        return _report(error)


def _report(error: Exception) -> int:
    from movies.errors import InputError

    if isinstance(error, InputError):
        return _fail(str(error))
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}")
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return _fail("not enough memory; lower --resolution or --frames, or use --device cpu")
    raise error  # a defect of ours: its traceback is wanted


def _fail(message: str, status: int = 2, prefix: str = "error: ") -> int:
    print(prefix + " ".join(message.split()), file=sys.stderr)
    return status


def _parse(arguments: list[str]) -> Callable[[], int | None] | None:
    """The call that the arguments ask for, None where help was all. Raises InputError for what cannot be parsed."""
    from movies.errors import InputError

    if arguments and arguments[0] in GROUPS:
        name, rest = arguments[0], arguments[1:]
        description, commands = GROUPS[name]
        prog = f"movies {name}"
    else:
        commands = COMMANDS | {name: _heading(text) for name, (text, _) in GROUPS.items()}
        prog, description, rest = "movies", DESCRIPTION, arguments
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.extras.subcommand_cli_from_dict(
                {key: _deferred(command) for key, command in commands.items()},
                prog=prog,
                description=description,
                args=rest or ["--help"],
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (None, 0):
            return None
        asked = f"{prog} {rest[0]}" if rest[0] in commands else prog
        raise InputError(f"{_one_line(box.getvalue())}; see `{asked} --help`") from None


def _deferred(command: Callable) -> Callable:
    """The command with its arguments bound, not yet called: parsing is over before anything runs."""

    @functools.wraps(command)
    def bind(*args, **kwargs):
        return functools.partial(command, *args, **kwargs)

    bind.__annotations__ = {**command.__annotations__, "return": Callable}
    return bind


def _heading(text: str) -> Callable:
    """Stands for a group in the list of commands."""

    def group() -> None:
        raise AssertionError("a group is parsed by its own table")

    group.__doc__ = text
    return group


def _one_line(box: str) -> str:
    """What a box of tyro says, up to its ruler, as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│|╭╮╰╯+") for line in text.splitlines()]
    said = []
    for line in lines[1:]:  # the first is the box's title
        if line.strip() and not line.strip(" ─-"):
            if said:
                break
            continue
        if not line.startswith(" " * 9):  # help texts of the arguments that are missing
            said.append(line.strip())
    return " ".join(said).strip().rstrip(".") or "the arguments cannot be read"
