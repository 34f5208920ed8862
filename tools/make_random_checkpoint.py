"""Write a random checkpoint in a published layout, full size, shard by shard: for tests of loading, not of pictures.

Names and shapes are those of the published files. Tensors are written one after another, so memory stays at the
largest one.
"""

import argparse
import gzip
import json
from pathlib import Path

import torch
from torch import Tensor

from movies.files import replacing_file

EXAMPLE = "example: python tools/make_random_checkpoint.py movies --out /tmp/movies_ckpt.safetensors"
KINDS = {"movies": "movies", "movies-static": "movies_static", "vggt": "vggt"}
LAYOUTS = Path(__file__).parents[1] / "tests" / "data" / "published_keys.json.gz"
DTYPES = {"fp32": (torch.float32, "F32"), "bf16": (torch.bfloat16, "BF16")}


def layout(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published checkpoint of this kind."""
    published = json.loads(gzip.decompress(LAYOUTS.read_bytes()))
    return {name: tuple(shape) for name, shape in published[KINDS[kind]].items()}


def random_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers that keep activations in reach: gains about one, matrices of unit gain, the rest small."""
    noise = torch.randn(shape, generator=generator)
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "plucker_ln.weight")):
        return 1 + 0.05 * noise
    if name.endswith("gamma"):
        return 0.1 + 0.01 * noise
    if len(shape) >= 2 and name.endswith(".weight"):
        return noise * torch.Size(shape[1:]).numel() ** -0.5
    return 0.02 * noise


def write_checkpoint(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str, seed: int) -> int:
    """Write a safetensors file one tensor at a time; returns its bytes."""
    kind, name = DTYPES[dtype]
    header, offset = {}, 0
    for key, shape in shapes.items():
        size = torch.Size(shape).numel() * kind.itemsize
        header[key] = {"dtype": name, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants tensors aligned
    generator = torch.Generator().manual_seed(seed)
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, shape in shapes.items():
            tensor = random_tensor(key, shape, generator).to(kind).contiguous()
            file.write(tensor.view(torch.uint8).numpy().data)
    return path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("--out", type=Path, required=True, help="a .safetensors file")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    shapes = layout(args.kind)
    size = write_checkpoint(args.out, shapes, args.dtype, args.seed)
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    print(f"wrote {args.out}: {len(shapes)} tensors, {numbers:,} numbers, {size:,} bytes")


if __name__ == "__main__":
    main()
