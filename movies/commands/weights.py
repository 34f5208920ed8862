"""Files of weights, and what works on this machine."""

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from movies.commands.arguments import File


def weights_inspect(path: Positional[File]) -> None:
    """Say what a weights file holds, part by part, and whether it can be loaded.

    Example: movies weights inspect model.safetensors

    Args:
        path: A .safetensors or .pt file; nothing in it is executed.
    """
    from movies.model.weights_table import inspect_weights

    print(inspect_weights(path, _networks()))


def weights_convert(
    path: Positional[Annotated[str, arg(metavar="IN")]],
    out: Positional[Annotated[str, arg(metavar="OUT")]],
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
) -> None:
    """Write published weights as our own safetensors, which carry their config.

    Example: movies weights convert movies_ckpt.safetensors movies.safetensors --dtype bf16

    Args:
        path: A published or own .safetensors or .pt file, of any network.
        out: The .safetensors file to write.
        dtype: In what to store; in bf16 only the weights of products and convolutions.
    """
    from movies.model.weights_table import convert_weights

    print(convert_weights(path, out, dtype, _networks()))


def _networks() -> dict[str, tuple[type, type]]:
    """Configs and classes of all networks by name."""
    from movies.d4rt.config import D4RTConfig
    from movies.d4rt.network import D4RT
    from movies.model.weights_table import NETWORKS

    return NETWORKS | {"D4RT": (D4RTConfig, D4RT)}


def doctor() -> None:
    """Say what of Python, torch, CUDA, gsplat, numba, ffmpeg and the weights works here, and the mend.

    Example: movies doctor
    """
    from movies.doctor import REQUIRED, examine

    findings = examine()
    for finding in findings:
        print(finding)
    broken = [f.name for f in findings if not f.works and f.name in REQUIRED]
    print(f"needed and absent: {', '.join(broken)}" if broken else "everything needed is here")
