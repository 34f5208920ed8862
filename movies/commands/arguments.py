"""Kinds of arguments that several commands take, as their help names them."""

from typing import Annotated

from tyro.conf import arg

Scene = Annotated[str, arg(metavar="SCENE")]
Manifest = Annotated[str, arg(metavar="MANIFEST")]
Clip = Annotated[str, arg(metavar="CLIP")]
File = Annotated[str, arg(metavar="FILE")]
OptionalFile = Annotated[str | None, arg(metavar="FILE")]
Folder = Annotated[str, arg(metavar="DIR")]
Weights = Annotated[str, arg(metavar="NAME|FILE")]
