"""Views, Tracks, Clip, Batch: images with their cameras, depth and tracks, cropped, resized and rescaled together."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from movies.camera_files import read_camera_file
from movies.cameras import CameraFile, Cameras
from movies.errors import InputError
from movies.geometry import project, rigid_inverse, transform_points, unproject
from movies.shapes import check_shape
from movies.video import VideoFrames, read_frames


@dataclass(frozen=True)
class Views:
    """V images of one scene and what is known of them. Depth that is not known is 0 with a False mask."""

    images: Tensor  # [..., V, 3, H, W] in [0, 1]
    cameras: Cameras  # [..., V]
    times: Tensor  # [..., V] in [0, 1]
    depth: Tensor  # [..., V, H, W] z-depth, in the cameras' unit
    depth_mask: Tensor  # [..., V, H, W] bool

    def __post_init__(self) -> None:
        check_shape("images", self.images, (..., None, 3, None, None))
        *lead, _, height, width = self.images.shape
        check_shape("times", self.times, tuple(lead))
        check_shape("depth", self.depth, (*lead, height, width))
        check_shape("depth_mask", self.depth_mask, (*lead, height, width))
        check_shape("cameras.c2w", self.cameras.c2w, (*lead, 4, 4))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.images.shape[-2], self.images.shape[-1]

    def __len__(self) -> int:
        """The number of views V."""
        return self.times.shape[-1]

    def map(self, function) -> "Views":
        """Apply `function` to every tensor, those of the cameras included."""
        cameras = Cameras(function(self.cameras.c2w), function(self.cameras.fxfycxcy))
        return Views(
            function(self.images), cameras, function(self.times), function(self.depth), function(self.depth_mask)
        )

    def select(self, index) -> "Views":
        """The views at `index` (slice or positions along V), in every leading dim."""
        lead = (slice(None),) * (self.times.dim() - 1)
        return self.map(lambda tensor: tensor[(*lead, index)])

    def followed_by(self, others: "Views") -> "Views":  # [V], [W] -> [V + W]
        """These views, then others of the same size; no leading dims."""
        mine, theirs = ((v.images, v.times, v.depth, v.depth_mask, *vars(v.cameras).values()) for v in (self, others))
        images, times, depth, depth_mask, *cameras = (torch.cat(pair) for pair in zip(mine, theirs, strict=True))
        return Views(images, Cameras(*cameras), times, depth, depth_mask)

    def to(self, device: torch.device | str) -> "Views":
        return self.map(lambda tensor: tensor.to(device))

    def cropped(self, top: int, left: int, height: int, width: int) -> "Views":
        """The pixel window [top, top+height) x [left, left+width); cameras follow, cx and cy included."""
        rows, columns = self.size
        window = (..., slice(top, top + height), slice(left, left + width))
        cameras = self.cameras.cropped(top / rows, left / columns, height / rows, width / columns)
        return Views(self.images[window], cameras, self.times, self.depth[window], self.depth_mask[window])

    def resized(self, height: int, width: int) -> "Views":
        """Images antialiased; depth and its mask from the nearest pixel: a mean over an edge invents depth."""
        if (height, width) == self.size:
            return self
        flat = self.images.flatten(0, -4)  # [..., 3, H, W] -> [L, 3, H, W]
        images = F.interpolate(flat, (height, width), mode="bilinear", antialias=True, align_corners=False)
        images = images.clamp(0, 1).reshape(*self.images.shape[:-2], height, width)
        nearest = [_nearest(tensor, height, width) for tensor in (self.depth, self.depth_mask)]
        return Views(images, self.cameras, self.times, *nearest)

    def points(self) -> Tensor:  # [..., V, H, W, 3]
        """World points of all pixels."""
        return unproject(self.depth, self.cameras.fxfycxcy, self.cameras.c2w)


def _nearest(tensor: Tensor, height: int, width: int) -> Tensor:  # [..., H, W] -> [..., height, width]
    rows = ((torch.arange(height, device=tensor.device) + 0.5) * tensor.shape[-2] / height).long()
    columns = ((torch.arange(width, device=tensor.device) + 0.5) * tensor.shape[-1] / width).long()
    return tensor[..., rows[:, None], columns]


@dataclass(frozen=True)
class Tracks:
    """P world points followed through V views. A position that is not known is NaN; P = 0 where there are no tracks."""

    points: Tensor  # [..., V, P, 3] world
    visible: Tensor  # [..., V, P] bool: in the image and not hidden

    def __post_init__(self) -> None:
        check_shape("points", self.points, (..., None, None, 3))
        check_shape("visible", self.visible, tuple(self.points.shape[:-1]))

    def __len__(self) -> int:
        """The number of points P."""
        return self.points.shape[-2]

    @staticmethod
    def empty(*views: int) -> "Tracks":
        """No tracks for leading dims [..., V]."""
        return Tracks(torch.zeros(*views, 0, 3), torch.zeros(*views, 0, dtype=torch.bool))

    def map(self, function) -> "Tracks":
        return Tracks(function(self.points), function(self.visible))

    def select(self, index) -> "Tracks":
        """The views at `index` along V."""
        lead = (slice(None),) * (self.visible.dim() - 2)
        return self.map(lambda tensor: tensor[(*lead, index)])

    def to(self, device: torch.device | str) -> "Tracks":
        return self.map(lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class Clip:
    """One scene's views, context views first, then target views, with their tracks.

    `Clip.load` makes one from a video; the samplers of training make them from datasets. `has_cameras` False means
    that the cameras are placeholders and are to be estimated. The weights say how far depth and tracks are trusted.
    """

    views: Views  # V views
    tracks: Tracks  # of the same V views
    num_context: int
    has_cameras: bool = True
    is_static: bool = False
    name: str = ""
    depth_weight: float = 1.0
    motion_weight: float = 1.0

    def __post_init__(self) -> None:
        check_shape("tracks.visible", self.tracks.visible, (*self.views.times.shape, None))
        if not 1 <= self.num_context <= len(self.views):
            raise InputError(f"num_context must be in 1..{len(self.views)}, got {self.num_context}")

    @property
    def images(self) -> Tensor:  # [V, 3, H, W]
        return self.views.images

    @property
    def times(self) -> Tensor:  # [V]
        return self.views.times

    @property
    def cameras(self) -> Cameras:  # [V]
        return self.views.cameras

    @property
    def context(self) -> Views:
        return self.views.select(slice(0, self.num_context))

    @property
    def target(self) -> Views:
        return self.views.select(slice(self.num_context, None))

    @staticmethod
    def load(path: str | Path, num_frames: int = 13, cameras: "str | Path | Cameras | None" = None) -> "Clip":
        """Read `num_frames` frames chosen evenly from a video file, a gif or a folder of images.

        `cameras` is a camera file or Cameras, one for each frame of the video or one for each frame chosen. Raises
        InputError for an unreadable or one-frame clip, and for cameras of another number.
        """
        frames = read_frames(path, num_frames)
        num_views = len(frames.images)
        if num_views < 2:
            raise InputError(f"{path}: a clip needs at least 2 frames, this one has {num_views}")
        given = None if cameras is None else matching_cameras(cameras, frames, path)
        return Clip.of_frames(frames.images, given, Path(path).stem)

    @staticmethod
    def of_frames(images: Tensor, cameras: Cameras | None = None, name: str = "") -> "Clip":  # [V, 3, H, W], [V]
        """Context frames evenly in time, their cameras to be estimated where none are given."""
        num_views, _, height, width = images.shape
        blank = torch.zeros(num_views, height, width)
        chosen = _placeholder_cameras(num_views) if cameras is None else cameras
        views = Views(images, chosen, torch.linspace(0, 1, num_views), blank, blank.bool())
        return Clip(views, Tracks.empty(num_views), num_views, cameras is not None, name=name)

    def cropped(self, top: int, left: int, height: int, width: int) -> "Clip":
        """Crop images, depth and cameras; tracks that leave the window are no longer visible."""
        return replace(self, views=self.views.cropped(top, left, height, width))._hide_outside()

    def resized(self, height: int, width: int) -> "Clip":
        return replace(self, views=self.views.resized(height, width))

    def canonical(self) -> "Clip":
        """Move the world so that the first context camera is the identity; tracks move along, depth stays."""
        world_to_first = rigid_inverse(self.cameras.c2w[0])
        moved = replace(self.views, cameras=self.cameras.transformed(world_to_first))
        points = transform_points(world_to_first, self.tracks.points)
        return replace(self, views=moved, tracks=Tracks(points, self.tracks.visible))

    def unit_scale(self) -> tuple["Clip", Tensor]:
        """Scale the world so that context points lie at mean distance 1 from the first camera. -> (clip, factor []).

        Only the context views drawn count, so nothing of the target frames leaks into the scale. Without valid depth
        the factor is 1. Call it on a canonical clip.
        """
        context = self.context
        distances = context.points().norm(dim=-1)  # [V, H, W]
        count = context.depth_mask.sum()
        mean = torch.where(context.depth_mask, distances, torch.zeros(())).sum() / count.clamp(min=1)
        usable = (count > 0) & mean.isfinite() & (mean > 1e-8)
        factor = torch.where(usable, 1 / mean.clamp(min=1e-8), torch.ones_like(mean))
        return self.rescaled(factor), factor

    def rescaled(self, factor: Tensor | float) -> "Clip":
        """Multiply every length of the world (camera centres, depth, tracks) by `factor`."""
        views = replace(self.views, cameras=self.cameras.rescaled(factor), depth=self.views.depth * factor)
        return replace(self, views=views, tracks=Tracks(self.tracks.points * factor, self.tracks.visible))

    def _hide_outside(self) -> "Clip":
        xy, z = project(self.tracks.points, self.cameras.fxfycxcy, self.cameras.c2w)
        inside = ((xy >= 0) & (xy <= 1)).all(dim=-1) & (z > 0)
        return replace(self, tracks=Tracks(self.tracks.points, self.tracks.visible & inside))


def _placeholder_cameras(num_views: int) -> Cameras:
    focal = 0.5 / torch.tan(torch.deg2rad(torch.tensor(30.0)))
    fxfycxcy = torch.tensor([focal, focal, 0.5, 0.5]).expand(num_views, 4).clone()
    return Cameras(torch.eye(4).expand(num_views, 4, 4).clone(), fxfycxcy)


SHAPE_TOLERANCE = 0.02  # between width over height of the cameras' pictures and of the frames; sizes round


def matching_cameras(given: str | Path | Cameras, frames: VideoFrames, path: str | Path) -> Cameras:
    """A camera for each frame read: by the frames' names where both sides have them, otherwise by their order."""
    source = "cameras" if isinstance(given, Cameras) else str(given)
    file = CameraFile(given) if isinstance(given, Cameras) else read_camera_file(given)
    cameras = file.cameras
    if not (cameras.c2w.isfinite().all() and cameras.fxfycxcy.isfinite().all()):
        raise InputError(f"{source}: cameras hold NaN or infinite numbers; estimate them again or leave them out")
    _check_shape_of_pictures(file, frames, source)
    if file.names and frames.names:
        return cameras[_by_name(file.names, frames.names, source)]
    if len(cameras) == frames.num_total:
        return cameras[frames.indices]
    if len(cameras) == len(frames.indices):
        return cameras
    between = f"; these are for {file.names[0]} to {file.names[-1]}" if file.names else ""
    raise InputError(
        f"{source}: {len(cameras)} cameras for {path} with {frames.num_total} frames; "
        f"give one for each frame, or one for each of the {len(frames.indices)} frames read{between}"
    )


def _check_shape_of_pictures(file: CameraFile, frames: VideoFrames, source: str) -> None:
    """Another resolution is fine, as intrinsics are normalised; another shape means another crop."""
    (rows, columns), (height, width) = file.size, frames.images.shape[-2:]
    if rows and columns and abs((columns / rows) / (width / height) - 1) > SHAPE_TOLERANCE:
        raise InputError(
            f"{source}: the cameras are for pictures of {columns}x{rows}, the frames are {width}x{height}, which is "
            "another shape; give cameras of the frames as they are"
        )


def _by_name(known: tuple[str, ...], wanted: tuple[str, ...], source: str) -> Tensor:  # [V] int64
    """Positions of the wanted frames among those known, by file name without folder and suffix."""
    places = {Path(name).stem: i for i, name in enumerate(known)}
    missing = [name for name in wanted if Path(name).stem not in places]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(
            f"{source}: no camera for {', '.join(missing[:5])}{more} of the {len(wanted)} frames read; it has "
            f"{len(known)}, from {known[0]} to {known[-1]}"
        )
    return torch.tensor([places[Path(name).stem] for name in wanted])


@dataclass(frozen=True)
class Batch:
    """B clips of one size and one number of context views, ready for the network."""

    views: Views  # leading dims [B, V]
    tracks: Tracks  # [B, V, P]; shorter ones padded with invisible NaN points
    num_context: int
    is_static: Tensor  # [B] bool
    names: tuple[str, ...]
    depth_weight: Tensor = field(default_factory=lambda: torch.ones(()))  # [B] of the depth loss, or [] for all
    motion_weight: Tensor = field(default_factory=lambda: torch.ones(()))  # [B] or []

    @property
    def context(self) -> Views:
        return self.views.select(slice(0, self.num_context))

    @property
    def target(self) -> Views:
        return self.views.select(slice(self.num_context, None))

    def to(self, device: torch.device | str) -> "Batch":
        parts = ("views", "tracks", "is_static", "depth_weight", "motion_weight")
        return replace(self, **{name: getattr(self, name).to(device) for name in parts})

    @staticmethod
    def stack(clips: list[Clip]) -> "Batch":
        """Stack clips of equal shape; raises InputError where their numbers of context views differ."""
        if len({clip.num_context for clip in clips}) != 1:
            raise InputError("a batch needs clips with one number of context views")
        views = Views(
            *(
                _stack([getattr(clip.views, f.name) for clip in clips])
                for f in fields(Views)
            )
        )  # fmt: skip
        most = max(len(clip.tracks) for clip in clips)
        tracks = [_padded(clip.tracks, most) for clip in clips]
        return Batch(
            views,
            Tracks(torch.stack([t.points for t in tracks]), torch.stack([t.visible for t in tracks])),
            clips[0].num_context,
            torch.tensor([clip.is_static for clip in clips]),
            tuple(clip.name for clip in clips),
            torch.tensor([clip.depth_weight for clip in clips]),
            torch.tensor([clip.motion_weight for clip in clips]),
        )


def _stack(parts: list):
    if isinstance(parts[0], Cameras):
        return Cameras(torch.stack([p.c2w for p in parts]), torch.stack([p.fxfycxcy for p in parts]))
    return torch.stack(parts)


def _padded(tracks: Tracks, num_points: int) -> Tracks:
    missing = num_points - len(tracks)
    points = F.pad(tracks.points, (0, 0, 0, missing), value=float("nan"))
    return Tracks(points, F.pad(tracks.visible, (0, missing), value=False))
