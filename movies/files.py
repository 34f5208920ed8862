"""Files written beside their place and renamed, so that an interrupted write leaves nothing half-written."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from movies.errors import InputError


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
    Raises InputError at once where `path` cannot be a folder or cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    created = [folder for folder in path.absolute().parents if not folder.exists()]  # deepest first
    try:
        try:
            temporary.mkdir(parents=True)
            if path.exists() and not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
        yield temporary
        path.mkdir(exist_ok=True)
        for item in sorted(temporary.iterdir()):
            if item.is_dir() and (path / item.name).is_dir():  # replaced whole
                shutil.rmtree(path / item.name)
            os.replace(item, path / item.name)
        created = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in created:
            with suppress(OSError):  # not made, or no longer empty
                folder.rmdir()
