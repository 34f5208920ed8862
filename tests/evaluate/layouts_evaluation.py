"""Known scenes written exactly as the evaluation datasets lie on disk."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import torch
from layouts_static import row, save_image, save_lines, write_realestate10k
from PIL import Image
from scene import Scene

from movies.evaluate.cases import first_seen
from movies.geometry import rigid_inverse, transform_points

CENTER, SCALE = np.array([1.0, -2.0, 0.5]), 0.25  # DyCheck: of the scene in the world that its cameras are told in
BESIDE = np.array([0.06, -0.01, 0.003])  # KITTI: what camera 2 adds to points of camera 0


def save_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def save_gray16(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(depth.round().astype(np.uint16)).save(path)


def save_mask(path: Path, size: tuple[int, int]) -> None:
    """The left half counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[:, : size[1] // 2] = 255
    Image.fromarray(mask).save(path)


def write_dycheck(root: Path, scene: Scene, held: Scene, name: str = "apple") -> None:
    """Camera 0 takes the frames of `scene`, camera 1 those of `held` at the same times. Pictures are the 2x ones."""
    folder, (height, width) = root / name, scene.views.size
    splits = {"train": (0, scene), "val": (1, held)}
    for split, (camera, frames) in splits.items():
        names = [f"{camera}_{t:05d}" for t in range(len(frames))]
        ids = {"camera_ids": [camera] * len(names), "time_ids": list(range(len(names)))}
        save_json(folder / f"splits/{split}.json", {"frame_names": names} | ids)
        for t, frame in enumerate(names):
            fx, fy, cx, cy = frames.intrinsics[t]
            content = {
                "orientation": frames.w2c[t, :3, :3].tolist(),
                "position": (frames.c2w[t, :3, 3] / SCALE + CENTER).tolist(),
                "focal_length": 2 * fx,
                "pixel_aspect_ratio": fy / fx,
                "principal_point": [2 * cx, 2 * cy],
                "image_size": [2 * width, 2 * height],
                "skew": 0.0,
                "radial_distortion": [0.0] * 3,
                "tangential_distortion": [0.0] * 2,
            }
            save_json(folder / f"camera/{frame}.json", content)
            save_image(folder / f"rgb/2x/{frame}.png", frames, t)
            if split == "train":
                (folder / "depth/2x").mkdir(parents=True, exist_ok=True)
                np.save(folder / f"depth/2x/{frame}.npy", frames.depth[t][..., None] / SCALE)
            else:
                save_mask(folder / f"covisible/2x/val/{frame}.png", (height, width))
    save_json(folder / "scene.json", {"center": CENTER.tolist(), "scale": SCALE, "near": 0.1, "far": 10.0})


def write_nvidia(root: Path, scene: Scene, name: str = "Balloon1", num_times: int = 12) -> None:
    """Twelve cameras stand where the scene's frames were taken; at time t their first pixel has the value t."""
    folder = root / name / "dense"
    table = np.zeros((num_times, 17))
    for k in range(12):
        right, down, forward, position = scene.c2w[k, :3].T
        size = [288, 288 * 32 / 24, scene.intrinsics[k, 1] * 288 / scene.views.size[0]]
        table[k, :15] = np.stack([down, right, -forward, position, size], axis=-1).ravel()
        table[k, 15:] = 1, 100
        for t in range(num_times):
            pixels = scene.pixels(k).copy()
            pixels[0, 0] = t
            path = folder / f"mv_images/{t:05d}/cam{k + 1:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            save_mask(folder / f"mv_masks/{t:05d}/cam{k + 1:02d}.png", scene.views.size)
    np.save(folder / "poses_bounds_cvd.npy", table)


def write_sintel(root: Path, scene: Scene, name: str = "alley_2") -> None:
    height, width = scene.views.size
    for t, (fx, fy, cx, cy) in enumerate(scene.intrinsics):
        frame = f"{name}/frame_{t + 1:04d}"
        save_image(root / f"training/final/{frame}.png", scene, t)
        depth = np.where(scene.depth[t] > 0, scene.depth[t], 1e9).astype("<f4")
        camera = np.concatenate([[fx, 0, cx - 0.5, 0, fy, cy - 0.5, 0, 0, 1], scene.w2c[t, :3].ravel()]).astype("<f8")
        tag = struct.pack("<f", 202021.25)
        files = {
            f"depth/{frame}.dpt": struct.pack("<ii", width, height) + depth.tobytes(),
            f"camdata_left/{frame}.cam": camera.tobytes(),
        }
        for place, data in files.items():
            path = root / "training" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tag + data)


def write_kitti_depth(root: Path, scene: Scene, name: str = "2011_09_26_drive_0002_sync_02") -> None:
    for t in range(len(scene)):
        save_image(root / f"image_gathered/{name}/{t + 5:010d}.png", scene, t)
        save_gray16(root / f"groundtruth_depth_gathered/{name}/{t + 5:010d}.png", scene.depth[t] * 256)


def write_kitti_odometry(root: Path, scene: Scene, name: str = "00") -> None:
    fx, fy, cx, cy = scene.intrinsics[0]
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    projection = np.concatenate([K, (K @ BESIDE)[:, None]], axis=1)
    save_lines(root / f"sequences/{name}/calib.txt", [f"P0: {row(np.eye(3, 4))}", f"P2: {row(projection)}"])
    to_second = np.eye(4)
    to_second[:3, 3] = BESIDE
    save_lines(root / f"poses/{name}.txt", [row((c2w @ to_second)[:3]) for c2w in scene.c2w])
    for t in range(len(scene)):
        save_image(root / f"sequences/{name}/image_2/{t:06d}.png", scene, t)


def write_tapvid3d(root: Path, scene: Scene, name: str = "adt/video1") -> None:
    """Points that no frame sees are left out, as there."""
    seen = scene.tracks.visible.any(dim=0)
    points, visible = scene.tracks.points[:, seen], scene.tracks.visible[:, seen]
    cameras = scene.views.cameras
    height, width = scene.views.size
    queries = first_seen(cameras, type(scene.tracks)(points, visible)) * torch.tensor([1, width, height])
    jpegs = []
    for t in range(len(scene)):
        stream = io.BytesIO()
        Image.fromarray(scene.pixels(t)).save(stream, "JPEG", quality=100, subsampling=0)
        jpegs.append(stream.getvalue())
    arrays = {
        "images_jpeg_bytes": np.array(jpegs),
        "queries_xyt": queries[:, [1, 2, 0]].numpy(),
        "tracks_XYZ": transform_points(rigid_inverse(cameras.c2w), points).numpy(),
        "visibility": visible.numpy(),
        "fx_fy_cx_cy": scene.intrinsics[0],
        "extrinsics_w2c": scene.w2c,
    }
    path = root / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def write_all(root: Path, scene: Scene, held: Scene, twelve: Scene) -> None:
    """Every dataset under the name of its protocol."""
    write_dycheck(root / "dycheck", scene, held)
    write_nvidia(root / "nvidia", twelve)
    write_realestate10k(root / "realestate10k", scene, split="test", frames="frames/test")
    write_tapvid3d(root / "tapvid3d", scene)
    write_tapvid3d(root / "tapvid3d", held, "drivetrack/video2")
    for other in ("tapvid3d_minival", "tapvid3d_13"):
        (root / other).symlink_to(root / "tapvid3d")
    for name, writer in (("sintel", write_sintel), ("kitti_depth", write_kitti_depth)):
        writer(root / name, scene)
    write_kitti_odometry(root / "kitti_odometry", scene)
