"""Known scenes written exactly as RealEstate10K, TartanAir, MatrixCity and Virtual KITTI 2 lie on disk."""

import json
from pathlib import Path

import h5py
import numpy as np
import OpenEXR
from PIL import Image
from scene import Scene
from scipy.spatial.transform import Rotation

NED = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)  # OpenCV axes to NED
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def save_image(path: Path, scene: Scene, frame: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(scene.pixels(frame)).save(path, **quality)


def save_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def row(numbers) -> str:
    return " ".join(f"{n:.12g}" for n in np.asarray(numbers, dtype=np.float64).ravel())


# --- RealEstate10K -----------------------------------------------------------------------------------------------

RE10K_SCALE = 4.0  # metres of one unit of structure from motion


def timestamp(frame: int) -> int:
    return 50_050_000 + 33_367 * frame


def write_realestate10k(
    root: Path, scene: Scene, clip="0123456789abcdef", split="train", frames="frames/train", suffix=".png", scale=1.0
) -> None:
    """Cameras of one clip in a unit of `scale` metres, and its pictures in the folder `frames`."""
    lines = ["https://www.youtube.com/watch?v=abcdefghijk"]
    for frame, (w2c, fxfycxcy) in enumerate(zip(scene.w2c, scene.views.cameras.fxfycxcy.tolist(), strict=True)):
        w2c = w2c[:3] / [1, 1, 1, scale]
        lines.append(f"{timestamp(frame)} {row(fxfycxcy)} 0 0 {row(w2c)}")
        save_image(root / frames / clip / f"{timestamp(frame)}{suffix}", scene, frame)
    save_lines(root / split / f"{clip}.txt", lines)


def write_realestate10k_depth(root: Path, scene: Scene, clip="0123456789abcdef", folder="depths") -> None:
    path = root / folder / f"{clip}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["timestamps"] = np.array([timestamp(frame) for frame in range(len(scene))])
        file["depth"] = scene.depth
        file["scale"] = RE10K_SCALE


# --- TartanAir ---------------------------------------------------------------------------------------------------


def write_tartanair(
    root: Path, scene: Scene, folder="office/Easy/P001", dtype=np.float32, images=".png", camera="left"
) -> Path:
    place, lines = root / folder, []
    (place / f"depth_{camera}").mkdir(parents=True)
    for frame, c2w in enumerate(scene.c2w):
        ned = NED @ c2w @ NED.T
        lines.append(f"{row(ned[:3, 3])} {row(Rotation.from_matrix(ned[:3, :3]).as_quat())}")
        save_image(place / f"image_{camera}" / f"{frame:06d}_{camera}{images}", scene, frame)
        depth = np.where(scene.depth[frame] > 0, scene.depth[frame], 10_000)
        np.save(place / f"depth_{camera}" / f"{frame:06d}_{camera}_depth.npy", depth.astype(dtype))
    save_lines(place / f"pose_{camera}.txt", lines)
    return place


# --- MatrixCity --------------------------------------------------------------------------------------------------


def save_exr(path: Path, depth: np.ndarray, dtype) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    pixels = np.ascontiguousarray(depth.astype(dtype))
    OpenEXR.File(kind, {"B": pixels, "G": pixels, "R": pixels}).write(str(path))


def write_matrixcity(
    root: Path, scene: Scene, area="aerial", split="train", block="block_1", nested=False, depths="small_city_depth"
) -> Path:
    place = root / "small_city" / area / split / block
    pictures = place / block if nested else place
    depth_place = root / depths / area / split / f"{block}_depth"
    depth_place = depth_place / depth_place.name if nested else depth_place
    sky, dtype = (65504, np.float16) if depths == "small_city_depth" else (1e8, np.float32)
    frames = []
    for frame, c2w in enumerate(scene.c2w):
        matrix = (c2w @ OPENGL) * 0.01
        matrix[:3, 3] *= 100  # the rotation is stored times 0.01, the position in metres, the corner as 0.01
        frames.append({"frame_index": frame, "rot_mat": matrix.tolist()})
        save_image(pictures / f"{frame:04d}.png", scene, frame)
        save_exr(
            depth_place / f"{frame:04d}.exr", np.where(scene.depth[frame] > 0, scene.depth[frame] * 100, sky), dtype
        )
    fx = scene.views.cameras.fxfycxcy[0, 0].item()
    content = {"camera_angle_x": 2 * np.arctan(0.5 / fx), "frames": frames}
    (place / "transforms.json").write_text(json.dumps(content))
    return place


def write_matrixcity_pose(root: Path, scene: Scene, block="block_A", train="block_1", climb="../../train") -> None:
    """The paper's split of pictures that `write_matrixcity` has written."""
    frames = []
    for frame, c2w in enumerate(scene.c2w):
        matrix = c2w @ OPENGL
        matrix[:3, 3] /= 100
        frames.append({"file_path": f"{climb}/{train}/{frame:04d}.png", "transform_matrix": matrix.tolist()})
    fx = scene.views.cameras.fxfycxcy[0, 0].item()
    content = {"camera_angle_x": 2 * np.arctan(0.5 / fx), "frames": frames}
    place = root / "small_city/aerial/pose" / block
    place.mkdir(parents=True)
    (place / "transforms_train.json").write_text(json.dumps(content))


# --- Virtual KITTI 2 ---------------------------------------------------------------------------------------------


def write_vkitti2(root: Path, scene: Scene, scene_name="Scene01", variation="clone", split_roots=False) -> None:
    """Both cameras; the right one repeats the left one's pictures a metre away, so that a mix-up shows."""
    tops = {kind: root / f"vkitti_2.0.3_{kind}" if split_roots else root for kind in ("rgb", "depth", "textgt")}
    base = f"{scene_name}/{variation}"
    extrinsic = ["frame cameraID r1,1 r1,2 r1,3 t1 r2,1 r2,2 r2,3 t2 r3,1 r3,2 r3,3 t3 0 0 0 1"]
    intrinsic = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
    for frame in range(len(scene)):
        for camera in (0, 1):
            w2c = scene.w2c[frame].copy()
            w2c[0, 3] -= camera
            extrinsic.append(f"{frame} {camera} {row(w2c)}")
            intrinsic.append(f"{frame} {camera} {row(scene.intrinsics[frame] - [0, 0, 0.5, 0.5])}")
            folder = f"{base}/frames/{{}}/Camera_{camera}"
            save_image(tops["rgb"] / folder.format("rgb") / f"rgb_{frame:05d}.jpg", scene, frame)
            depth = tops["depth"] / folder.format("depth") / f"depth_{frame:05d}.png"
            depth.parent.mkdir(parents=True, exist_ok=True)
            metres = scene.depth[frame]
            Image.fromarray(np.where(metres > 0, (metres * 100).round(), 65535).astype(np.uint16)).save(depth)
    save_lines(tops["textgt"] / base / "extrinsic.txt", extrinsic)
    save_lines(tops["textgt"] / base / "intrinsic.txt", intrinsic)
