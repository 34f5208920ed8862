"""movies: one monocular video to a 4D scene of moving 3D Gaussians.

Letters of shape comments: B batch, V context views, T target times, H W pixels, h w patches, N Gaussians, P tracked
points, L tokens, D channels, `...` any leading dims. Conventions: geometry.py. Public names load when first used, so
`import movies` is instant and needs torch and numpy only.
"""

from importlib import import_module

__version__ = "0.1.0"

_OWNERS = {
    "Cameras": "cameras",
    "load_cameras": "camera_files",
    "save_cameras": "camera_files",
    "Clip": "clip",
    "Views": "clip",
    "Tracks": "clip",
    "Gaussians": "gaussians",
    "DynamicSplats": "splats",
    "Scene4D": "scene",
    "Rendering": "rendering",
    "render": "rendering",
    "ModelConfig": "model.config",
    "MoVieS": "model.network",
    "VGGT": "model.vggt",
}
__all__ = [*_OWNERS, "__version__"]


def __getattr__(name: str):
    if name not in _OWNERS:
        raise AttributeError(f"module 'movies' has no attribute {name!r}")
    return getattr(import_module(f"movies.{_OWNERS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
