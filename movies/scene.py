"""Scene4D: static and moving Gaussians over time, what a reconstruction leaves. File format: docs/scene_format.md."""

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.files import replacing_file
from movies.gaussians import Gaussians
from movies.geometry import matrix_to_quaternion, quaternion_lerp, quaternion_multiply, transform_points
from movies.shapes import check_shape

FORMAT, VERSION = "movies-scene", 1


@dataclass(frozen=True)
class Scene4D:
    """A scene over times in [0, 1]: S Gaussians that never move and M that do, at T stored times.

    `cameras` and `view_times` are those of the V input views; `image_size` is their (height, width), (0, 0) where it
    is not known. Raises InputError for wrong shapes.
    """

    static: Gaussians  # [S]
    moving: Gaussians  # [T, M]
    times: Tensor  # [T]
    cameras: Cameras  # [V]
    view_times: Tensor  # [V]
    image_size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        check_shape("static.means", self.static.means, (None, 3))
        check_shape("times", self.times, (None,))
        check_shape("moving.means", self.moving.means, (len(self.times), None, 3))
        check_shape("cameras.c2w", self.cameras.c2w, (None, 4, 4))
        check_shape("view_times", self.view_times, (len(self.cameras),))
        if not len(self.times):
            raise InputError("`times` of a scene must hold at least one time")

    def __len__(self) -> int:
        """The number of Gaussians S + M at any one time."""
        return len(self.static) + len(self.moving)

    def at(self, time: float | Tensor) -> Gaussians:
        """The Gaussians [S + M] at a time, or [K, S + M] at times [K]: static ones first.

        Between stored times means, scales, opacities and colours are interpolated linearly, rotations by normalised
        linear interpolation; before the first and after the last stored time the scene stands still.
        """
        times = torch.as_tensor(time, dtype=torch.float32, device=self.times.device)
        if times.dim() == 0:
            return self.at(times[None])[0]
        check_shape("time", times, (None,))
        static = self.static.map(lambda x: x.expand(len(times), *x.shape))
        return Gaussians.cat([static, self._moving_at(times)])

    def select(self, kept: Tensor) -> "Scene4D":  # [S + M] bool
        """The Gaussians that a mask keeps, at all times."""
        check_shape("kept", kept, (len(self),))
        still, moving = kept.split([len(self.static), len(self.moving)])
        return replace(self, static=self.static.select(still), moving=self.moving.select(moving))

    def _moving_at(self, times: Tensor) -> Gaussians:  # [K] -> Gaussians [K, M]
        known, order = self.times.sort()
        times = times.clamp(known[0], known[-1])
        after = torch.searchsorted(known, times).clamp(min=0, max=len(known) - 1)
        before = (after - 1).clamp(min=0)
        span = known[after] - known[before]
        weight = torch.where(span > 0, (times - known[before]) / span.clamp(min=1e-12), torch.ones_like(span))
        a, b, weight = self.moving[order[before]], self.moving[order[after]], weight[:, None, None]
        return Gaussians(
            torch.lerp(a.means, b.means, weight),
            # -q is the same rotation, but at a stored time what is stored is handed back as it is
            torch.where(weight >= 1, b.quats, quaternion_lerp(a.quats, b.quats, weight)),
            torch.lerp(a.scales, b.scales, weight),
            torch.lerp(a.opacities, b.opacities, weight[..., 0]),
            torch.lerp(a.colors, b.colors, weight),
        )

    def to(self, device: torch.device | str) -> "Scene4D":
        moved = [getattr(self, name).to(device) for name in ("static", "moving", "times", "cameras", "view_times")]
        return Scene4D(*moved, self.image_size)

    def placed(self, scale: float | Tensor, transform: Tensor) -> "Scene4D":  # [], [4, 4] rigid
        """The scene in another world: every length times `scale`, then moved by `transform`; cameras follow."""
        turn = matrix_to_quaternion(transform[:3, :3])

        def place(g: Gaussians) -> Gaussians:
            means = transform_points(transform, (g.means * scale).flatten(0, -2)).reshape(g.means.shape)
            quats = quaternion_multiply(turn.expand_as(g.quats), g.quats)
            return replace(g, means=means, quats=quats, scales=g.scales * scale)

        cameras = self.cameras.rescaled(scale).transformed(transform)
        return replace(self, static=place(self.static), moving=place(self.moving), cameras=cameras)

    def save(self, path: str | Path) -> int:
        """Write the scene as safetensors, beside its place and renamed; returns the file's bytes.

        Means, cameras and times are stored in float32, all else in float16 (docs/scene_format.md): what is loaded is
        what was stored, bit for bit, and saving it again changes nothing.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors, unit = self._stored()
        # A copy each: safetensors refuses tensors that share memory, as times and view_times may.
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        metadata = {
            "format": FORMAT,
            "version": str(VERSION),
            "scale_unit": repr(unit),
            "image_size": json.dumps(list(self.image_size)),
        }
        with replacing_file(path) as temporary:
            try:
                save_file(tensors, temporary, metadata)
                _order_header(temporary)
            except SafetensorError as error:  # how it reports a full disk
                raise OSError(f"{path}: the scene cannot be written ({error})") from error
        return Path(path).stat().st_size

    @property
    def num_bytes(self) -> int:
        """The bytes of the tensors that `save` writes; the file has a header of a kilobyte or two besides."""
        return sum(tensor.nbytes for tensor in self._stored()[0].values())

    def _stored(self) -> tuple[dict[str, Tensor], float]:
        """The tensors of a file, and the unit of its scales."""
        largest = max((float(g.scales.max()) for g in (self.static, self.moving) if g.scales.numel()), default=1.0)
        unit = 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0
        tensors = {
            "times": self.times,
            "view_times": self.view_times,
            "cameras.c2w": self.cameras.c2w,
            "cameras.fxfycxcy": self.cameras.fxfycxcy,
            **_packed("static", self.static, unit),
            **_packed("moving", _constant_once(self.moving), unit),
        }
        return tensors, unit

    @staticmethod
    def load(path: str | Path) -> "Scene4D":
        """Read a scene that `save` wrote. Raises InputError for a missing, truncated, foreign or newer file."""
        tensors, metadata = _read(Path(path))
        missing = sorted({*_names(), "scale_unit", "image_size"} - {*tensors, *metadata})
        if missing:
            raise InputError(f"{path}: the scene lacks {', '.join(missing)}; reconstruct it again")
        unit = float(metadata["scale_unit"])
        times = tensors["times"]
        moving = {name: tensors[f"moving.{name}"] for name in _ATTRIBUTES}
        moving = {name: x.expand(len(times), *x.shape[1:]) for name, x in moving.items()}
        static = {name: tensors[f"static.{name}"] for name in _ATTRIBUTES}
        cameras = Cameras(tensors["cameras.c2w"], tensors["cameras.fxfycxcy"])
        height, width = json.loads(metadata["image_size"])
        return Scene4D(
            _unpacked(static, unit), _unpacked(moving, unit), times, cameras, tensors["view_times"], (height, width)
        )


def check_times(times: Tensor) -> None:  # [K]
    """Raise InputError unless there are times and all lie in [0, 1]."""
    check_shape("times", times, (None,))
    if not len(times):
        raise InputError("at least one time is needed, got none")
    wrong = [t for t in times.tolist() if not 0 <= t <= 1]  # NaN is wrong too
    if wrong:
        raise InputError(f"times run from 0 to 1 over the clip, got {wrong[0]:g}")


_ATTRIBUTES = tuple(field.name for field in fields(Gaussians))


def _order_header(path: Path) -> None:
    """Metadata in alphabetical order: safetensors writes them in any, and equal scenes should be equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))


def _names() -> list[str]:
    gaussians = [f"{part}.{name}" for part in ("static", "moving") for name in _ATTRIBUTES]
    return ["times", "view_times", "cameras.c2w", "cameras.fxfycxcy", *gaussians]


def _constant_once(moving: Gaussians) -> dict[str, Tensor]:  # [T, M] -> tensors [T or 1, M, ...]
    """Attributes that are the same at all times keep one time only."""
    tensors = {name: getattr(moving, name) for name in _ATTRIBUTES}
    return {name: x[:1] if bool((x == x[:1]).all()) else x for name, x in tensors.items()}


def _packed(part: str, gaussians: Gaussians | dict[str, Tensor], unit: float) -> dict[str, Tensor]:
    """Stored tensors: float32 means; the rest float16, scales in `unit` (a power of two, so dividing is exact)."""
    if isinstance(gaussians, Gaussians):
        gaussians = {name: getattr(gaussians, name) for name in _ATTRIBUTES}
    stored = {name: x.half() for name, x in gaussians.items() if name not in ("means", "scales")}
    stored["means"], stored["scales"] = gaussians["means"].float(), (gaussians["scales"] / unit).half()
    return {f"{part}.{name}": x for name, x in stored.items()}


def _unpacked(stored: dict[str, Tensor], unit: float) -> Gaussians:
    scales = stored["scales"].float() * unit
    return Gaussians(
        stored["means"], stored["quats"].float(), scales, stored["opacities"].float(), stored["colors"].float()
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such scene file; `movies reconstruct` writes DIR/scene.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path}: a safetensors file, but not a scene; give the scene.safetensors")
            if int(metadata.get("version", 0)) > VERSION:
                raise InputError(f"{path}: written by a newer movies (scene version {metadata['version']}); upgrade")
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise InputError(f"{path}: not a scene, or cut short ({error}); copy or reconstruct it again") from error
