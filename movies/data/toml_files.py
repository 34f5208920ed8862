"""Files that users write: TOML checked against a frozen pydantic model, every mistake told with file, key and mend."""

import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from movies.errors import InputError


class Section(BaseModel):
    """A table of a user's file: frozen, refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=Section)


def read_toml(path: str | Path, model: type[Model]) -> Model:
    """Read a TOML file as `model`. Raises InputError naming the file, the key, the value and what is legal."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not readable as TOML ({error})") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {_first_mistake(error, model)}") from error


def _first_mistake(error: ValidationError, model: type[Section]) -> str:
    # A misspelt key is also a missing one: the unknown key is the one to name.
    mistake = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    location = [part for part in mistake["loc"] if not (isinstance(part, str) and "[" in part)]
    key = ".".join(map(str, location))
    if mistake["type"] == "extra_forbidden":
        legal = ", ".join(_section_at(model, location[:-1]).model_fields)
        return f"unknown key `{key}`; legal keys there are {legal}"
    if mistake["type"] == "missing":
        return f"key `{key}` is missing"
    message = mistake["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"`{key}` = {mistake['input']!r}: {message}" if key else message  # one about several keys names them itself


def _section_at(model: type[Section], location: list) -> type[Section]:
    """The section that the keys of `location` lead to."""
    for part in location:
        if isinstance(part, str):
            model = _section_of(model.model_fields[part].annotation) or model
    return model


def _section_of(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (tuple, list, Union, UnionType):
        return next((found for part in get_args(annotation) if (found := _section_of(part))), None)
    return None
