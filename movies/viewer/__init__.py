"""The live viewer: a scene in the browser, served by viser on this machine. docs/viewer.md shows its use."""

import threading
from pathlib import Path

import torch

from movies.long_scene import LongScene, load_scene
from movies.scene import Scene4D
from movies.trajectories import focus_depth
from movies.viewer.path_editor import PathEditor
from movies.viewer.player import Player
from movies.viewer.shown import Shown
from movies.viewer.stage import Stage, start_server, stop_server
from movies.viewer.trails import Trails

HOST, PORT = "127.0.0.1", 8080


class Viewer:
    """A scene that a browser can look at until `close`, or until the end of a `with` block."""

    def __init__(self, scene: Scene4D | LongScene, trails: Trails, folder: Path, host: str, port: int) -> None:
        self._stopped, first = threading.Event(), Shown(scene, "rgb").part(0.0)
        self.server = start_server(host, port)
        stage = Stage(self.server, focus_depth(first))
        stage.set_first_view(first.cameras[0].to("cpu"))
        self.player = Player(stage, scene, trails, self._stopped)
        self.editor = PathEditor(self.player, folder, self._stopped)

    @property
    def url(self) -> str:
        """What to open in a browser on this machine."""
        host = self.server.get_host()
        host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{host}:{self.server.get_port()}"

    def wait(self) -> None:
        """Return when the viewer is closed."""
        self._stopped.wait()

    def close(self) -> None:
        """End what runs, then the server."""
        self._stopped.set()
        stop_server(self.server)

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_viewer(path: str | Path, host: str = HOST, port: int = PORT) -> Viewer:
    """Serve a stored scene, or the folder of one in segments, with the tracks.npz beside it where there is one.

    Camera paths and their videos go to the folder `paths` beside the scene. Only this machine can connect unless
    `host` says otherwise. Raises InputError for a file that is no scene or no tracks, a place that is taken, or
    without viser.
    """
    path = Path(path)
    scene = load_scene(path)
    folder = scene.folder.parent if isinstance(scene, LongScene) else path.parent
    trails = Trails.load(folder / "tracks.npz")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Viewer(scene.to(device), trails, folder / "paths", host, port)
