"""One reader an evaluation layout: `READERS[name](root, **options)` lists its scenes.

A scene is a Sequence of movies.data; one that knows more says so: `windows()` tells input from held-out frames,
`read_masks` has the target masks, `queries` the dataset's own query points. Generated scenes make their cases
themselves (`cases`).
"""

from movies.data.readers.realestate10k import realestate10k_sequences
from movies.errors import InputError
from movies.evaluate.protocol import Protocol
from movies.evaluate.readers.dycheck import dycheck_sequences
from movies.evaluate.readers.kitti import kitti_depth_sequences, kitti_odometry_sequences
from movies.evaluate.readers.nvidia import nvidia_sequences
from movies.evaluate.readers.sintel import sintel_sequences
from movies.evaluate.readers.tapvid3d import tapvid3d_sequences
from movies.evaluate.readers.worlds import held_out_scenes, world_scenes

READERS = {
    "dycheck": dycheck_sequences,
    "nvidia": nvidia_sequences,
    "realestate10k": realestate10k_sequences,
    "tapvid3d": tapvid3d_sequences,
    "sintel": sintel_sequences,
    "kitti_depth": kitti_depth_sequences,
    "kitti_odometry": kitti_odometry_sequences,
    "worlds": world_scenes,
    "held_out_worlds": held_out_scenes,
}
GENERATED = {"worlds", "held_out_worlds"}  # need no data


def open_scenes(protocol: Protocol, root: str, chosen: tuple[str, ...] = ()) -> list:
    """The protocol's scenes under `root`, or those chosen of them.

    Raises InputError listing the scenes that are missing: a mean over other scenes is another number.
    """
    if protocol.reader not in READERS:
        raise InputError(f"{protocol.id}: reader {protocol.reader!r} is not one of {', '.join(READERS)}")
    if not root and protocol.reader not in GENERATED:
        raise InputError(f"{protocol.id} needs --data, the folder that the dataset was unpacked into")
    try:
        found = {scene.name: scene for scene in READERS[protocol.reader](root, **protocol.options)}
    except TypeError as error:
        raise InputError(f"{protocol.id}: reader {protocol.reader!r} refuses its options ({error})") from error
    needed = list(protocol.scenes) or sorted(found)
    unknown = [name for name in chosen if name not in needed]
    if unknown:
        raise InputError(f"{protocol.id} has no scene {unknown[0]!r}; it has {_listed(needed)}")
    needed = list(chosen) or needed
    missing = [name for name in needed if name not in found]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of the {len(needed)} scenes of {protocol.id} are missing: {', '.join(missing)}; "
            f"download them, or choose others with --scenes"
        )
    if protocol.num_scenes and not chosen and len(needed) != protocol.num_scenes:
        raise InputError(
            f"{root}: {protocol.id} has {protocol.num_scenes} scenes, {len(needed)} are there: {_listed(needed)}; "
            f"choose some with --scenes to score these alone"
        )
    return [found[name] for name in needed]


def _listed(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
