"""Camera files of others, read and written: transforms.json, COLMAP, TUM, MegaSaM, ViPE and MoVieS' own npz.

The content chooses the format on reading, the suffix on writing. Cameras come in the order of the video: by image
name where the file names images, otherwise as written.

* transforms.json (nerfstudio, instant-ngp): c2w with OpenGL axes; intrinsics in pixels, for all frames or each one.
  Ours carries `fxfycxcy` (normalised) besides.
* COLMAP: a folder with cameras and images as .txt or .bin, also under sparse/0; only pinhole models, or others whose
  distortion is zero.
* TUM: `time tx ty tz qx qy qz qw` a line, camera to world. TUM knows no intrinsics, so a comment line
  `# fxfycxcy 1.2 1.6 0.5 0.5` (normalised by width and height) must come with it.
* npz: MoVieS {C2W, fxfycxcy}; MegaSaM {cam_c2w, intrinsic, images or depths}; ViPE pose/NAME.npz with
  intrinsics/NAME.npz beside it and rgb/NAME.mp4 for the size (without it the principal point is taken as the centre).
"""

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from movies import colmap
from movies.cameras import Cameras
from movies.errors import InputError
from movies.files import replacing_file
from movies.geometry import matrix_to_quaternion, quaternion_to_matrix, rigid
from movies.video import natural_key, video_size

_OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))  # OpenGL camera axes (y up, z backward) to OpenCV and back
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


def load_cameras(path: str | Path) -> Cameras:
    """Cameras [V] of a file or folder. Raises InputError for what is missing, malformed, NaN or distorted."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such camera file")
    if path.is_dir():
        return _checked(_load_folder(path), path)
    if path.suffix == ".bin" or path.name in ("images.txt", "cameras.txt"):
        return _checked(colmap.load_folder(path.parent), path)
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start[:2] == b"PK":
        return _checked(_load_npz(path), path)
    if start[:1] == b"{":
        return _checked(_load_transforms(path), path)
    return _checked(_load_tum(path), path)


def save_cameras(cameras: Cameras, path: str | Path, size: tuple[int, int] | None = None) -> None:
    """Write cameras [V]: .json as transforms.json, .npz as MoVieS' C2W and fxfycxcy, .txt or .tum as TUM.

    With the images' `size` (height, width) a .json also holds the intrinsics in pixels, which other programs want.
    """
    path = Path(path)
    if len(cameras.shape) != 1:
        raise InputError(f"cameras to save must have shape [V], got {list(cameras.shape)}")
    cameras = cameras.to("cpu")
    suffix = path.suffix.lower()
    if suffix == ".json":
        text = json.dumps(_transforms(cameras, size), indent=1)
    elif suffix in (".txt", ".tum"):
        text = _tum(cameras, path)
    elif suffix != ".npz":
        raise InputError(f"{path}: cameras are written as .json, .npz, .txt or .tum; name it so")
    with replacing_file(path) as temporary:
        if suffix == ".npz":
            np.savez(temporary, C2W=cameras.c2w.numpy(), fxfycxcy=cameras.fxfycxcy.numpy())
        else:
            temporary.write_text(text)


def _checked(cameras: Cameras, path: Path) -> Cameras:
    c2w, fxfycxcy = cameras.c2w, cameras.fxfycxcy
    if not len(cameras):
        raise InputError(f"{path}: holds no cameras")
    if not (c2w.isfinite().all() and fxfycxcy.isfinite().all()):
        bad = int((~(c2w.flatten(1).isfinite().all(1) & fxfycxcy.isfinite().all(1))).nonzero()[0])
        raise InputError(f"{path}: camera {bad} holds NaN or infinite numbers; estimate it again or leave cameras out")
    if (fxfycxcy[:, :2] <= 0).any():
        raise InputError(f"{path}: focal lengths must be above zero")
    rotation = c2w[:, :3, :3]
    off = (rotation @ rotation.transpose(1, 2) - torch.eye(3)).abs().amax((1, 2))
    if (off > 1e-2).any() or (torch.linalg.det(rotation) < 0).any():
        bad = int(((off > 1e-2) | (torch.linalg.det(rotation) < 0)).nonzero()[0])
        raise InputError(f"{path}: the rotation of camera {bad} is no rotation; matrices must be rigid, without scale")
    return cameras


def _load_folder(path: Path) -> Cameras:
    if (path / "transforms.json").exists():
        return _load_transforms(path / "transforms.json")
    for folder in (path, path / "sparse" / "0", path / "sparse"):
        if (folder / "images.bin").exists() or (folder / "images.txt").exists():
            return colmap.load_folder(folder)
    poses = sorted((path / "pose").glob("*.npz"))
    if len(poses) == 1:
        return _load_npz(poses[0])
    if poses:
        raise InputError(f"{path}: holds {len(poses)} ViPE clips; give one pose/NAME.npz")
    raise InputError(f"{path}: holds no transforms.json, COLMAP model (cameras and images) or ViPE pose/NAME.npz")


# --- transforms.json


def _load_transforms(path: Path) -> Cameras:
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not whole JSON ({error}); write or copy it again") from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{path}: no list `frames` in it, so this is not a transforms.json")
    if not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path}: every entry of `frames` must be an object with a transform_matrix")
    names = [frame.get("file_path") for frame in frames]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        frames = sorted(frames, key=lambda frame: natural_key(frame["file_path"]))
    c2w = torch.stack([_matrix(frame, i, path) for i, frame in enumerate(frames)]) @ _OPENGL
    return Cameras(
        c2w, torch.stack([_json_intrinsics({**content, **frame}, i, path) for i, frame in enumerate(frames)])
    )


def _matrix(frame: dict, i: int, path: Path) -> Tensor:  # [4, 4]
    try:
        matrix = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: frame {i} has no transform_matrix of 4x4 numbers") from error
    if tuple(matrix.shape) not in ((4, 4), (3, 4)):
        raise InputError(f"{path}: the transform_matrix of frame {i} must be 4x4, got {list(matrix.shape)}")
    return rigid(matrix[:3, :3], matrix[:3, 3]).float()


def _json_intrinsics(values: dict, i: int, path: Path) -> Tensor:  # [4]
    if "FISHEYE" in str(values.get("camera_model", "")).upper() or any(values.get(k) for k in _DISTORTION):
        raise InputError(f"{path}: frame {i} has lens distortion; undistort the images first (COLMAP, ns-process-data)")
    try:
        if "fxfycxcy" in values:
            return torch.tensor(values["fxfycxcy"], dtype=torch.float32).reshape(4)
        width, height = float(values["w"]), float(values["h"])
        if "fl_x" in values:
            fx = float(values["fl_x"])
        else:
            fx = 0.5 * width / math.tan(0.5 * float(values["camera_angle_x"]))
        fy = float(values.get("fl_y", fx))
        cx, cy = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
        return torch.tensor([fx / width, fy / height, cx / width, cy / height])
    except (KeyError, TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise InputError(f"{path}: frame {i} lacks intrinsics; it needs w, h and fl_x (fl_y, cx, cy)") from error


def _transforms(cameras: Cameras, size: tuple[int, int] | None) -> dict:
    frames = []
    for i, (c2w, fxfycxcy) in enumerate(zip(cameras.c2w @ _OPENGL, cameras.fxfycxcy, strict=True)):
        frame = {"file_path": f"images/{i:05d}.png", "transform_matrix": c2w.tolist(), "fxfycxcy": fxfycxcy.tolist()}
        if size is not None:
            height, width = size
            fx, fy, cx, cy = fxfycxcy.tolist()
            frame |= {"w": width, "h": height, "fl_x": fx * width, "fl_y": fy * height, "cx": cx * width}
            frame |= {"cy": cy * height}
        frames.append(frame)
    return {"camera_model": "PINHOLE", "frames": frames}


# --- TUM


def _load_tum(path: Path) -> Cameras:
    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        rows = [[float(x) for x in line.split()] for line in lines if not line.startswith("#")]
        given = [line.split()[2:] for line in lines if line.startswith("# fxfycxcy ")]
        intrinsics = [float(x) for x in given[0]] if given else []
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no camera format that is known (transforms.json, COLMAP, TUM, npz)") from error
    if not rows or any(len(row) != 8 for row in rows):
        raise InputError(f"{path}: a TUM file needs 8 numbers a line: time tx ty tz qx qy qz qw")
    if len(intrinsics) != 4:
        raise InputError(f"{path}: TUM knows no intrinsics; add the line `# fxfycxcy FX/W FY/H CX/W CY/H`")
    values = torch.tensor(rows, dtype=torch.float64)
    quats = values[:, [7, 4, 5, 6]]
    return Cameras(
        rigid(quaternion_to_matrix(quats), values[:, 1:4]).float(),
        torch.tensor(intrinsics).expand(len(rows), 4).clone(),
    )


def _tum(cameras: Cameras, path: Path) -> str:
    if (cameras.fxfycxcy - cameras.fxfycxcy[:1]).abs().max() > 1e-6:
        raise InputError(f"{path}: TUM holds one set of intrinsics, these cameras zoom; write a .json instead")
    quats = matrix_to_quaternion(cameras.c2w[:, :3, :3])[:, [1, 2, 3, 0]]
    header = "# fxfycxcy " + " ".join(f"{x:.9g}" for x in cameras.fxfycxcy[0].tolist())
    rows = torch.cat([cameras.centers, quats], dim=-1).tolist()
    return "\n".join([header, *(f"{i} " + " ".join(f"{x:.9g}" for x in row) for i, row in enumerate(rows))]) + "\n"


# --- npz


def _load_npz(path: Path) -> Cameras:
    arrays, keys = _npz(path, ("C2W", "fxfycxcy", "cam_c2w", "intrinsic", "data"))
    if "C2W" in arrays and "fxfycxcy" in arrays:
        fxfycxcy = torch.from_numpy(arrays["fxfycxcy"]).float()
        c2w = _c2w(arrays["C2W"], path)
        return Cameras(c2w, fxfycxcy.expand(len(c2w), 4) if fxfycxcy.shape == (4,) else _rows(fxfycxcy, c2w, path))
    if "cam_c2w" in arrays and "intrinsic" in arrays:
        return _megasam(arrays, path)
    if "data" in arrays:
        return _vipe(arrays["data"], path)
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


def _megasam(arrays: dict[str, np.ndarray], path: Path) -> Cameras:
    c2w, K = _c2w(arrays["cam_c2w"], path), arrays["intrinsic"]
    if K.shape != (3, 3):
        raise InputError(f"{path}: `intrinsic` must have shape [3, 3], got {list(K.shape)}")
    height, width = _picture_size(path)
    row = [K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height]
    return Cameras(c2w, torch.tensor(row, dtype=torch.float32).expand(len(c2w), 4).clone())


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


def _vipe(poses: np.ndarray, path: Path) -> Cameras:
    c2w = _c2w(poses, path)
    beside = path.parent.parent / "intrinsics" / path.name
    if not beside.exists():
        raise InputError(f"{path}: ViPE keeps intrinsics apart, and {beside} is not there")
    arrays, _ = _npz(beside, ("data",))
    fx, fy, cx, cy = _rows(torch.from_numpy(arrays.get("data", np.zeros(0))).float(), c2w, beside).unbind(-1)
    video = path.parent.parent / "rgb" / f"{path.stem}.mp4"
    if video.exists():
        height, width = (torch.full_like(fx, n) for n in video_size(video))
    else:
        height, width = 2 * cy, 2 * cx
    return Cameras(c2w, torch.stack([fx / width, fy / height, cx / width, cy / height], dim=-1))
