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

docs/conventions.md has a worked example of each.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from movies import colmap
from movies.camera_npz import MEGASAM_STEMS, load_npz, save_npz
from movies.cameras import CameraFile, Cameras
from movies.errors import InputError
from movies.files import replacing_file
from movies.geometry import matrix_to_quaternion, quaternion_to_matrix, rigid
from movies.video import natural_key

_OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))  # OpenGL camera axes (y up, z backward) to OpenCV and back
_PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "OPENCV", "SIMPLE_RADIAL", "RADIAL")
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


def load_cameras(path: str | Path) -> Cameras:
    """Cameras [V] of a file or folder. Raises InputError for what is missing, malformed, NaN or distorted."""
    return read_camera_file(path).cameras


def read_camera_file(path: str | Path) -> CameraFile:
    """`load_cameras`, with the frames' names and the size in pixels where the file tells them."""
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
        return _checked(load_npz(path), path)
    if start[:1] == b"{":
        return _checked(_load_transforms(path), path)
    return _checked(_load_tum(path), path)


def save_cameras(
    cameras: Cameras, path: str | Path, size: tuple[int, int] | None = None, names: tuple[str, ...] = ()
) -> None:
    """Write cameras [V] in the format that the path's name asks for.

    .json transforms.json; images.txt or images.bin COLMAP (with cameras and points3D beside); other .txt and .tum TUM;
    NAME_droid.npz and NAME_sgd_cvd_hr.npz MegaSaM; pose/NAME.npz ViPE (with intrinsics/NAME.npz); other .npz MoVieS'
    C2W and fxfycxcy. `size` (height, width) is that of the images: COLMAP, MegaSaM and ViPE hold pixels and need it, a
    .json holds pixels besides with it. `names` are the frames' pictures, for .json and COLMAP.
    """
    path = Path(path)
    if len(cameras.shape) != 1:
        raise InputError(f"cameras to save must have shape [V], got {list(cameras.shape)}")
    if names and len(names) != len(cameras):
        raise InputError(f"{path}: {len(names)} names for {len(cameras)} cameras")
    suffix, file = path.suffix.lower(), CameraFile(cameras.to("cpu"), tuple(names), size or (0, 0))
    if suffix not in (".json", ".txt", ".tum", ".bin", ".npz"):
        raise InputError(f"{path}: cameras are written as .json, .npz, .txt or .tum; name it so")
    _check_writable(file, path)
    if suffix == ".npz":
        save_npz(file, path)
    elif path.name in ("images.txt", "images.bin"):
        named = file.names or tuple(f"{i:05d}.png" for i in range(len(cameras)))
        colmap.save_folder(replace(file, names=named), path.parent, suffix)
    else:
        text = json.dumps(_transforms(file), indent=1) if suffix == ".json" else _tum(file.cameras)
        with replacing_file(path) as temporary:
            temporary.write_text(text)


def _check_writable(file: CameraFile, path: Path) -> None:
    """Raise InputError where a format cannot hold these cameras."""
    suffix, fxfycxcy = path.suffix.lower(), file.cameras.fxfycxcy
    is_colmap, is_megasam = path.name in ("images.txt", "images.bin"), path.stem.endswith(MEGASAM_STEMS)
    if suffix == ".bin" and not is_colmap:
        raise InputError(f"{path}: COLMAP's cameras are written as images.bin, with cameras.bin beside; name it so")
    if file.size == (0, 0) and (is_colmap or (suffix == ".npz" and (is_megasam or path.parent.name == "pose"))):
        raise InputError(f"{path}: this format holds pixels; give the images' size (height, width)")
    is_tum = suffix == ".tum" or (suffix == ".txt" and not is_colmap)
    if (is_tum or is_megasam) and (fxfycxcy - fxfycxcy[:1]).abs().max() > 1e-6:
        kind = "TUM" if is_tum else "MegaSaM"
        raise InputError(f"{path}: {kind} holds one set of intrinsics, these cameras zoom; write a .json instead")


def _checked(file: CameraFile, path: Path) -> CameraFile:
    cameras = file.cameras
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
    return file


def _load_folder(path: Path) -> CameraFile:
    if (path / "transforms.json").exists():
        return _load_transforms(path / "transforms.json")
    for folder in (path, path / "sparse" / "0", path / "sparse"):
        if (folder / "images.bin").exists() or (folder / "images.txt").exists():
            return colmap.load_folder(folder)
    poses = sorted((path / "pose").glob("*.npz"))
    if len(poses) == 1:
        return load_npz(poses[0])
    if poses:
        raise InputError(f"{path}: holds {len(poses)} ViPE clips; give one pose/NAME.npz")
    raise InputError(f"{path}: holds no transforms.json, COLMAP model (cameras and images) or ViPE pose/NAME.npz")


# --- transforms.json


def _load_transforms(path: Path) -> CameraFile:
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
    named = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    if named:
        frames = sorted(frames, key=lambda frame: natural_key(frame["file_path"]))
    c2w = torch.stack([_matrix(frame, i, path) for i, frame in enumerate(frames)]) @ _OPENGL
    values = [{**content, **frame} for frame in frames]
    fxfycxcy = torch.stack([_json_intrinsics(value, i, path) for i, value in enumerate(values)])
    sizes = {_json_size(value) for value in values}
    told = tuple(frame["file_path"] for frame in frames) if named and content.get("named", True) else ()
    return CameraFile(Cameras(c2w, fxfycxcy), told, sizes.pop() if len(sizes) == 1 else (0, 0))


def _matrix(frame: dict, i: int, path: Path) -> Tensor:  # [4, 4]
    try:
        matrix = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: frame {i} has no transform_matrix of 4x4 numbers") from error
    if tuple(matrix.shape) not in ((4, 4), (3, 4)):
        raise InputError(f"{path}: the transform_matrix of frame {i} must be 4x4, got {list(matrix.shape)}")
    return rigid(matrix[:3, :3], matrix[:3, 3]).float()


def _json_size(values: dict) -> tuple[int, int]:
    """(height, width), (0, 0) where it is not told."""
    try:
        return int(values.get("h", 0)), int(values.get("w", 0))
    except (TypeError, ValueError):
        return 0, 0


def _json_intrinsics(values: dict, i: int, path: Path) -> Tensor:  # [4]
    if str(values.get("camera_model", "PINHOLE")).upper() not in _PERSPECTIVE or any(map(values.get, _DISTORTION)):
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


def _transforms(file: CameraFile) -> dict:
    cameras, (height, width), frames = file.cameras, file.size, []
    names = file.names or tuple(f"images/{i:05d}.png" for i in range(len(cameras)))
    for i, (c2w, fxfycxcy) in enumerate(zip(cameras.c2w @ _OPENGL, cameras.fxfycxcy, strict=True)):
        frame = {"file_path": names[i], "transform_matrix": c2w.tolist(), "fxfycxcy": fxfycxcy.tolist()}
        if height:
            fx, fy, cx, cy = fxfycxcy.tolist()
            frame |= {"w": width, "h": height, "fl_x": fx * width, "fl_y": fy * height, "cx": cx * width}
            frame |= {"cy": cy * height}
        frames.append(frame)
    # Readers of the format want a name for every frame; where there are none, these only number them.
    return {"camera_model": "PINHOLE", "named": bool(file.names), "frames": frames}


# --- TUM


def _load_tum(path: Path) -> CameraFile:
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
    c2w = rigid(quaternion_to_matrix(values[:, [7, 4, 5, 6]]), values[:, 1:4]).float()
    return CameraFile(Cameras(c2w, torch.tensor(intrinsics).expand(len(rows), 4).clone()))


def _tum(cameras: Cameras) -> str:
    quats = matrix_to_quaternion(cameras.c2w[:, :3, :3].double())[:, [1, 2, 3, 0]]
    header = "# fxfycxcy " + " ".join(f"{x:.9g}" for x in cameras.fxfycxcy[0].tolist())
    rows = torch.cat([cameras.centers.double(), quats], dim=-1).tolist()
    return "\n".join([header, *(f"{i} " + " ".join(f"{x:.9g}" for x in row) for i, row in enumerate(rows))]) + "\n"
