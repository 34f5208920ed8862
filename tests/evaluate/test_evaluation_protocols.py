"""Protocols are frozen, told apart in comparisons, and what users get wrong in them is said."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from movies import cli
from movies.commands.evaluation import COMMANDS
from movies.errors import InputError
from movies.evaluate.compare import PUBLISHED, compare_reports, published, tomllib
from movies.evaluate.protocol import Protocol, load_protocol, protocol_names
from movies.evaluate.readers import GENERATED, READERS, open_scenes
from movies.evaluate.report import Report, SceneResult, protocol_summary, read_report

# A published protocol never changes. Whoever changes a choice gives it a new version, and a new line here.
FROZEN = {
    "dycheck": (2, "e5009976bcc61d7e"),
    "kitti_depth": (1, "d44c78781fde1d13"),
    "kitti_odometry": (1, "8e9ea1700246367a"),
    "nvidia": (2, "bba0869cbb07e11d"),
    "realestate10k": (2, "7d910d558c205d72"),
    "sintel": (1, "1cf2a3d5e51833ef"),
    "synthetic": (1, "cbe42559d31e78cb"),
    "synthetic_cameras": (1, "653e881505fcb6cb"),
    "synthetic_worlds": (2, "1c3b2859e9033a5c"),
    "tapvid3d": (1, "f2a531f470930572"),
    "tapvid3d_minival": (1, "3022462942f6f04f"),
    "tapvid3d_13": (1, "c014f15fbfe57583"),
}


def test_protocols_are_frozen():
    assert {name: (load_protocol(name).version, load_protocol(name).digest) for name in protocol_names()} == FROZEN


def test_every_protocol_has_a_reader_and_a_command():
    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol.id == name and protocol.reader in READERS
    assert set(COMMANDS) == {*protocol_names(), "file", "compare"}


def test_minival_has_fifty_videos_of_each_source():
    scenes = load_protocol("tapvid3d_minival").scenes
    assert len(set(scenes)) == len(scenes) == 150
    assert Counter(scene.split("/")[0] for scene in scenes) == dict.fromkeys(("adt", "drivetrack", "pstudio"), 50)


def test_prose_may_be_corrected_and_choices_may_not():
    protocol = load_protocol("dycheck")
    assert protocol.model_copy(update={"notes": ("other words",)}).digest == protocol.digest
    assert protocol.model_copy(update={"input_size": 224}).digest != protocol.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('tasks = ["pose"]', r'mine.toml: the task "pose" needs cameras = "estimated"'),
        ('tasks = ["novel_views"]', 'the task "novel_views" needs cameras = "given" and frames.targets'),
        ('tasks = ["depth"]\nframes = { context = 5, clip = 3 }', "frames.context = 5 is more than frames.clip = 3"),
        ('tasks = ["depth"]\nseeed = 1', "unknown key `seeed`; legal keys there are id, version"),
        ('tasks = ["lpips_vgg", "depth"]', 'the task "lpips_vgg" needs cameras = "given" and frames.targets'),
        (
            'tasks = ["lpips_vgg", "lpips_alex"]\nframes = { targets = "between" }',
            "one of the tasks lpips_vgg and lpips_alex",
        ),
        ('tasks = ["sound"]', r"`tasks.0` = 'sound'"),
    ],
)
def test_mistakes_in_a_protocol_are_told(tmp_path, change, message):
    path = tmp_path / "mine.toml"
    path.write_text(f'id = "mine"\nversion = 1\ntitle = ""\nsource = ""\nreader = "sintel"\n{change}\n')
    with pytest.raises(InputError, match=message):
        load_protocol(path)


def test_unknown_protocols_and_readers_are_told(tmp_path):
    with pytest.raises(InputError, match=r"no protocol 'dycheque': choose one of dycheck, .*, or a .toml file"):
        load_protocol("dycheque")
    protocol = load_protocol("sintel").model_copy(update={"reader": "cinema"})
    with pytest.raises(InputError, match="sintel: reader 'cinema' is not one of dycheck"):
        open_scenes(protocol, str(tmp_path))
    protocol = load_protocol("synthetic_worlds").model_copy(update={"options": {"clips": 1}})
    with pytest.raises(InputError, match="reader 'worlds' refuses its options"):
        open_scenes(protocol, "")


def report_of(protocol: Protocol, scenes=("apple", "spin"), value=20.0, failed=None) -> Report:
    results = {
        name: SceneResult({"mpsnr": value + i, "mssim": None, "absrel_scale": i}, 1 + i, {}, 1.0, {})
        for i, name in enumerate(scenes)
    }
    code = {"version": "0", "sha256": f"{value:g}"}
    return Report(protocol_summary(protocol), {"name": f"method {value:g}"}, code, results, failed or {})


def saved(tmp_path, name: str, report: Report) -> str:
    report.save(tmp_path / name)
    return str(tmp_path / name / "report.json")


def test_runs_of_one_protocol_stand_side_by_side(tmp_path):
    protocol = load_protocol("dycheck")
    paths = [saved(tmp_path, name, report_of(protocol, value=v)) for name, v in (("a", 20.0), ("b", 18.0))]
    table = compare_reports(paths)
    assert re.match(r"\| dycheck v2 +\| method 20 \| method 18 \| \(1\) MoVieS", table)
    assert re.search(r"\| mpsnr ↑ +\| 20\.5 +\| 18\.5 +\| 18\.46 +\| 11\.99", table)
    assert "(1) NOT comparable: its clips and frames are not known" in table
    assert "measured by different versions of the code: 18, 20" in table
    assert compare_reports([str(tmp_path / "a")]).startswith("| dycheck v2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, "protocol version 2 against 3"),
        ({"id": "other"}, "protocol id dycheck against other"),
        ({"input_size": 224}, "protocol dycheck with input_size = 518 against 224"),
        ({"seed": 3}, "protocol dycheck with seed = 0 against 3"),
    ],
)
def test_other_protocols_are_not_compared(tmp_path, change, message):
    protocol = load_protocol("dycheck")
    paths = [saved(tmp_path, "a", report_of(protocol))]
    paths.append(saved(tmp_path, "b", report_of(protocol.model_copy(update=change))))
    with pytest.raises(InputError, match=f"a/report.json and .*b/report.json cannot be compared: {message}"):
        compare_reports(paths)


def test_nested_choices_and_scenes_are_compared(tmp_path):
    protocol = load_protocol("dycheck")
    other = protocol.model_copy(update={"frames": protocol.frames.model_copy(update={"context": 12})})
    paths = [saved(tmp_path, "a", report_of(protocol)), saved(tmp_path, "b", report_of(other))]
    with pytest.raises(InputError, match=r"with frames.context = 13 against 12"):
        compare_reports(paths)
    scored = [replace(report_of(protocol), protocol=protocol_summary(protocol) | {"lpips": x}) for x in "xy"]
    by_lpips = [saved(tmp_path, f"lpips{k}", report) for k, report in enumerate(scored)]
    with pytest.raises(InputError, match="cannot be compared: LPIPS by different weights"):
        compare_reports(by_lpips)
    assert "| mpsnr" in compare_reports([paths[0], by_lpips[0]])  # one of them has no LPIPS at all
    fewer = saved(tmp_path, "c", report_of(protocol, scenes=("apple",), failed={"spin": "broken"}))
    with pytest.raises(InputError, match="only one of them scored spin"):
        compare_reports([paths[0], fewer])
    with pytest.raises(InputError, match=r"give the report.json files"):
        compare_reports([])


def test_means_follow_the_protocol():
    protocol = load_protocol("dycheck")
    plain = report_of(protocol.model_copy(update={"average": "pixels"}))
    assert plain.mean == {"mpsnr": 20.5, "mssim": None, "absrel_scale": pytest.approx(2 / 3)}  # depth by its pixels
    groups = report_of(protocol.model_copy(update={"average": "groups"}), scenes=("a/1", "a/2", "b/1"))
    assert groups.mean["mpsnr"] == pytest.approx((20.5 + 22) / 2)


def test_failed_scenes_are_in_every_table():
    report = report_of(load_protocol("dycheck"), failed={"teddy": "its file is broken"})
    text = report.markdown()
    assert "1 of 3 scenes failed and are not in the mean:" in text and "FAILED teddy: its file is broken" in text
    assert report.json()["counts"] == {"scored": 2, "failed": 1}


def test_a_report_reads_back(tmp_path):
    report = report_of(load_protocol("dycheck"), failed={"teddy": "its file is broken"})
    path = saved(tmp_path, "a", report)
    assert read_report(path).json() == json.loads(json.dumps(report.json()))
    (tmp_path / "no.json").write_text("[]")
    with pytest.raises(InputError, match=r"no.json: not a report of `movies evaluate`"):
        read_report(tmp_path / "no.json")
    with pytest.raises(InputError, match="no such file"):
        read_report(tmp_path / "none.json")


def test_published_numbers_name_protocols_and_say_why():
    entries = tomllib.loads(PUBLISHED.read_text())["result"]
    for entry in entries:
        assert entry["protocol"] in FROZEN and entry["source"] and entry["why"]
        assert entry["metrics"] and isinstance(entry["comparable"], bool)
    assert len(published("dycheck")) == 4


def test_command_line(tmp_path, capsys):
    protocol = load_protocol("dycheck")
    path = saved(tmp_path, "a", report_of(protocol))
    assert cli.main(["evaluate", "compare", path]) == 0
    assert "NOT comparable" in capsys.readouterr().out
    other = saved(tmp_path, "b", report_of(protocol.model_copy(update={"version": 3})))
    assert cli.main(["evaluate", "compare", path, other]) == 2
    assert "cannot be compared: protocol version 2 against 3" in capsys.readouterr().err
    assert cli.main(["evaluate", "sintel"]) == 2
    assert capsys.readouterr().err.startswith("error: sintel needs --data")
    assert cli.main(["evaluate", "file", str(tmp_path / "none.toml"), "--data", str(tmp_path)]) == 2
    assert "none.toml: no such file" in capsys.readouterr().err


def test_generated_scenes_need_no_data():
    assert {load_protocol(name).reader for name in protocol_names() if name.startswith("synthetic")} == GENERATED
    scenes = open_scenes(load_protocol("synthetic"), "", ("dynamic/000", "static/031"))
    assert [scene.name for scene in scenes] == ["dynamic/000", "static/031"]
    assert replace(scenes[0], name="x").sequence.seed == scenes[1].sequence.seed - 31
