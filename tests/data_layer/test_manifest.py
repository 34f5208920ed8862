"""Manifests: what is written is what is read, and every mistake is told with file, key, value and mend."""

from pathlib import Path

import pytest

from movies.data.manifest import load_manifest
from movies.errors import InputError

GOOD = 'name = "worlds"\nreader = "synthetic"\n'
BUNDLED = sorted((Path(__file__).parents[2] / "data_manifests").glob("*.toml"))


def write(folder, text):
    path = folder / "manifest.toml"
    path.write_text(text)
    return path


def test_a_manifest_lists_its_sequences(tmp_path):
    text = GOOD + 'root = "here"\nrepeats = 3\n[options]\nnum_sequences = 4\nstatic = true\n'
    manifest = load_manifest(write(tmp_path, text))
    assert manifest.root == str(tmp_path / "here") and manifest.repeats == 3 and manifest.split == "train"
    assert [sequence.is_static for sequence in manifest.sequences()] == [True] * 4


@pytest.mark.parametrize("path", [path for path in BUNDLED if path.stem.startswith("synthetic")], ids=lambda p: p.stem)
def test_bundled_manifests_load(path):
    manifest = load_manifest(path)
    sequences = manifest.sequences()
    assert manifest.name == path.stem and len(sequences) == manifest.options["num_sequences"]
    assert sequences[0].is_static == manifest.is_static


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "colour = 1\n", r"unknown key `colour`; legal keys there are name, reader, root"),
        (GOOD + "repeats = 0\n", r"`repeats` = 0: input should be greater than or equal to 1"),
        (GOOD + 'split = "all"\n', r"`split` = 'all': input should be 'train', 'validation' or 'test'"),
        ('name = "x"\n', r"key `reader` is missing"),
        ('name = "x"\nreader = "kitti"\n', r"`reader` = 'kitti' is not one of .*synthetic"),
        ("name = \n", r"not readable as TOML"),
    ],
)
def test_mistakes_name_file_key_and_mend(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as raised:
        load_manifest(path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_missing_file_and_refused_options(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.toml: no such file"):
        load_manifest(tmp_path / "nothing.toml")
    manifest = load_manifest(write(tmp_path, GOOD + "[options]\nnum_worlds = 3\n"))
    with pytest.raises(InputError, match=r"manifest 'worlds': reader 'synthetic' refuses its options .*num_worlds"):
        manifest.sequences()
