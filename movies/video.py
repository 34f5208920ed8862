"""Frames in, frames out, false-colour pictures. The only door to imageio's ffmpeg and to Pillow."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from movies.errors import InputError
from movies.files import replacing_file
from movies.shapes import check_shape

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".3gp", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
WRITTEN_SUFFIXES = (".mp4", ".mov", ".mkv")
THUMBNAIL_SIZE = (36, 64)
FOLDER_FPS = 10.0  # a folder of images says nothing of its rate
MOST_NAMED = 64  # frames named one by one to ffmpeg

_ORIENTATION = 0x0112  # the EXIF tag
# What ffmpeg says of a file that ends too early while it still exits with 0.
_CUT_SHORT = re.compile(r"partial file|ended prematurely|Truncat", re.IGNORECASE)
# Nine anchors from dark blue over green to dark red; in between linear. Even steps look even enough for depth.
_RAMP = torch.tensor(
    [
        [0.19, 0.07, 0.23], [0.27, 0.42, 0.89], [0.16, 0.73, 0.92], [0.19, 0.95, 0.60], [0.64, 0.99, 0.24],
        [0.93, 0.81, 0.23], [0.98, 0.50, 0.13], [0.82, 0.19, 0.02], [0.48, 0.02, 0.01],
    ]
)  # fmt: skip


@dataclass(frozen=True)
class VideoFrames:
    """V frames of a clip of `num_total`, and where in the clip they lie."""

    images: Tensor  # [V, 3, H, W] float32 in [0, 1]
    indices: Tensor  # [V] int64 into the clip
    num_total: int
    fps: float
    names: tuple[str, ...] = ()  # of the frames read, () for a video


@dataclass(frozen=True)
class ClipFile:
    """A video, a gif or a folder of images whose frames are counted and not yet read."""

    path: Path
    num_total: int
    fps: float
    names: tuple[str, ...] = ()  # of all frames, () for a video

    def stream(self, indices: Tensor) -> Iterator[Tensor]:  # [V] ascending -> [3, H, W] in [0, 1] each
        """The frames at `indices`, one at a time. Raises InputError for what cannot be read, and for other sizes."""
        if not self.names:
            return (torch.from_numpy(f.copy()).permute(2, 0, 1).float() / 255 for f in _decode(self.path, indices))
        return _read_images(self.path, [self.names[i] for i in indices.tolist()])


def open_clip(path: str | Path) -> ClipFile:
    """A video, a gif or a folder of images (in natural order). Raises InputError for anything else."""
    path = Path(path)
    if path.is_dir():
        names = tuple(file.name for file in image_files(path))
        return ClipFile(path, len(names), FOLDER_FPS, names)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(
            f"{path}: not a kind of video that is read here ({' '.join(VIDEO_SUFFIXES)}); "
            "convert it, or give a folder of images"
        )
    return ClipFile(path, *_scan(path))


def read_frames(path: str | Path, num_frames: int) -> VideoFrames:
    """Read `num_frames` frames chosen evenly, the first and the last among them; all where the clip has fewer.

    `path` is a video, a gif or a folder of images in natural order. Only the frames chosen are held in memory.
    Raises InputError for what cannot be read, and for images of different sizes.
    """
    if num_frames < 1:
        raise InputError(f"the number of frames must be at least 1, got {num_frames}")
    clip = open_clip(path)
    indices = even_indices(clip.num_total, num_frames)
    names = tuple(clip.names[i] for i in indices.tolist()) if clip.names else ()
    return VideoFrames(torch.stack(list(clip.stream(indices))), indices, clip.num_total, clip.fps, names)


def read_thumbnails(path: str | Path) -> Tensor:  # [N, 36, 64] in [0, 1]
    """Small grey pictures of every frame of a clip, stretched to one shape: for measuring, not for looking at."""
    path, (height, width) = Path(path), THUMBNAIL_SIZE
    if path.is_dir():
        small = [read_image(file, height).mean(dim=0)[None, None] for file in image_files(path)]
        return torch.cat([F.interpolate(x, THUMBNAIL_SIZE, mode="area")[:, 0] for x in small])
    command = [ffmpeg_path(), "-nostdin", "-v", "error", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    command += ["-vf", f"scale={width}:{height}:flags=area,format=gray", "-f", "rawvideo", "-"]
    done = subprocess.run(command, capture_output=True)
    pixels = np.frombuffer(done.stdout, dtype=np.uint8)
    pixels = pixels[: len(pixels) // (height * width) * height * width]
    return torch.from_numpy(pixels.copy()).reshape(-1, height, width).float() / 255


def even_indices(num_total: int, num_frames: int) -> Tensor:  # [V] int64
    """At most `num_frames` positions spread evenly over a clip, its first and last frame among them."""
    return torch.linspace(0, num_total - 1, min(num_frames, num_total), dtype=torch.float64).round().long()


def video_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of a video's frames, rotation applied."""
    frame = next(iter(_decode(Path(path), torch.tensor([0]))))
    return frame.shape[0], frame.shape[1]


def ffmpeg_path() -> str:
    """The ffmpeg that comes with imageio-ffmpeg, or the one its environment variable names."""
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def _scan(path: Path) -> tuple[int, float]:
    """Count a video's frames by decoding it once without keeping any. -> (number, frames per second)"""
    command = [
        ffmpeg_path(),
        "-nostdin",
        "-v",
        "level+info",
        "-i",
        str(path),
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
    ]
    done = subprocess.run([*command, "-f", "null", "-progress", "pipe:1", "-"], capture_output=True)
    log = done.stderr.decode(errors="replace")
    counts = re.findall(rb"^frame=\s*(\d+)", done.stdout, re.MULTILINE)
    num_total = int(counts[-1]) if counts else 0
    if done.returncode != 0 or num_total == 0:
        raise InputError(f"{path}: cannot be read as a video ({_reason(log)}); is it whole, and really a video?")
    if _CUT_SHORT.search(log):
        raise InputError(f"{path}: the video is cut short after {num_total} frames; copy or record it again")
    rate = re.search(r"Video:.*?([\d.]+) (?:fps|tbr)", log)
    return num_total, float(rate[1]) if rate and float(rate[1]) > 0 else FOLDER_FPS


def _reason(log: str) -> str:
    """The most telling line of ffmpeg's log, without its prefixes."""
    lines = [line for line in log.splitlines() if "[error]" in line or "[fatal]" in line]
    last = lines[-1] if lines else "no frames in it"
    return re.sub(r"\[[^\]]*\]\s*", "", last).strip().rstrip(".")[-120:]


def _decode(path: Path, indices: Tensor) -> Iterator[np.ndarray]:
    """Frames [H, W, 3] uint8 at `indices`; ffmpeg drops the others, so they never reach this process.

    Of many frames it drops those before the first and after the last only: naming each takes ffmpeg too long.
    """
    wanted = indices.tolist()
    each = len(wanted) <= MOST_NAMED
    numbers = wanted if each else range(wanted[0], wanted[-1] + 1)
    select = "+".join(f"eq(n\\,{i})" for i in wanted) if each else f"between(n\\,{wanted[0]}\\,{wanted[-1]})"
    command = [ffmpeg_path(), "-nostdin", "-v", "error", "-i", str(path), "-map", "0:v:0", "-vf", f"select={select}"]
    command += ["-fps_mode", "passthrough", "-frames:v", str(len(numbers)), "-f", "image2pipe", "-pix_fmt", "rgb24"]
    left = set(wanted)
    with _running([*command, "-vcodec", "ppm", "-"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for number in numbers:
            if (frame := _read_ppm(process.stdout)) is None:
                break
            if number in left:
                left.remove(number)
                height, width, pixels = frame
                yield np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3)
    if left:
        done = len(wanted) - len(left)
        raise InputError(f"{path}: only {done} of {len(wanted)} frames could be decoded; copy or record it again")


def _read_ppm(stream) -> tuple[int, int, bytes] | None:
    """One binary PPM picture of a stream as (height, width, pixels), None at its end."""
    if stream.readline().strip() != b"P6":
        return None
    width, height = (int(n) for n in stream.readline().split())
    stream.readline()  # the largest value, 255
    pixels = stream.read(3 * width * height)
    return (height, width, pixels) if len(pixels) == 3 * width * height else None


@contextmanager
def _running(command: list[str], **pipes) -> Iterator[subprocess.Popen]:
    """A child process that never outlives the block."""
    process = subprocess.Popen(command, **pipes)
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None and not stream.closed:
                stream.close()
        process.kill()
        process.wait()


def image_files(path: Path) -> list[Path]:
    """The images of a folder in natural order of their names. Raises InputError where there are none."""
    files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    if not files:
        raise InputError(f"{path}: the folder holds no images ({' '.join(IMAGE_SUFFIXES)})")
    return sorted(files, key=lambda file: natural_key(file.name))


def _read_images(path: Path, names: list[str]) -> Iterator[Tensor]:  # [3, H, W] each
    """Pictures of a folder, all of the first one's size."""
    first = None
    for name in names:
        image = read_image(path / name)
        first = first or image.shape
        if image.shape != first:
            (_, h0, w0), (_, h, w) = first, image.shape
            raise InputError(
                f"{path}: frames of different sizes: {names[0]} is {w0}x{h0}, {name} is {w}x{h}; bring them to one size"
            )
        yield image


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts frame2 before frame10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def read_image(path: str | Path | BinaryIO, short_side: int = 0) -> Tensor:  # [3, H, W] in [0, 1]
    """Read one picture: turned as its EXIF tag says, grey and palette to RGB, alpha over black, 16 bits kept.

    With `short_side` a larger picture is made smaller while it is decoded (`scaled_size`), which is faster.
    """
    planes = torch.from_numpy(np.stack(_planes(path, short_side)))
    return planes / 255 if planes.dtype == torch.uint8 else planes


def read_image_into(image: Tensor, path: str | Path | BinaryIO, short_side: int = 0) -> None:  # [3, H, W]
    """`read_image` into memory that is there. Raises InputError for a picture of another size."""
    planes = _planes(path, short_side)
    if planes[0].shape != image.shape[1:]:
        (_, height, width), (h, w) = image.shape, planes[0].shape
        raise InputError(f"{path}: {w}x{h} pixels where the first frame gives {width}x{height}")
    for row, plane in zip(image.numpy(), planes, strict=True):
        # Converted and divided in one pass over the memory.
        np.divide(plane, 255 if plane.dtype == np.uint8 else 1, out=row, dtype=np.float32)


def _planes(path: str | Path | BinaryIO, short_side: int) -> list[np.ndarray]:  # 3 of [H, W], as `_rgb`
    from PIL import ImageOps

    with _opened(path) as file:
        size = scaled_size((file.height, file.width), short_side)
        file.draft("RGB", size[::-1])  # JPEG only: decodes at a half, a quarter or an eighth
        orientation = file.getexif().get(_ORIENTATION, 1)
        planes = _rgb(file if orientation == 1 else ImageOps.exif_transpose(file))
    size = size[::-1] if orientation >= 5 else size  # turned by a quarter
    if size == planes[0].shape:
        return planes
    whole = torch.from_numpy(np.stack(planes))
    return list(_shrunk(whole / 255 if whole.dtype == torch.uint8 else whole, size).numpy())


def scaled_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) whose shorter side is `short_side`; the size itself where it is smaller, or `short_side` 0."""
    factor = short_side / min(size)
    return size if short_side == 0 or factor >= 1 else (round(size[0] * factor), round(size[1] * factor))


def _shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:  # [3, H, W] -> [3, *size]
    small = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    return small.clamp(0, 1)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) from a picture's header, nothing decoded."""
    with _opened(path) as file:
        return file.height, file.width


def read_gray16(path: str | Path) -> np.ndarray:  # [H, W] uint16
    """The numbers of a 16-bit grey PNG as they are stored. Raises InputError for any other kind of picture."""
    with _opened(path) as file:
        if not file.mode.startswith("I"):
            raise InputError(f"{path}: a 16-bit grey picture is needed, this one is {file.mode}")
        return np.asarray(file).astype(np.uint16, copy=False)


def read_mask(path: str | Path) -> np.ndarray:  # [H, W] bool
    """Where a picture is not black."""
    with _opened(path) as file:
        pixels = np.asarray(file)
        return pixels.astype(bool) if pixels.ndim == 2 else pixels[..., :3].any(axis=-1)


@contextmanager
def _opened(path: str | Path):
    """A Pillow picture; what goes wrong in the block is told as InputError."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            yield file
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{path}: no such file") from error
        raise InputError(f"{path}: cannot be read as a picture; save it again or take it out") from error


def _rgb(picture) -> list[np.ndarray]:  # 3 of [H, W], uint8, or float32 in [0, 1] where 8 bits do not do
    if picture.mode.startswith(("I", "F")):  # 16-bit grey, which convert() would clip instead of scale
        return [(np.asarray(picture, dtype=np.float32) / 65535).clip(0, 1)] * 3
    if "A" in picture.mode or "transparency" in picture.info:
        *colors, alpha = np.asarray(picture.convert("RGBA"), dtype=np.float32).transpose(2, 0, 1) / 255
        return [color * alpha for color in colors]
    plain = picture if picture.mode == "RGB" else picture.convert("RGB")
    return [np.asarray(plane) for plane in plain.split()]  # Pillow takes pixels apart faster than a transpose


def write_video(path: str | Path, frames: Iterable[Tensor], fps: float) -> None:  # [3, H, W] each, in [0, 1]
    """Write frames as H.264, beside their place and renamed. Odd sizes grow by repeating the last row or column.

    `frames` is a tensor [K, 3, H, W] or an iterator, of which one frame at a time is held. Raises InputError for a
    suffix that is not written or no frames, OSError where the disk refuses.
    """
    path, frames = Path(path), iter(frames)
    check_video_suffix(path)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: a video needs at least one frame")
    check_shape("frame", first, (3, None, None))
    height, width = (n + n % 2 for n in first.shape[1:])  # 4:2:0 chroma needs even sizes
    command = [ffmpeg_path(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", f"{fps:g}", "-i", "-", "-an", "-vcodec", "libx264", "-crf", "14", "-pix_fmt", "yuv420p"]
    with replacing_file(path) as temporary:
        command += ["-movflags", "+faststart"] * (path.suffix != ".mkv") + [str(temporary)]
        with _running(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            _feed(process, (_even(to_uint8(frame)) for frame in _chain(first, frames)), path)


def check_video_suffix(path: str | Path) -> None:
    """Raise InputError unless videos of this suffix can be written."""
    if Path(path).suffix.lower() not in WRITTEN_SUFFIXES:
        raise InputError(f"{path}: videos are written as {' '.join(WRITTEN_SUFFIXES)}; name it so")


def _chain(first: Tensor, rest: Iterator[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest


def _feed(process: subprocess.Popen, pictures: Iterable[np.ndarray], path: Path) -> None:
    try:
        for picture in pictures:
            process.stdin.write(picture.tobytes())
        process.stdin.close()
    except BrokenPipeError:
        pass  # ffmpeg's own message, read below, says why it went
    log = process.stderr.read().decode(errors="replace")
    if process.wait() != 0:
        lines = [line for line in log.splitlines() if line.strip()]
        space = next((line for line in lines if "No space" in line), lines[-1] if lines else "ffmpeg failed")
        raise OSError(f"{path}: the video cannot be written ({re.sub(r'^.*?[]] *', '', space)})")


def _even(picture: np.ndarray) -> np.ndarray:  # [H, W, 3]
    height, width, _ = picture.shape
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def to_uint8(image: Tensor) -> np.ndarray:  # [3, H, W] in [0, 1] -> [H, W, 3]
    """Rounded 8-bit pixels; NaN becomes black."""
    pixels = image.detach().float().nan_to_num(0).clamp(0, 1).mul(255).round()
    return pixels.byte().permute(1, 2, 0).cpu().numpy()


def write_image(path: str | Path, image: Tensor) -> None:  # [3, H, W] in [0, 1]
    """Write one picture (.png or .jpg), beside its place and renamed."""
    from PIL import Image

    check_shape("image", image, (3, None, None))
    if Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{path}: pictures are written as .png or .jpg; name it so")
    with replacing_file(path) as temporary:
        Image.fromarray(to_uint8(image)).save(temporary)


def false_color(values: Tensor, mask: Tensor, logarithmic: bool = False, among: Tensor | None = None) -> Tensor:
    """Numbers [..., H, W] as colours [..., 3, H, W], small ones blue, large ones red; what `mask` excludes is black.

    The range is from the 2nd to the 98th percentile of all valid values together, so frames of a clip agree; or of the
    positive numbers `among`, which stand for more frames than these.
    """
    check_shape("mask", mask, tuple(values.shape))
    values = values.float().clamp(min=1e-6).log() if logarithmic else values.float()
    mask = mask & values.isfinite()
    valid = values[mask] if among is None else among.log() if logarithmic else among
    low, high = _percentiles(valid, 0.02, 0.98)
    position = ((values - low) / (high - low).clamp(min=1e-6)).nan_to_num(0).clamp(0, 1) * (len(_RAMP) - 1)
    ramp = _RAMP.to(values.device)
    below = position.floor().long().clamp(max=len(_RAMP) - 2)
    colors = torch.lerp(ramp[below], ramp[below + 1], (position - below)[..., None])  # [..., H, W, 3]
    return (colors * mask[..., None]).movedim(-1, -3)


def motion_picture(motion: Tensor) -> Tensor:  # [..., H, W, 3] -> [..., 3, H, W]
    """Motions as colours: grey stands still, red, green and blue are x, y and z (right, down, away).

    The 99th percentile of all lengths reaches full colour, but never less than 0.005, below which nothing moves.
    """
    lengths = motion.float().norm(dim=-1)
    _, longest = _percentiles(lengths[lengths.isfinite()], 0.0, 0.99)
    colors = 0.5 + 0.5 * motion.float().nan_to_num(0) / longest.clamp(min=0.005)
    return colors.clamp(0, 1).movedim(-1, -3)


def _percentiles(values: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    if values.numel() == 0:
        return values.new_zeros(()), values.new_ones(())
    step = max(1, values.numel() // 1_000_000)  # quantile() takes at most 16 M numbers, and needs no more than this
    low_value, high_value = torch.quantile(values.flatten()[::step], values.new_tensor([low, high]))
    return low_value, high_value


def contact_sheet(rows: dict[str, Tensor], columns: int = 6) -> Tensor:  # [K, 3, H, W] each -> [3, H', W']
    """One picture: a labelled row for each entry, `columns` frames evenly from it, all rows at one size."""
    from PIL import Image, ImageDraw

    height, width = next(iter(rows.values())).shape[-2:]
    margin, label = 2, 16
    size = (columns * (width + margin) + margin, len(rows) * (height + label))
    sheet = Image.new("RGB", size, (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for r, (name, frames) in enumerate(rows.items()):
        draw.text((margin + 2, r * (height + label) + 2), name, fill=(230, 230, 230))
        for c, k in enumerate(even_indices(len(frames), columns).tolist()):
            picture = Image.fromarray(to_uint8(frames[k])).resize((width, height))
            sheet.paste(picture, (margin + c * (width + margin), r * (height + label) + label))
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1).float() / 255
