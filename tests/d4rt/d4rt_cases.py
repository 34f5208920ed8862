"""Clips of small synthetic worlds for the tests of D4RT."""

from movies.clip import Batch, Clip
from movies.data.synthetic import synthetic_sequences
from movies.data.transforms import normalized

NUM_FRAMES = 5


def synthetic_batch(static: bool) -> Batch:
    sequences = synthetic_sequences(num_sequences=2, image_size=(24, 24), num_tracks=400, static=static)
    clips = []
    for sequence in sequences:
        views, tracks = sequence.read(range(0, 20, 4))
        clips.append(normalized(Clip(views, tracks, NUM_FRAMES, is_static=static)))
    return Batch.stack(clips)
