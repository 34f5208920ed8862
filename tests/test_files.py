"""Nothing half-written: files and folders appear whole or not at all."""

import pytest

from movies.errors import InputError
from movies.files import replacing_file, replacing_folder


def test_a_file_appears_when_it_is_whole(tmp_path):
    with replacing_file(tmp_path / "deep" / "a.txt") as path:
        path.write_text("new")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert (tmp_path / "deep" / "a.txt").read_text() == "new"
    assert len(list((tmp_path / "deep").iterdir())) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), replacing_file(tmp_path / "a.txt") as path:
        path.write_text("half")
        raise error
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_folder_appears_whole_and_keeps_its_other_files(tmp_path):
    out = tmp_path / "deep" / "out"
    for text in ("first", "second"):
        with replacing_folder(out) as folder:
            (folder / "a.txt").write_text(text)
    (out / "other.txt").write_text("kept")
    with replacing_folder(out) as folder:
        (folder / "a.txt").write_text("third")
    assert {p.name: p.read_text() for p in out.iterdir()} == {"a.txt": "third", "other.txt": "kept"}
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_a_folder_within_is_replaced_whole(tmp_path):
    for names in (("a", "b"), ("c",)):
        with replacing_folder(tmp_path / "out") as folder:
            (folder / "masks").mkdir()
            for name in names:
                (folder / "masks" / name).touch()
    assert [p.name for p in (tmp_path / "out" / "masks").iterdir()] == ["c"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_no_folder(tmp_path, error):
    with pytest.raises(error), replacing_folder(tmp_path / "deep" / "out") as folder:
        (folder / "a.txt").write_text("half")
        raise error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["file", "file/out", "/proc/nothing/out"])
def test_a_place_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(InputError, match=r"cannot be written .* choose another folder"),
        replacing_folder(tmp_path / place),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
