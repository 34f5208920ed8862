"""Scenes as files that other programs open: `export(scene, format, path, times)`. The formats: docs/exports.md."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from movies.errors import InputError
from movies.export.compressed_ply import write_compressed_ply
from movies.export.gltf import write_glb
from movies.export.html import write_html
from movies.export.npz import write_npz
from movies.export.ply import write_ply
from movies.export.splat import write_splat
from movies.export.spz import write_spz
from movies.files import replacing_file
from movies.gaussians import Gaussians
from movies.long_scene import LongScene, load_scene
from movies.scene import Scene4D, check_times


@dataclass(frozen=True)
class Exporter:
    """How a format is written. A scene that `write` is given stores exactly the times it is asked for."""

    write: Callable[[Scene4D, Path], None]
    suffix: str
    one_time: bool  # the format knows no time: a file for each


EXPORTERS = {
    "ply": Exporter(write_ply, ".ply", one_time=True),
    "compressed-ply": Exporter(write_compressed_ply, ".compressed.ply", one_time=True),
    "splat": Exporter(write_splat, ".splat", one_time=True),
    "spz": Exporter(write_spz, ".spz", one_time=True),
    "glb": Exporter(write_glb, ".glb", one_time=False),
    "npz": Exporter(write_npz, ".npz", one_time=False),
    "html": Exporter(write_html, ".html", one_time=False),
}


def export(scene: Scene4D, format: str, path: str | Path, times: Tensor) -> list[Path]:  # times [K]
    """Write `scene` at `times` (0 to 1) and return the files written, all of them or none.

    Formats that know no time get a file for each, PATH itself for one time, else PATH's name with a running number
    (scene_0000.ply, scene_0001.ply, ...). Gaussians that no renderer draws (a number that is not finite, a rotation
    of length 0) are left out, at all times, so that every file holds the same Gaussians in the same order. Raises
    InputError for an unknown format, a path that does not fit it, times outside [0, 1] and a scene without Gaussians.
    """
    path = Path(path)
    exporter = _exporter(format, path)
    check_times(times)
    scene = _sound(_resampled(scene, times))
    num_times = len(scene.times)
    if not len(scene):
        raise InputError("the scene holds no Gaussians, there is nothing to export")
    if not exporter.one_time:
        parts = {path: scene}
    elif num_times == 1:
        parts = {path: _at_index(scene, 0)}
    else:
        parts = {_numbered(path, exporter.suffix, k): _at_index(scene, k) for k in range(num_times)}
    with ExitStack() as files:  # all are renamed to their places at the end, or none is
        for place, part in parts.items():
            if place.is_dir():
                raise InputError(f"{place}: a folder; give the file to write")
            exporter.write(part, files.enter_context(replacing_file(place)))
    return list(parts)


def export_file(scene: str | Path, format: str, path: str | Path, times: str) -> list[Path]:
    """`export` of a scene file, times as `choose_times` reads them. What is wrong is said before the scene is read.

    Of a scene in segments, formats that hold all times in one file get one for each segment.
    """
    exporter, path = _exporter(format, Path(path)), Path(path)
    loaded = load_scene(scene)
    chosen = choose_times(loaded, times)
    if isinstance(loaded, Scene4D):
        return export(loaded, format, path, chosen)
    check_times(chosen)
    parts = list(_groups(loaded, chosen.sort().values, exporter.one_time))
    places = [path] if len(parts) == 1 else [_numbered(path, exporter.suffix, k) for k in range(len(parts))]
    for part, place in zip(parts, places, strict=True):
        export(_part(loaded, part, exporter.one_time), format, place, part)
    return places


def _groups(scene: LongScene, times: Tensor, one_time: bool) -> Iterator[Tensor]:  # [K] -> [k] each
    """The times of each file."""
    if one_time:
        yield from times[:, None]
        return
    shown = torch.tensor([scene.shown_most(float(time)) for time in times])
    for segment in shown.unique():
        yield times[shown == segment]


def _part(scene: LongScene, times: Tensor, one_time: bool) -> Scene4D:  # [k]
    """What is to be seen of a long scene at the times of one file."""
    middle = times[len(times) // 2]
    window = scene.window(float(middle))
    if not one_time:
        return window
    return replace(window, static=scene.at(middle), moving=Gaussians.empty(1), times=middle[None])


def choose_times(scene: Scene4D | LongScene, text: str) -> Tensor:  # -> [K]
    """The times that `text` means: `all` stored ones, a count N (evenly from the first to the last stored time), or
    times from 0 to 1 with a decimal point, as 0.5 or 0.0,0.25. Raises InputError for anything else.
    """
    if text == "all":
        return scene.times.sort().values
    try:
        if "." in text or "," in text:
            return torch.tensor([float(word) for word in text.split(",")])
        count = int(text)
    except ValueError:
        raise InputError(f"times {text!r}: give `all`, a count as 8, or times from 0 to 1 as 0.0,0.5") from None
    if count < 1:
        raise InputError(f"times {text!r}: at least one time is needed")
    return torch.linspace(float(scene.times.min()), float(scene.times.max()), count)


def _exporter(format: str, path: Path) -> Exporter:
    """The format's exporter, once `path` is known to be a file's name that fits."""
    if format not in EXPORTERS:
        raise InputError(f"unknown format {format!r}, choose one of {', '.join(EXPORTERS)}")
    exporter = EXPORTERS[format]
    if path.is_dir():
        raise InputError(f"{path}: a folder; give the file to write, such as {path / ('scene' + exporter.suffix)}")
    if not path.name.lower().endswith(exporter.suffix):
        raise InputError(f"{path}: files of format {format} end in {exporter.suffix}")
    return exporter


def _numbered(path: Path, suffix: str, k: int) -> Path:
    return path.with_name(f"{path.name[: -len(suffix)]}_{k:04d}{path.name[-len(suffix) :]}")


def _resampled(scene: Scene4D, times: Tensor) -> Scene4D:  # [K]
    """The scene on the CPU, its moving Gaussians stored at `times`."""
    scene, times = scene.to("cpu"), times.float().cpu().unique()  # in order, each once
    moving = replace(scene, static=Gaussians.empty()).at(times)
    return replace(scene, moving=moving, times=times)


def _at_index(scene: Scene4D, k: int) -> Scene4D:
    """The scene with only the k-th of its stored times."""
    return replace(scene, moving=scene.moving[k : k + 1], times=scene.times[k : k + 1])


def _sound(scene: Scene4D) -> Scene4D:
    static = scene.static.select(_is_sound(scene.static))
    moving = scene.moving.select(_is_sound(scene.moving).all(dim=0))
    return replace(scene, static=_unit(static), moving=_unit(moving))


def _is_sound(g: Gaussians) -> Tensor:  # [..., N] bool
    values = torch.cat([g.means, g.quats, g.scales, g.opacities[..., None], g.colors], dim=-1)
    return values.isfinite().all(dim=-1) & (g.quats != 0).any(dim=-1)


def _unit(g: Gaussians) -> Gaussians:
    """Unit quaternions, opacities and colours in [0, 1]: what the formats' ranges suppose."""
    quats = g.quats / g.quats.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return replace(g, quats=quats, opacities=g.opacities.clamp(0, 1), colors=g.colors.clamp(0, 1))
