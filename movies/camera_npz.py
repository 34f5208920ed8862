"""Cameras in .npz files: MoVieS' own {C2W, fxfycxcy}, MegaSaM's, and ViPE's with its neighbours."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies.cameras import CameraFile, Cameras
from movies.errors import InputError
from movies.files import replacing_file
from movies.geometry import rigid
from movies.video import video_size

MEGASAM_STEMS = ("_droid", "_sgd_cvd_hr")


def load_npz(path: Path) -> CameraFile:
    """Cameras of an .npz of any of the three kinds, told apart by its keys. Raises InputError."""
    arrays, keys = _npz(path, ("C2W", "fxfycxcy", "cam_c2w", "intrinsic", "data", "inds"))
    if "C2W" in arrays and "fxfycxcy" in arrays:
        fxfycxcy = torch.from_numpy(arrays["fxfycxcy"]).float()
        c2w = _c2w(arrays["C2W"], path)
        rows = fxfycxcy.expand(len(c2w), 4) if fxfycxcy.shape == (4,) else _rows(fxfycxcy, c2w, path)
        return CameraFile(Cameras(c2w, rows))
    if "cam_c2w" in arrays and "intrinsic" in arrays:
        return _megasam(arrays, path)
    if "data" in arrays:
        return _vipe(arrays, path)
    raise InputError(f"{path}: no cameras in it (keys {', '.join(keys)}); MoVieS has C2W, MegaSaM cam_c2w, ViPE data")


def _npz(path: Path, wanted: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: np.asarray(file[key]) for key in wanted if key in file}, sorted(file.keys())
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as npz without pickle; it is cut short or holds objects") from error


def _c2w(array: np.ndarray, path: Path) -> Tensor:  # [V, 4, 4]
    if array.ndim != 3 or array.shape[1:] not in ((4, 4), (3, 4)) or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: camera matrices must have shape [V, 4, 4], got {list(array.shape)}")
    matrix = torch.from_numpy(array.astype(np.float64))
    return rigid(matrix[:, :3, :3], matrix[:, :3, 3]).float()


def _rows(intrinsics: Tensor, c2w: Tensor, path: Path) -> Tensor:  # [V, 4]
    if tuple(intrinsics.shape) != (len(c2w), 4):
        raise InputError(f"{path}: intrinsics must have shape [{len(c2w)}, 4], got {list(intrinsics.shape)}")
    return intrinsics


def _megasam(arrays: dict[str, np.ndarray], path: Path) -> CameraFile:
    c2w, K = _c2w(arrays["cam_c2w"], path), arrays["intrinsic"]
    if K.shape != (3, 3):
        raise InputError(f"{path}: `intrinsic` must have shape [3, 3], got {list(K.shape)}")
    height, width = _picture_size(path)
    row = [K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height]
    fxfycxcy = torch.tensor(row, dtype=torch.float32).expand(len(c2w), 4).clone()
    return CameraFile(Cameras(c2w, fxfycxcy), size=(height, width))


def _picture_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header of `images` or `depths`, without reading the pictures."""
    with zipfile.ZipFile(path) as archive:
        for name in ("images.npy", "depths.npy"):
            if name in archive.namelist():
                with archive.open(name) as file:
                    np.lib.format.read_magic(file)
                    shape, _, _ = np.lib.format.read_array_header_1_0(file)
                return shape[1], shape[2]
    raise InputError(f"{path}: holds neither `images` nor `depths`, which tell the size its intrinsics are for")


def _vipe(arrays: dict[str, np.ndarray], path: Path) -> CameraFile:
    c2w = _c2w(arrays["data"], path)
    _check_whole(arrays.get("inds"), len(c2w), path)
    beside = path.parent.parent / "intrinsics" / path.name
    if not beside.exists():
        raise InputError(f"{path}: ViPE keeps intrinsics apart, and {beside} is not there")
    _check_pinhole(beside.with_name(f"{path.stem}_camera.txt"))
    given, _ = _npz(beside, ("data",))
    fx, fy, cx, cy = _rows(torch.from_numpy(given.get("data", np.zeros(0))).float(), c2w, beside).unbind(-1)
    video = path.parent.parent / "rgb" / f"{path.stem}.mp4"
    size = video_size(video) if video.exists() else (0, 0)
    height, width = (torch.full_like(fx, n) for n in size) if video.exists() else (2 * cy, 2 * cx)
    return CameraFile(Cameras(c2w, torch.stack([fx / width, fy / height, cx / width, cy / height], dim=-1)), size=size)


def _check_whole(indices: np.ndarray | None, count: int, path: Path) -> None:
    """ViPE numbers the frames that it has cameras of; without some of them the others would slip."""
    if indices is None:
        return
    absent = sorted(set(range(int(indices.max()) + 1)) - set(indices.tolist())) if len(indices) else []
    if absent or len(indices) != count:
        named = ", ".join(map(str, absent[:5])) or f"of {abs(len(indices) - count)}"
        raise InputError(f"{path}: no camera for frames {named}; cut them from the clip, or estimate again")


def _check_pinhole(types: Path) -> None:
    """ViPE names each frame's kind of camera as `0: PINHOLE`."""
    if not types.exists():
        return
    for line in types.read_text().splitlines():
        kind = line.partition(":")[2].strip()
        if kind not in ("", "PINHOLE"):
            raise InputError(f"{types}: frame {line.partition(':')[0]} is {kind}; undistort the images first")


def save_npz(file: CameraFile, path: Path) -> None:
    """Write what the name asks for: pose/NAME.npz ViPE, NAME_droid.npz and NAME_sgd_cvd_hr.npz MegaSaM, else MoVieS."""
    if path.parent.name == "pose":
        _save_vipe(file, path)
    elif path.stem.endswith(MEGASAM_STEMS):
        _save_megasam(file, path)
    else:
        _write(path, C2W=file.cameras.c2w.numpy(), fxfycxcy=file.cameras.fxfycxcy.numpy())


def _pixels(file: CameraFile) -> np.ndarray:  # [V, 4] float64
    height, width = file.size
    return (file.cameras.fxfycxcy.double() * torch.tensor([width, height, width, height])).numpy()


def _save_megasam(file: CameraFile, path: Path) -> None:
    (fx, fy, cx, cy), height, width = _pixels(file)[0], *file.size
    intrinsic = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    # Depth of zeros tells the size of the pictures, as MegaSaM's own files do.
    blank = np.zeros((len(file.cameras), height, width), dtype=np.float16)
    _write(path, cam_c2w=file.cameras.c2w.numpy(), intrinsic=intrinsic, depths=blank)


def _save_vipe(file: CameraFile, path: Path) -> None:
    indices, beside = np.arange(len(file.cameras)), path.parent.parent / "intrinsics" / path.name
    _write(path, data=file.cameras.c2w.numpy(), inds=indices)
    _write(beside, data=_pixels(file).astype(np.float32), inds=indices)
    with replacing_file(beside.with_name(f"{path.stem}_camera.txt")) as temporary:
        temporary.write_text("".join(f"{i}: PINHOLE\n" for i in indices))


def _write(path: Path, **arrays: np.ndarray) -> None:
    with replacing_file(path) as temporary:
        np.savez_compressed(temporary, **arrays)
