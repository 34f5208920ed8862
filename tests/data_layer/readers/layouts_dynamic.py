"""A Scene written as the datasets of moving scenes lie on disk: PointOdyssey, DynamicReplica, Spring, Stereo4D."""

import gzip
import json
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import torch
from PIL import Image
from scene import Scene

from movies.geometry import project


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """uint8 [H, W, 3] or uint16 [H, W]; a .jpg as good as it gets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(pixels).save(path, **options)


def write_pointodyssey(
    root: Path, scene: Scene, name: str = "train/cab_h_bench_3rd", tracks_dtype=np.float32, save=np.savez, suffix="jpg"
) -> Path:
    """`known` False in the scene's tracks (NaN) becomes `valids` False with a stale position, as in the dataset."""
    folder = root / name
    for i, depth in enumerate(scene.depth):
        save_picture(folder / "rgbs" / f"rgb_{i:05d}.{suffix}", scene.pixels(i))
        steps = np.where(depth > 0, (depth / 1000 * 65535).round(), 65535)  # the background is clipped at 1000 m
        save_picture(folder / "depths" / f"depth_{i:05d}.png", steps.astype(np.uint16))
    points = scene.tracks.points.numpy()
    known = np.isfinite(points).all(axis=-1)
    stale = np.where(known[..., None], points, 7.0).astype(tracks_dtype)
    xy, z = project(scene.tracks.points, scene.views.cameras.fxfycxcy, scene.views.cameras.c2w)
    pixels = np.where((z > 0)[..., None], xy * torch.tensor(scene.views.size[::-1]), np.inf)  # behind: inf
    matrices = np.tile(np.eye(3), (len(scene), 1, 1))
    matrices[:, [0, 1, 0, 1], [0, 1, 2, 2]] = scene.intrinsics
    arrays = {
        "trajs_2d": pixels.astype(np.float16),
        "trajs_3d": stale,
        "visibs": scene.tracks.visible.numpy().astype(np.float16),
        "valids": known.astype(np.float16),
        "intrinsics": matrices.astype(np.float32),
        "extrinsics": scene.w2c,
    }
    save(folder / "anno.npz", **arrays)
    np.savez(folder / "info.npz", **{key: np.array(array.shape) for key, array in arrays.items()})
    return folder


def write_dynamicreplica(
    root: Path, scene: Scene, sequence: str = "009850-3_obj", split: str = "train", intrinsics="ndc_isotropic"
) -> Path:
    """Both views (the right one without trajectories), their entries not in order."""
    folder = root / split if split else root
    entries = [
        _replica_entry(scene, f"{sequence}_source", camera, i, intrinsics)
        for i in [*range(len(scene))][::-1]
        for camera in ("right", "left")
    ]
    for entry in entries:
        i = entry["frame_number"]
        save_picture(folder / entry["image"]["path"], scene.pixels(i))
        metres = np.where(scene.depth[i] > 0, scene.depth[i], -0.0).astype(np.float16)
        save_picture(folder / entry["depth"]["path"], metres.view(np.uint16))
        if entry["trajectories"]:
            _save_trajectories(folder / entry["trajectories"]["path"], scene, i)
    with gzip.open(folder / f"frame_annotations_{split or 'train'}.jgz", "wt", encoding="utf-8") as file:
        json.dump(entries, file)
    return folder / f"{sequence}_source_left"


def _replica_entry(scene: Scene, sequence: str, camera: str, i: int, intrinsics: str) -> dict:
    height, width = scene.views.size
    flip = np.diag([-1.0, -1.0, 1.0])
    w2c, (fx, fy, cx, cy) = scene.w2c[i], scene.intrinsics[i]
    x, y = (min(height, width) / 2,) * 2 if intrinsics == "ndc_isotropic" else (width / 2, height / 2)
    name = f"{sequence}_{camera}"
    return {
        "sequence_name": sequence,
        "frame_number": i,
        "frame_timestamp": i / 30,
        "image": {"path": f"{name}/images/{name}-{i:04d}.png", "size": [height, width]},
        "depth": {"path": f"{name}/depths/{name}_{i:04d}.geometric.png", "scale_adjustment": 1.0, "mask_path": None},
        "mask": {"path": f"{name}/masks/{name}_{i:04d}.png"},
        "viewpoint": {
            "R": (flip @ w2c[:3, :3]).T.tolist(),  # row vectors
            "T": (flip @ w2c[:3, 3]).tolist(),
            "focal_length": [fx / x, fy / y],
            "principal_point": [(width / 2 - cx) / x, (height / 2 - cy) / y],
            "intrinsics_format": intrinsics,
        },
        "camera_name": camera,
        "trajectories": {"path": f"{name}/trajectories/{i:06d}.pth"} if camera == "left" else None,
    }


def _save_trajectories(path: Path, scene: Scene, i: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    points, number = scene.tracks.points[i].clone(), len(scene.tracks)
    data = {
        "traj_3d_world": points,
        "traj_2d": torch.zeros(number, 3),
        "verts_inds_vis": scene.tracks.visible[i].clone(),
        "img": torch.from_numpy(scene.pixels(i).copy()),
        "instances": torch.zeros(number),
    }
    torch.save(data, path)


def write_spring(root: Path, scene: Scene, name: str = "train/0001", skymap: bool = True) -> Path:
    """Disparities on twice the grid, of which only even rows and columns belong to image pixels; frames from 0001.

    The sky is 0, NaN, infinite or, with `skymap`, a distance that only the sky map denies, from pixel to pixel.
    """
    folder = root / name
    (folder / "disp1_left").mkdir(parents=True)
    height, width = scene.views.size
    kinds = np.resize([0, np.nan, np.inf, 0.3 if skymap else 0], (height, width))
    for i, depth in enumerate(scene.depth):
        save_picture(folder / "frame_left" / f"frame_left_{i + 1:04d}.png", scene.pixels(i))
        with np.errstate(divide="ignore"):
            disparity = np.where(depth > 0, scene.intrinsics[i, 0] * 0.065 / depth, kinds)
        fine = np.full((2 * height, 2 * width), 1e3, np.float32)  # of the pixels between
        fine[::2, ::2] = disparity
        with h5py.File(folder / "disp1_left" / f"disp1_left_{i + 1:04d}.dsp5", "w") as file:
            file.create_dataset("disparity", data=fine, compression="gzip")
        if skymap:
            sky = np.repeat(np.repeat((depth == 0).astype(np.uint8) * 255, 2, axis=0), 2, axis=1)
            save_picture(folder / "maps" / "skymap_left" / f"skymap_left_{i + 1:04d}.png", sky)
    (folder / "cam_data").mkdir()
    np.savetxt(folder / "cam_data" / "intrinsics.txt", scene.intrinsics)
    np.savetxt(folder / "cam_data" / "extrinsics.txt", scene.w2c.reshape(-1, 16))
    np.savetxt(folder / "cam_data" / "focaldistance.txt", np.full(len(scene), 3.0))
    return folder


def write_stereo4d(root: Path, scene: Scene, uid: str = "abc_123-x_4504500", split: str = "train") -> Path:
    """Tracks as ragged lists of where they are known; the video without loss, with few keyframes and B frames."""
    base = root / split
    (base / "npz").mkdir(parents=True, exist_ok=True)
    video = base / "processed" / uid / f"{uid}-left_rectified.mp4"
    video.parent.mkdir(parents=True)
    encode_video(video, [scene.pixels(i) for i in range(len(scene))])
    points = scene.tracks.points.numpy().transpose(1, 0, 2)  # [P, F, 3]
    known = np.isfinite(points).all(axis=-1)
    np.savez(
        base / "npz" / f"{uid}.npz",
        name=uid,
        video_id=uid[:11],
        timestamps=4504500 + (scene.views.times.double().numpy() * 2e5).round().astype(np.int64),
        camera2world=scene.c2w[:, :3],
        rectified2rig=np.tile(np.eye(3), (2, 1, 1)),
        fov_bounds=np.array([-90.0, 90.0, -90.0, 90.0]),
        track_lengths=known.sum(axis=1),
        track_indices=np.nonzero(known)[1],
        track_coordinates=points[known].astype(np.float32),
    )
    return video


def encode_video(path: Path, pictures: list[np.ndarray], rate: int = 30) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=rate, options={"qp": "0", "g": "4", "bf": "2"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "rgb24", Fraction(1, rate)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
