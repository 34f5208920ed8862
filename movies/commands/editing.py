"""A scene to a smaller one."""

from typing import Annotated

from tyro.conf import Positional, arg

from movies.commands.arguments import File, Scene


def scene_simplify(
    scene: Positional[Scene],
    out: File,
    clip: Annotated[str | None, arg(name="input", metavar="CLIP")] = None,
    max_loss: float = 0.5,
    budget: int | None = None,
) -> None:
    """Make a scene smaller: unseen Gaussians left out, near-duplicates merged, the least seen pruned.

    Example: movies scene simplify out/clip/scene.safetensors --max-loss 0.5 --out small.safetensors

    Args:
        scene: A scene.safetensors.
        out: The scene file to write.
        clip: The clip that the scene was made of, to measure on (default: input.mp4 beside the scene).
        max_loss: How many dB of PSNR the input views may lose, and novel views are expected to lose at most.
        budget: Keep so many Gaussians after merging, whatever that loses.
    """
    from movies.scene_editing import simplify_file

    stages = simplify_file(scene, out, clip, max_loss, budget)
    print(f"{'':16}{'static':>9}{'moving':>9}{'MB':>9}{'input views':>14}{'loss':>11}{'at novel views':>18}")
    for s in stages:
        print(f"{s.name:16}{s.num_static:9}{s.num_moving:9}{s.num_bytes / 1e6:9.2f}{s.input_psnr:11.2f} dB", end="")
        print(f"{s.loss:8.2f} dB{s.novel_loss:15.2f} dB")
    first, last = stages[0], stages[-1]
    gaussians = (first.num_static + first.num_moving) / max(1, last.num_static + last.num_moving)
    print(f"wrote {out}: {gaussians:.1f} x fewer Gaussians, {first.num_bytes / last.num_bytes:.1f} x fewer bytes")


def scene_crop(
    scene: Positional[Scene],
    out: File,
    box: Annotated[str | None, arg(metavar="X0,Y0,Z0,X1,Y1,Z1")] = None,
    sphere: Annotated[str | None, arg(metavar="X,Y,Z,RADIUS")] = None,
    view: int | None = None,
) -> None:
    """Keep the Gaussians of a scene whose centres lie in a box or a sphere at any time.

    Example: movies scene crop out/clip/scene.safetensors --view 0 --box=-1,-1,0,1,1,2 --out near.safetensors

    Args:
        scene: A scene.safetensors.
        out: The scene file to write.
        box: Two opposite corners, the lower one first.
        sphere: Its centre and radius.
        view: The numbers are in the axes of this input camera (x right, y down, z ahead) instead of the world's.
    """
    from movies.scene_editing import crop_file

    before, after = crop_file(scene, out, box, sphere, view)
    print(f"wrote {out}: {len(after)} of {len(before)} Gaussians, ", end="")
    print(f"{after.num_bytes / 1e6:.2f} of {before.num_bytes / 1e6:.2f} MB")
