"""The live viewer's server without a browser: where it listens, what its buttons do, what it refuses."""

import functools
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from movies import cli
from movies.errors import InputError
from movies.scene import Scene4D
from movies.video import video_size
from movies.viewer import open_viewer
from movies.viewer.controls import Activity, told

viser = pytest.importorskip("viser", reason="viser is not installed")


class Client:
    """Stands for a browser: what viser's handle of one has that the viewer uses."""

    def __init__(self) -> None:
        self.client_id, self.told = 7, []
        self.camera = SimpleNamespace(wxyz=np.array([1.0, 0, 0, 0]), position=np.zeros(3), fov=1.0)

    def atomic(self):
        return threading.Lock()

    def add_notification(self, title: str, body: str, **_) -> SimpleNamespace:
        self.told.append(body)
        return SimpleNamespace(remove=lambda: None)


@pytest.fixture
def viewer(stored):
    with open_viewer(stored, port=0) as opened:
        yield opened


def _accepts(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def test_it_listens_on_this_machine_only(viewer):
    port = int(viewer.url.rsplit(":", 1)[1])
    assert viewer.url == f"http://127.0.0.1:{port}"
    assert _accepts("127.0.0.1", port)
    assert not _accepts("127.0.0.2", port)  # an address of this machine too, but not the one listened on


def test_host_says_who_may_connect(stored):
    with open_viewer(stored, "0.0.0.0", 0) as opened:
        assert opened.url.startswith("http://localhost:")
        if sys.platform == "linux":
            assert _accepts("127.0.0.2", int(opened.url.rsplit(":", 1)[1]))


def test_nobody_can_ask_for_a_public_address(viewer):
    assert viewer.server.request_share_url() is None
    assert viewer.server._share_tunnel is None


def test_nothing_listens_after_the_end(stored):
    with open_viewer(stored, port=0) as opened:
        port = int(opened.url.rsplit(":", 1)[1])
    assert not _accepts("127.0.0.1", port)


def test_colours_tracks_and_time_change_what_is_shown(viewer):
    shown = viewer.player.stage._groups
    before = {name: shown[name].buffer.copy() for name in ("static", "moving")}
    assert "tracks" not in shown  # at time 0 nothing has moved
    viewer.player.moment = 0.5
    assert not np.array_equal(shown["moving"].buffer, before["moving"])
    assert np.array_equal(shown["static"].buffer, before["static"])
    assert len(shown["tracks"].points) == 10
    viewer.player._tracks.value = False
    assert "tracks" not in shown
    viewer.player._look.value = "opacity"
    assert not np.array_equal(shown["static"].buffer, before["static"])
    assert len(shown["cameras"]._impl.api._handle_from_node_name) > 3


def test_a_path_is_recorded_kept_and_brought_back(viewer, stored):
    editor, client = viewer.editor, Client()
    viewer.player.moment = 0.25
    editor.add(client)
    viewer.player.look_through(client, 2)
    editor.add(client)
    torch.testing.assert_close(editor.path.cameras.c2w[1], viewer.player.part.cameras.c2w[2])
    assert editor.path.times.tolist() == [0.25, 1.0]
    editor.save(client)
    assert (stored.parent / "paths/path.json").is_file() and "path.json" in client.told[-1]
    editor.delete(client)
    assert len(editor.path) == 1 and editor._views.options == ("1: time 0.25",)
    editor.load(client)
    assert editor._views.options == ("1: time 0.25", "2: time 1.00")
    editor._views.value = "1: time 0.25"
    editor.go(client)
    assert viewer.player.moment == 0.25 and np.allclose(client.camera.position, 0)


def test_a_path_is_rendered_into_a_video(viewer, stored):
    editor, client = viewer.editor, Client()
    editor.add(client)
    editor._seconds.value, editor._longer.value, editor._time_map.value = 0.1, 32, "play"
    editor._render(client, lambda: True)
    assert video_size(stored.parent / "paths/path.mp4") == (32, 32)
    assert client.told[-1] == f"wrote {stored.parent / 'paths/path.mp4'}"


def test_a_stopped_video_leaves_nothing(viewer, stored):
    viewer.editor.add(Client())
    viewer.editor._longer.value = 16
    answers = iter([True, False])
    with pytest.raises(InputError, match="stopped; no video was written"):
        viewer.editor._render(Client(), lambda: next(answers))
    assert not list((stored.parent / "paths").iterdir())


@pytest.mark.parametrize("name", ["../up", "", "a/b", "/tmp/x", ".hidden"])
def test_what_a_page_names_never_leads_out_of_the_folder(viewer, name):
    viewer.editor.add(Client())
    viewer.editor._name.value = name
    for action in (viewer.editor.save, viewer.editor.load):
        with pytest.raises(InputError, match="a path's name is letters"):
            action(Client())


def test_mistakes_are_told_to_who_made_them(viewer):
    client = Client()
    told(lambda event: viewer.editor.go(event.client))(SimpleNamespace(client=client))
    assert client.told == ["the camera path holds no view yet; add one first"]


def test_a_second_click_ends_an_activity(viewer):
    begun, ended = threading.Event(), threading.Event()

    def action(client, running) -> None:
        begun.set()
        while running():
            time.sleep(0.01)
        ended.set()

    activity = Activity(viewer.server.gui, "go", "stop", action, threading.Event())
    event = SimpleNamespace(client=Client())
    thread = threading.Thread(target=activity._clicked, args=(event,))
    thread.start()
    assert begun.wait(10) and activity._button.label == "stop" and not ended.is_set()
    activity._clicked(event)
    thread.join(10)
    assert ended.is_set() and activity._button.label == "go"


def test_a_scene_without_cameras_motion_or_tracks_is_shown(scene, tmp_path):
    plain = Scene4D(scene.static, scene.moving.select(torch.arange(0)), scene.times, scene.cameras[:0], scene.times[:0])
    plain.save(tmp_path / "scene.safetensors")
    with open_viewer(tmp_path / "scene.safetensors", port=0) as opened:
        opened.player.look_through(Client(), 0)
        opened.player.moment = 1.0
        assert set(opened.player.stage._groups) == {"cameras", "static"}


def test_refusals(stored, monkeypatch, capsys):
    def refused(*arguments: str) -> str:
        assert cli.main(["view", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1
        return said

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert f"port {port}; choose another --port" in refused(str(stored), "--port", port)
    assert "there is no port 70000" in refused(str(stored), "--port", "70000")
    assert "cannot listen on 192.0.2.1" in refused(str(stored), "--host", "192.0.2.1")  # nobody's address
    assert "no such scene file" in refused(str(stored.parent / "none.safetensors"))
    (stored.parent / "bad.safetensors").write_bytes(stored.read_bytes()[:500])
    assert "not a scene, or cut short" in refused(str(stored.parent / "bad.safetensors"))
    monkeypatch.setitem(sys.modules, "viser", None)
    assert "pip install 'movies[view]'" in refused(str(stored))


def test_ctrl_c_ends_it_cleanly(stored):
    # A test run started in the background of a shell ignores Ctrl-C, and so would every process it starts.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heed}
    with subprocess.Popen([sys.executable, "-m", "movies", "view", str(stored), "--port", "0"], **pipes) as process:
        line = process.stdout.readline()
        assert re.match(r"http://127\.0\.0\.1:\d+ shows the scene", line)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == "interrupted\n" and out == ""


def test_its_help_has_an_example(capsys):
    assert cli.main(["view", "--help"]) == 0
    assert "Example: movies view out/clip/scene.safetensors" in capsys.readouterr().out
