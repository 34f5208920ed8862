"""The demonstration: a clip in; a scene, novel views and pictures out.

    python tools/demo.py [CLIP] [--out DIR]

Without a clip it renders a synthetic world of its own to a video and a camera file, reconstructs that, and compares
what comes out with the truth, which is known for any camera at any time.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from movies import cli
from movies.camera_files import save_cameras
from movies.cameras import Cameras
from movies.data.synthetic import SyntheticSequence
from movies.geometry import look_at
from movies.metrics import psnr
from movies.novel_views import render_path
from movies.scene import Scene4D
from movies.video import contact_sheet, write_image, write_video

SEED = 900_007  # apart from the seeds of training
SIZE, NUM_FRAMES, NUM_READ = 112, 25, 13


@dataclass(frozen=True)
class Truth:
    """What the synthetic world looks like from the input cameras at the frames' times, and from new ones between."""

    sequence: SyntheticSequence
    times: Tensor  # [K]
    cameras: Cameras  # [K]
    images: Tensor  # [K, 3, H, W]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", help="your own video; a synthetic one is made without it")
    parser.add_argument("--out", default="out/demo", help="folder for everything (default: out/demo)")
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--camera-weights", default="tiny")
    given = parser.parse_args()
    out, weights = Path(given.out), ["--weights", given.weights, "--camera-weights", given.camera_weights]
    if given.clip:
        return cli.main(["reconstruct", given.clip, "--out", str(out), *weights])

    sequence = SyntheticSequence(SEED, (SIZE, SIZE), NUM_FRAMES)
    clip, cameras = write_clip(sequence, out / "synthetic")
    print(f"rendered a synthetic world: {clip} with its cameras in {cameras}")
    command = ["reconstruct", str(clip), "--cameras", str(cameras), "--out", str(out), "--frames", str(NUM_READ)]
    status = cli.main([*command, *weights])
    if status == 0:
        compare(sequence, out)
    return status


def write_clip(sequence: SyntheticSequence, folder: Path) -> tuple[Path, Path]:
    """The sequence as clip.mp4 and transforms.json, as a user would have them."""
    views, _ = sequence.read(range(sequence.num_frames))
    clip, cameras = folder / "clip.mp4", folder / "transforms.json"
    write_video(clip, views.images, fps=12)
    save_cameras(views.cameras, cameras, views.size)
    return clip, cameras


def compare(sequence: SyntheticSequence, out: Path) -> None:
    """Print the PSNR of input views and of novel views at novel times, beside that of the nearest frame copied."""
    scene = Scene4D.load(out / "scene.safetensors")
    frames = torch.arange(0, NUM_FRAMES, (NUM_FRAMES - 1) // (NUM_READ - 1))
    inputs = truth_at(sequence, sequence.cameras(sequence.frame_times(frames)), sequence.frame_times(frames))
    between = sequence.frame_times(frames[:-1] + 1)
    novel = truth_at(sequence, moved_aside(sequence.cameras(between)), between)
    for name, truth in (("input views", inputs), ("novel views at novel times", novel)):
        rendered = torch.stack(list(render_path(scene, truth.cameras, truth.times, (SIZE, SIZE), what=name)))
        print(f"{name}: {float(psnr(rendered, truth.images).mean()):.2f} dB against the truth", end="")
        if truth is novel:
            copied = inputs.images[: len(between)]
            print(f" (the nearest frame copied: {float(psnr(copied, truth.images).mean()):.2f} dB)", end="")
            sheet = contact_sheet({"truth": truth.images, "novel views at novel times": rendered, "nearest": copied})
            write_image(out / "novel_truth.png", sheet)
        print()
    print(f"pictures: {out}/overview.png {out}/novel_truth.png, videos: {out}/*.mp4, scene: {out}/scene.safetensors")


def truth_at(sequence: SyntheticSequence, cameras: Cameras, times: Tensor) -> Truth:
    return Truth(sequence, times, cameras, sequence.render_view(cameras, times, SIZE, SIZE).images)


def moved_aside(cameras: Cameras, degrees: float = 4.0) -> Cameras:
    """Cameras swung by a few degrees around what they look at, alternately to the left and to the right."""
    side = torch.where(torch.arange(len(cameras)) % 2 == 0, 1.0, -1.0)[:, None]
    rotation, focus = cameras.c2w[:, :3, :3], 3.0
    eye = cameras.centers + side * focus * torch.tan(torch.deg2rad(torch.tensor(degrees))) * rotation[:, :, 0]
    return Cameras(look_at(eye, cameras.centers + focus * rotation[:, :, 2], rotation[:, :, 1]), cameras.fxfycxcy)


if __name__ == "__main__":
    sys.exit(main())
