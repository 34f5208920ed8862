"""COLMAP's sparse models, read and written without COLMAP, as text or binary. World-to-camera there, c2w here."""

import struct
from pathlib import Path

import torch
from torch import Tensor

from movies.cameras import CameraFile, Cameras
from movies.errors import InputError
from movies.files import replacing_file
from movies.geometry import matrix_to_quaternion, quaternion_to_matrix, rigid, rigid_inverse
from movies.video import natural_key

# COLMAP's models by number: name, how many leading parameters are focal lengths and centre, how many follow.
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3, 0),
    1: ("PINHOLE", 4, 0),
    2: ("SIMPLE_RADIAL", 3, 1),
    3: ("RADIAL", 3, 2),
    4: ("OPENCV", 4, 4),
    6: ("FULL_OPENCV", 4, 8),
}
_BY_NAME = {name: (pinhole, rest) for name, pinhole, rest in _MODELS.values()}


def load_folder(folder: Path) -> CameraFile:
    """Cameras [V] by image name of a folder with cameras and images, .bin before .txt. Raises InputError."""
    suffix = ".bin" if (folder / "images.bin").exists() else ".txt"
    cameras_path, images_path = folder / f"cameras{suffix}", folder / f"images{suffix}"
    for path in (cameras_path, images_path):
        if not path.exists():
            raise InputError(f"{path}: missing; a COLMAP model has cameras and images, both .txt or both .bin")
    try:
        if suffix == ".bin":
            intrinsics, images = _binary_cameras(cameras_path), _binary_images(images_path)
        else:
            intrinsics, images = _text_cameras(cameras_path), _text_images(images_path)
        images.sort(key=lambda image: natural_key(image[0]))
        used = [intrinsics[camera_id] for _, camera_id, _ in images]
    except (ValueError, IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: the COLMAP model is damaged or cut short; export it again") from error
    if not images:
        raise InputError(f"{images_path}: the COLMAP model holds no registered images")
    cameras = Cameras(torch.stack([c2w for _, _, c2w in images]), torch.stack([fxfycxcy for fxfycxcy, _ in used]))
    sizes = {size for _, size in used}
    return CameraFile(cameras, tuple(name for name, _, _ in images), sizes.pop() if len(sizes) == 1 else (0, 0))


def save_folder(file: CameraFile, folder: Path, suffix: str) -> None:
    """Write a model without points, `suffix` .txt or .bin; needs names and the size. One camera a set of intrinsics."""
    height, width = file.size
    params = file.cameras.fxfycxcy.double() * torch.tensor([width, height, width, height], dtype=torch.float64)
    distinct, camera_of = params.unique(dim=0, return_inverse=True)
    w2c = rigid_inverse(file.cameras.c2w.double())
    poses = torch.cat([matrix_to_quaternion(w2c[:, :3, :3]), w2c[:, :3, 3]], dim=-1).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(zip(poses, (camera_of + 1).tolist(), file.names, strict=True))
    contents = _text if suffix == ".txt" else _binary
    for name, content in zip(
        ("cameras", "images", "points3D"), contents(distinct.tolist(), rows, file.size), strict=True
    ):
        with replacing_file(folder / f"{name}{suffix}") as temporary:
            temporary.write_bytes(content)


def _text(cameras: list[list[float]], images: list[tuple], size: tuple[int, int]) -> tuple[bytes, bytes, bytes]:
    height, width = size
    lines = [f"{i} PINHOLE {width} {height} {_numbers(row)}" for i, row in enumerate(cameras, start=1)]
    poses = [f"{i} {_numbers(pose)} {cam} {name}\n" for i, (pose, cam, name) in enumerate(images, start=1)]
    texts = (
        ["# CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY", *lines],
        ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of points", *poses],
        ["# no points"],
    )
    return tuple("\n".join([*text, ""]).encode() for text in texts)


def _numbers(row: list[float]) -> str:
    return " ".join(map(repr, row))


def _binary(cameras: list[list[float]], images: list[tuple], size: tuple[int, int]) -> tuple[bytes, bytes, bytes]:
    height, width = size
    blocks = [struct.pack("<iiQQ4d", i, 1, width, height, *row) for i, row in enumerate(cameras, start=1)]
    poses = [
        struct.pack("<i7di", i, *pose, cam) + name.encode() + b"\0" + struct.pack("<Q", 0)
        for i, (pose, cam, name) in enumerate(images, start=1)
    ]
    return tuple(struct.pack("<Q", len(part)) + b"".join(part) for part in (blocks, poses, []))


def _intrinsics(
    path: Path, model: str, width: int, height: int, params: list[float]
) -> tuple[Tensor, tuple[int, int]]:  # [4], (height, width)
    if model not in _BY_NAME:
        raise InputError(
            f"{path}: camera model {model} is not read ({', '.join(_BY_NAME)}); undistort the images first"
        )
    pinhole, rest = _BY_NAME[model]
    if len(params) != pinhole + rest:
        raise InputError(f"{path}: camera model {model} has {pinhole + rest} parameters, got {len(params)}")
    if any(params[pinhole:]):
        raise InputError(f"{path}: the cameras have lens distortion ({model}); run `colmap image_undistorter` first")
    fx, fy, cx, cy = params[:4] if pinhole == 4 else (params[0], *params[:3])
    return torch.tensor([fx / width, fy / height, cx / width, cy / height]), (height, width)


def _c2w(quat: tuple[float, ...], translation: tuple[float, ...]) -> Tensor:  # wxyz, world to camera -> [4, 4]
    rotation = quaternion_to_matrix(torch.tensor(quat, dtype=torch.float64))
    return rigid_inverse(rigid(rotation, torch.tensor(translation, dtype=torch.float64))).float()


def _text_cameras(path: Path) -> dict[int, tuple[Tensor, tuple[int, int]]]:
    rows = [line.split() for line in path.read_text().splitlines() if line.strip() and line[0] != "#"]
    return {int(r[0]): _intrinsics(path, r[1], int(r[2]), int(r[3]), [float(x) for x in r[4:]]) for r in rows}


def _text_images(path: Path) -> list[tuple[str, int, Tensor]]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    images = []
    for line in lines[::2]:  # the line after each image lists its points, and may be empty
        parts = line.split(maxsplit=9)
        if parts:
            numbers = [float(x) for x in parts[1:8]]
            images.append((parts[9], int(parts[8]), _c2w(tuple(numbers[:4]), tuple(numbers[4:]))))
    return images


def _binary_cameras(path: Path) -> dict[int, tuple[Tensor, tuple[int, int]]]:
    data, cameras = path.read_bytes(), {}
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        camera_id, model_id, width, height = struct.unpack_from("<iiQQ", data, at)
        name, pinhole, rest = _MODELS.get(model_id, (f"number {model_id}", 0, 0))
        params = struct.unpack_from(f"<{pinhole + rest}d", data, at + 24)
        cameras[camera_id] = _intrinsics(path, name, width, height, list(params))
        at += 24 + 8 * len(params)
    return cameras


def _binary_images(path: Path) -> list[tuple[str, int, Tensor]]:
    data, images = path.read_bytes(), []
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        _, *numbers, camera_id = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        name = data[at + 64 : end].decode()
        (points,) = struct.unpack_from("<Q", data, end + 1)
        images.append((name, camera_id, _c2w(tuple(numbers[:4]), tuple(numbers[4:]))))
        at = end + 9 + 24 * points  # x, y and the point's id
    return images
