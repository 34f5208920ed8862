"""One reader a dataset: `READERS[name](root, **options)` lists its sequences."""

from movies.data.readers.dynamicreplica import dynamicreplica_sequences
from movies.data.readers.matrixcity import matrixcity_sequences
from movies.data.readers.packed import packed_sequences
from movies.data.readers.pointodyssey import pointodyssey_sequences
from movies.data.readers.realestate10k import realestate10k_sequences
from movies.data.readers.spring import spring_sequences
from movies.data.readers.stereo4d import stereo4d_sequences
from movies.data.readers.tartanair import tartanair_sequences
from movies.data.readers.vkitti2 import vkitti2_sequences
from movies.data.synthetic import synthetic_sequences

READERS = {
    "realestate10k": realestate10k_sequences,
    "tartanair": tartanair_sequences,
    "matrixcity": matrixcity_sequences,
    "pointodyssey": pointodyssey_sequences,
    "dynamicreplica": dynamicreplica_sequences,
    "spring": spring_sequences,
    "vkitti2": vkitti2_sequences,
    "stereo4d": stereo4d_sequences,
    "packed": packed_sequences,
    "synthetic": synthetic_sequences,
}
