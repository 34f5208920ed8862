"""What can be read from queries alone: depth, point clouds, tracks, cameras (D4RT, section 2.3). One video at a time.

Everything is in the network's own unit; the world is the camera of frame 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from movies.alignment import umeyama
from movies.cameras import Cameras
from movies.d4rt.network import D4RT, MEMORY_BUDGET
from movies.d4rt.queries import Queries, QueryAnswers, SceneTokens
from movies.errors import InputError
from movies.geometry import pixel_grid, rigid
from movies.shapes import check_shape

COARSE = 12  # points along one side of the grid that cameras are read from
OFF_CENTRE = 0.15  # of the picture: nearer to its middle a focal length is a quotient of two small numbers
# Table 10: where patches come from, and at what resolution depth is asked for.
CONFIGURATIONS = {1: ("none", "encoder"), 2: ("encoder", "encoder"), 3: ("encoder", "original"),
                  4: ("original", "original")}  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A network with the tokens of one video [1, ...], to be asked."""

    model: D4RT
    tokens: SceneTokens
    memory_budget: int = MEMORY_BUDGET

    @staticmethod
    @torch.no_grad()
    def of(model: D4RT, video: Tensor, original_patches: bool = False) -> "Reader":  # [T, 3, H, W]
        """Encode a video once; queries cut their colours from the encoder's frames, or from the original ones."""
        tokens = model.encode(video[None])
        return Reader(model, tokens.with_frames(video[None]) if original_patches else tokens)

    @property
    def num_frames(self) -> int:
        return self.tokens.num_frames

    @torch.no_grad()
    def ask(self, uv: Tensor, source, target, camera) -> QueryAnswers:  # [..., 2], times that broadcast to [...]
        """Answers with the leading dims [...] of the positions."""
        shape = uv.shape[:-1]
        frames = (torch.as_tensor(t, device=uv.device).expand(shape).flatten() for t in (source, target, camera))
        queries = Queries.of(uv.reshape(-1, 2), *frames)
        answers = self.model.query(self.tokens, queries, self.memory_budget)
        return answers.map(lambda x: x[0].reshape(*shape, *x.shape[2:]))

    def frames(self) -> Tensor:  # [T, 1]
        return torch.arange(self.num_frames, device=self.tokens.features.device)[:, None]

    def grid(self, height: int, width: int) -> Tensor:  # [T, H*W, 2]
        """Centres of pixels of every frame."""
        return pixel_grid(height, width, self.tokens.features.device).flatten(0, 1).expand(self.num_frames, -1, 2)


def read_depth(reader: Reader, height: int, width: int) -> tuple[Tensor, Tensor]:
    """z-depth [T, H, W] and confidence [T, H, W]: (u, v, t, t, t), z alone."""
    times = reader.frames()
    answers = reader.ask(reader.grid(height, width), times, times, times)
    return answers.points[..., 2].unflatten(1, (height, width)), answers.confidence.unflatten(1, (height, width))


def read_points(reader: Reader, height: int, width: int, camera: int = 0) -> tuple[Tensor, Tensor]:
    """Point cloud [T, H, W, 3] of all frames in one camera, and its confidence [T, H, W]: (u, v, t, t, camera)."""
    times = reader.frames()
    answers = reader.ask(reader.grid(height, width), times, times, camera)
    return answers.points.unflatten(1, (height, width)), answers.confidence.unflatten(1, (height, width))


def read_tracks(reader: Reader, uv: Tensor, source: Tensor, camera: int | None = None) -> QueryAnswers:
    """Positions [P, 2] of frames [P] at all times, answers [T, P]: in each time's own camera, or all in one."""
    times = reader.frames()
    camera = times if camera is None else camera
    return reader.ask(uv.expand(reader.num_frames, -1, 2), source, times, camera)


def read_extrinsics(reader: Reader) -> Tensor:  # [T, 4, 4]
    """c2w of every frame in the world of frame 0: the rigid motion from (u, v, t, t, t) to (u, v, t, t, 0) on a grid.

    Points count by the confidence of both answers.
    """
    times, grid = reader.frames(), reader.grid(COARSE, COARSE)
    own, first = (reader.ask(grid, times, times, camera) for camera in (times, 0))
    motion = umeyama(own.points, first.points, (own.confidence * first.confidence).sqrt(), with_scale=False)
    c2w = rigid(motion.rotation, motion.translation)
    c2w[0] = torch.eye(4, device=c2w.device)  # the world itself, whatever the two answers differ by
    return c2w


def read_intrinsics(reader: Reader) -> Tensor:  # [4] normalised fxfycxcy, one for the video
    """fx = median of z (u - 1/2) / x over a grid of all frames, fy likewise, the principal point at the centre.

    Raises InputError where the points have no extent to tell a focal length from.
    """
    times, grid = reader.frames(), reader.grid(COARSE, COARSE)
    points = reader.ask(grid, times, times, times).points  # [T, P, 3]
    focal = points[..., 2:] * (grid - 0.5) / points[..., :2]  # [T, P, 2]
    usable = ((grid - 0.5).abs() > OFF_CENTRE) & focal.isfinite() & (focal > 0)
    if not usable.flatten(0, 1).any(dim=0).all():
        raise InputError("no focal length can be read from these answers; give cameras, or other weights")
    medians = [focal[..., i][usable[..., i]].median() for i in (0, 1)]
    return torch.stack([*medians, *focal.new_tensor([0.5, 0.5])])


def read_cameras(reader: Reader) -> Cameras:  # [T]
    """Extrinsics and intrinsics of every frame."""
    return Cameras(read_extrinsics(reader), read_intrinsics(reader).expand(reader.num_frames, 4).clone())


def decode_depth(model: D4RT, video: Tensor, configuration: int = 4, frames: Tensor | None = None) -> Tensor:
    """Depth [K, H, W] of frames [K] (all) of a video [T, 3, H0, W0] in one of the four configurations of Table 10.

    1: no colour patches, at the encoder's resolution (a network with `rgb_patch` 0); 2: patches of the encoder's
    frames; 3: the same at the original resolution; 4: patches of the original frames as well. Raises InputError for
    other numbers, and for a network that does not fit the configuration.
    """
    check_shape("video", video, (None, 3, None, None))
    if configuration not in CONFIGURATIONS:
        raise InputError(f"configuration must be one of {', '.join(map(str, CONFIGURATIONS))}, got {configuration}")
    patches, output = CONFIGURATIONS[configuration]
    if (patches == "none") != (model.config.rgb_patch == 0):
        needs = "without" if patches == "none" else "with"
        raise InputError(f"configuration {configuration} needs a network trained {needs} colour patches (`rgb_patch`)")
    reader = Reader.of(model, video, patches == "original")
    side = model.config.image_size
    height, width = (side, side) if output == "encoder" else tuple(video.shape[-2:])
    times = reader.frames() if frames is None else frames[:, None]
    grid = reader.grid(height, width)[:1].expand(len(times), -1, 2)
    return reader.ask(grid, times, times, times).points[..., 2].unflatten(1, (height, width))
