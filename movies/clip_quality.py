"""What makes a clip hard to reconstruct, measured: cuts, blur, exposure jumps, black bars, no parallax, no overlap.

Everything here answers in sentences for the user, none where all is well. Cuts and exposure are measured on small grey
pictures of every frame of the clip, blur and bars on the frames chosen, the rest on the prediction.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CUT_DIFFERENCE, CUT_FACTOR = 0.4, 4.0  # 1 - correlation of neighbouring frames, and over that of the frames around
EXPOSURE_STEP = 1.15  # brightness from one frame to the next, as a factor
BLURRED, BLUR_FACTOR = 0.6, 1.3  # Crete's measure: of any frame, and over the clip's median
BAR_LEVEL, BAR_CHANGE = 0.06, 0.03  # black is darker than this; bars that change the picture's shape by more count
LITTLE_PARALLAX = 0.02  # way of the camera over the median depth
LITTLE_OVERLAP = 0.4  # share of a frame that the next one sees
SCALE_FACTOR = 1.25  # between two networks' depths
COARSE = (9, 16)


def frame_warnings(images: Tensor, thumbnails: Tensor) -> list[str]:  # [V, 3, H, W], [N, h, w]
    """Warnings about the pictures themselves: the frames chosen, and small grey ones of the whole clip."""
    found = []
    if jumps := cuts(thumbnails):
        found.append(f"the clip has cuts before frame {_listed(jumps)}: reconstruct one shot at a time")
    if steps := exposure_jumps(thumbnails, jumps):
        found.append(f"brightness jumps at frame {_listed(steps)}: lock the exposure, or even it out first")
    if frames := blurred_frames(images):
        found.append(
            f"blurred: frame {_listed(frames)} of the {len(images)} read; hold the camera steadier, or add light"
        )
    if changes := shape_changes(images):
        found.append(
            f"black bars come or go at frame {_listed(changes)} of the {len(images)} read: crop them off first"
        )
    return found


def geometry_warnings(parallax: float, overlap: Tensor, depth_ratio: float) -> list[str]:  # overlap [V]
    """Warnings about what the networks saw; a `depth_ratio` that is not known is NaN."""
    found = []
    if parallax < LITTLE_PARALLAX:
        found.append(
            f"the camera hardly moves ({100 * parallax:.1f} % of the scene's depth): depth is a guess from single "
            "pictures, and new views far from the camera's path will not hold"
        )
    if bool((overlap < LITTLE_OVERLAP).any()):
        worst, share = int(overlap.argmin()), 100 * float(overlap.min())
        found.append(
            f"frame {worst} of those read has only {share:.0f} % of its picture in common with the next: read more "
            "frames (--frames), or a shorter clip"
        )
    if math.isfinite(depth_ratio) and not 1 / SCALE_FACTOR <= depth_ratio <= SCALE_FACTOR:
        found.append(
            f"depth is {depth_ratio:.2f} times what the camera weights see: the two networks do not agree about scale"
        )
    return found


def _listed(numbers: list[int]) -> str:
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return ", ".join(map(str, numbers[:5])) + more


def cuts(thumbnails: Tensor) -> list[int]:  # [N, h, w]
    """Frames that begin a new shot: unlike the one before, and far more so than their neighbours are.

    Compared coarsely, so that a moving camera does not matter, and without mean and contrast, so that exposure does
    not.
    """
    if len(thumbnails) < 2:
        return []
    coarse = F.adaptive_avg_pool2d(thumbnails[:, None].float(), COARSE).flatten(1)  # [N, 144]
    coarse = F.normalize(coarse - coarse.mean(dim=1, keepdim=True), dim=1, eps=1e-3)
    difference = 1 - (coarse[1:] * coarse[:-1]).sum(dim=1)  # [N-1]
    found = []
    for i, value in enumerate(difference.tolist()):
        around = torch.cat([difference[max(0, i - 8) : i], difference[i + 1 : i + 9]])
        usual = float(around.median()) if len(around) else 0.0
        if value > CUT_DIFFERENCE and value > CUT_FACTOR * usual:
            found.append(i + 1)
    return found


def exposure_jumps(thumbnails: Tensor, jumps: list[int]) -> list[int]:  # [N, h, w]
    """Frames that are brighter or darker all over than the one before, cuts apart.

    The median over cells of the picture: what moves changes some of them, the exposure all.
    """
    if len(thumbnails) < 2:
        return []
    cells = F.adaptive_avg_pool2d(thumbnails[:, None].float(), COARSE).flatten(1).clamp(min=0.02).log()
    steps = (cells[1:] - cells[:-1]).median(dim=1).values.abs()  # [N-1]
    return [i + 1 for i, step in enumerate(steps.tolist()) if step > math.log(EXPOSURE_STEP) and i + 1 not in jumps]


def blur(images: Tensor) -> Tensor:  # [V, 3, H, W] -> [V]
    """How little a picture loses by being blurred, 0 (sharp) to 1 (blurred already); Crete and others (2007)."""
    grey = images.float().mean(dim=1, keepdim=True)  # [V, 1, H, W]
    worst = []
    for dim in (-1, -2):
        size = (1, 11) if dim == -1 else (11, 1)
        smooth = F.avg_pool2d(grey, size, stride=1, padding=(size[0] // 2, size[1] // 2), count_include_pad=False)
        before, after = grey.diff(dim=dim).abs(), smooth.diff(dim=dim).abs()
        lost = (before - after).clamp(min=0).sum(dim=(1, 2, 3))
        worst.append(1 - lost / before.sum(dim=(1, 2, 3)).clamp(min=1e-6))
    return torch.stack(worst).amax(dim=0)


def blurred_frames(images: Tensor) -> list[int]:  # [V, 3, H, W]
    """Frames blurred by themselves, or much more than the clip is."""
    values = blur(images)
    usual = float(values.median())
    return [i for i, v in enumerate(values.tolist()) if v > BLURRED or v > max(BLUR_FACTOR * usual, BLURRED - 0.1)]


def active_areas(images: Tensor) -> Tensor:  # [V, 3, H, W] -> [V, 2] shares of the height and width inside black bars
    """How much of each picture is left between black bars at its edges."""
    bright = images.amax(dim=1) > BAR_LEVEL  # [V, H, W]
    shares = []
    for lit in (bright.any(dim=2), bright.any(dim=1)):  # [V, H], [V, W]
        count = lit.shape[1]
        first = lit.float().argmax(dim=1)
        last = count - 1 - lit.flip(1).float().argmax(dim=1)
        shares.append(torch.where(lit.any(dim=1), (last - first + 1) / count, torch.zeros(())))
    return torch.stack(shares, dim=-1)


def shape_changes(images: Tensor) -> list[int]:  # [V, 3, H, W]
    """Frames at which the picture's shape changes between black bars."""
    areas = active_areas(images)
    return [i for i in range(1, len(areas)) if float((areas[i] - areas[i - 1]).abs().max()) > BAR_CHANGE]
