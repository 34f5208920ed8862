"""render: Gaussians seen by cameras, with gsplat on CUDA and with our own compiled tiles on CPU.

Both backends follow gsplat 1.5.3 in "classic" mode (EWA splatting, Zwicker et al. 2001; 3DGS, Kerbl et al. 2023) and
hand back colours without a background, so that everything users see is put together here, once.
"""

from dataclasses import dataclass
from math import prod

from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians

BACKENDS = ("auto", "gsplat", "cpu")


@dataclass(frozen=True)
class Rendering:
    """Pictures of Gaussians, with the cameras' leading dims [...].

    `images` are plain RGB over the background, `alphas` how much of it is covered (0 to 1), `depths` the expected
    z-depth of what covers it, in world units (0 where nothing does).
    """

    images: Tensor  # [..., 3, H, W]
    alphas: Tensor  # [..., 1, H, W]
    depths: Tensor  # [..., 1, H, W]


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    height: int,
    width: int,
    background: Tensor | None = None,  # [3] or [..., 3], black where not given
    backend: str = "auto",
) -> Rendering:
    """Render `gaussians` with leading dims L from `cameras` with leading dims L (one each) or L + [C] (C each).

    The result has the cameras' leading dims. It is differentiable with respect to the Gaussians and the background,
    not to the cameras. Gaussians nearer than 0.001 or farther than 100 are left out, and so is every Gaussian with a
    number in it that is not finite. Opacities are expected in [0, 1]. `backend` "auto" takes gsplat for tensors on
    CUDA and the CPU rasteriser for all others. Raises InputError for dims that do not fit, an empty picture, tensors
    on different devices, and a backend that is unknown or cannot run here.
    """
    views = _views_per_scene(gaussians, cameras)
    if height < 1 or width < 1:
        raise InputError(f"a picture needs at least one pixel, got height {height} and width {width}")
    scenes = _flat(gaussians)  # [S, N]
    flat_cameras = cameras.reshape(prod(gaussians.shape), views)  # [S, C]
    rasterize = _load_backend(_choose_backend(backend, gaussians, cameras))
    colors, alphas, depths = rasterize(scenes, flat_cameras, height, width)  # [S, C, 3 | 1 | 1, H, W]
    images, alphas, depths = (x.reshape(*cameras.shape, *x.shape[2:]) for x in (colors, alphas, depths))
    if background is not None:
        images = images + (1 - alphas) * _background(background, cameras)
    # Where nothing is seen both are 0; the floor is gsplat's.
    return Rendering(images, alphas, depths / alphas.clamp(min=1e-10))


def _flat(gaussians: Gaussians) -> Gaussians:  # [...] -> [S]
    """One leading dim, float32 (rasterising in bf16 would move splats by pixels)."""
    num_scenes, lead = prod(gaussians.shape), len(gaussians.shape)
    return gaussians.map(lambda x: x.float().reshape(num_scenes, *x.shape[lead:]))


def _views_per_scene(gaussians: Gaussians, cameras: Cameras) -> int:
    """The number of cameras C each set of Gaussians is seen by."""
    if cameras.shape == gaussians.shape:
        return 1
    if len(cameras.shape) == len(gaussians.shape) + 1 and cameras.shape[:-1] == gaussians.shape:
        return cameras.shape[-1]
    lead = list(gaussians.shape)
    want = ", ".join([*map(str, lead), "C"])
    raise InputError(
        f"cameras of Gaussians with leading dims {lead} must have leading dims {lead} or [{want}], "
        f"got {list(cameras.shape)}"
    )


def _background(background: Tensor, cameras: Cameras) -> Tensor:  # [..., 3, 1, 1]
    if background.shape != (3,) and background.shape != (*cameras.shape, 3):
        raise InputError(f"`background` must have shape [3] or {[*cameras.shape, 3]}, got {list(background.shape)}")
    return background.float()[..., None, None]


def _choose_backend(backend: str, gaussians: Gaussians, cameras: Cameras) -> str:
    """The backend's name, once it is known that it can render these tensors."""
    if backend not in BACKENDS:
        raise InputError(f"unknown backend {backend!r}, choose one of {', '.join(BACKENDS)}")
    device = gaussians.device
    if cameras.device != device:
        raise InputError(
            f"the Gaussians are on {device} but the cameras on {cameras.device}: move one with .to(device)"
        )
    if backend == "auto":
        return "gsplat" if device.type == "cuda" else "cpu"
    if backend == "gsplat" and device.type != "cuda":
        raise InputError(
            f'backend "gsplat" needs tensors on CUDA, got {device}: move them with .to("cuda") or use "cpu"'
        )
    if backend == "cpu" and device.type != "cpu":
        raise InputError(f'backend "cpu" needs tensors on the CPU, got {device}: move them with .to("cpu")')
    return backend


def _load_backend(name: str):
    """Import a backend when it is first used: gsplat and numba take long, and neither is needed to import us."""
    if name == "gsplat":
        from movies.rendering.gsplat_backend import rasterize
    else:
        from movies.rendering.cpu_backend import rasterize
    return rasterize
