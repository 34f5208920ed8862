"""Files written beside their place and renamed, so that an interrupted write leaves nothing half-written."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it becomes `path`, on any error it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        temporary.touch()  # fails now rather than after the work, and says which mode files have here
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers (safetensors) make files that only the owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success its files move there, on any error it is removed.

    A folder that exists keeps its other files. Folders made above `path` are removed again where nothing came of them.
    """
    path = Path(path)
    created = _make_parents(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(20, "Not a directory", str(path))
        temporary.mkdir()
        yield temporary
        path.mkdir(exist_ok=True)
        for item in sorted(temporary.iterdir()):
            os.replace(item, path / item.name)
        created = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in created:
            if not any(folder.iterdir()):
                folder.rmdir()


def _make_parents(path: Path) -> list[Path]:
    """Make the folders above `path`; those that were missing, deepest first."""
    missing = []
    for folder in path.absolute().parents:
        if folder.exists():
            break
        missing.append(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing
