"""Pictures of a dataset: images, depth in false colours, and tracks drawn on the images with tails of their past."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from movies.clip import Tracks, Views
from movies.data.manifest import load_mix
from movies.data.sequence import Sequence
from movies.errors import InputError
from movies.geometry import project
from movies.video import contact_sheet, false_color, write_image, write_video

FPS = 8.0
DRAWN = 128  # tracks at most: more hide the image
TAIL = 6  # frames of the past that a track's tail shows


def preview_manifests(path: str | Path, out: str | Path, num_sequences: int, num_frames: int) -> Iterator[Path]:
    """Write `<dataset>_<sequence>.mp4` and .png of the first sequences of a manifest, or of all in a mix."""
    if num_sequences < 1 or num_frames < 1:
        raise InputError(f"sequences and frames must be at least 1, got {num_sequences} and {num_frames}")
    for manifest in load_mix(path):
        for sequence in manifest.sequences()[:num_sequences]:
            stem = Path(out) / f"{manifest.name}_{sequence.name.replace('/', '_')}"
            yield from _write(sequence, stem, num_frames)


def _write(sequence: Sequence, stem: Path, num_frames: int) -> Iterator[Path]:
    views, tracks = sequence.read(range(min(num_frames, sequence.num_frames)))
    rows = pictures(views, tracks)
    video, sheet = stem.with_name(f"{stem.name}.mp4"), stem.with_name(f"{stem.name}.png")
    write_video(video, torch.cat(list(rows.values()), dim=-1), FPS)
    write_image(sheet, contact_sheet(rows))
    yield video
    yield sheet


def pictures(views: Views, tracks: Tracks) -> dict[str, Tensor]:  # [V, 3, H, W] each
    """Rows of a sheet: images, depth, tracks; only what there is."""
    rows = {"images": views.images}
    if views.depth_mask.any():
        rows["depth"] = false_color(views.depth, views.depth_mask, logarithmic=True)
    if len(tracks):
        rows["tracks"] = draw_tracks(views, tracks)
    return rows


def draw_tracks(views: Views, tracks: Tracks) -> Tensor:  # [V, 3, H, W]
    """Every track in its own colour: a dot where it is visible, and its past few visible positions in the same view."""
    chosen = slice(None, None, max(1, -(-len(tracks) // DRAWN)))
    points, visible = tracks.points[:, chosen], tracks.visible[:, chosen]
    height, width = views.size
    colors = torch.rand(3, points.shape[1], generator=torch.Generator().manual_seed(0))
    radius = max(1, min(height, width) // 100)
    xy, _ = project(points.nan_to_num(), views.cameras.fxfycxcy, views.cameras.c2w)  # [V, P, 2]
    pixels = (xy.nan_to_num().clamp(-1, 2) * torch.tensor([width, height])).floor().long()
    drawn = (0.6 * views.images).clone()
    for v in range(len(views)):
        for past in range(max(0, v - TAIL), v + 1):
            shown = visible[past]
            _dots(drawn[v], pixels[past][shown], colors[:, shown], radius if past == v else radius // 2)
    return drawn


def _dots(image: Tensor, pixels: Tensor, colors: Tensor, radius: int) -> None:  # [3, H, W], [P, 2], [3, P]
    height, width = image.shape[1:]
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            column, row = (pixels + torch.tensor([dx, dy])).unbind(-1)
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            image[:, row[inside], column[inside]] = colors[:, inside]
