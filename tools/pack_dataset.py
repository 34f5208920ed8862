"""Pack a dataset into one file a sequence, for disks on which many small files are slow.

`python tools/pack_dataset.py MANIFEST --out DIR`. Sequences already packed are kept, so it can be stopped and run
again. A manifest of the packed data has `reader = "packed"`, `root = DIR` and no options but `short_side`.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from movies.data.manifest import load_manifest
from movies.data.readers.packed import pack_sequence
from movies.errors import InputError


def pack(manifest: Path, out: Path) -> tuple[int, int]:
    """Pack what is not there yet. -> (sequences packed, sequences that were there)"""
    done = 0
    sequences = load_manifest(manifest).sequences()
    for sequence in tqdm(sequences, unit="sequence", disable=not sys.stderr.isatty()):
        path = out / f"{sequence.name}.h5"
        if not path.exists():
            pack_sequence(sequence, path)
            done += 1
    return done, len(sequences) - done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        done, there = pack(args.manifest, args.out)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{args.out}: {done} sequences packed, {there} were there")


if __name__ == "__main__":
    main()
