"""One reader a dataset: `READERS[name](root, **options)` lists its sequences."""

from movies.data.synthetic import synthetic_sequences

READERS = {
    "synthetic": synthetic_sequences,
}
