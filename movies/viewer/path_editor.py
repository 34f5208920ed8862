"""The path editor: record views, look along the path, keep it in a file, render it into a video."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from movies.cameras import Cameras
from movies.errors import InputError
from movies.novel_views import render_path, scene_size
from movies.trajectories import OF_A_MOMENT, TIME_MAPS, time_path
from movies.video import write_video
from movies.viewer.camera_path import CameraPath
from movies.viewer.controls import Activity, Running, told
from movies.viewer.player import Player
from movies.viewer.shown import Shown
from movies.viewer.stage import PATH_COLOR

FPS = 24.0
NO_VIEW, RECORDED = "none yet", "as recorded"


class PathEditor:
    """A camera path and its controls in the page. Files are written into `folder`, and nowhere else."""

    def __init__(self, player: Player, folder: Path, stopped: threading.Event) -> None:
        self.player, self.stage, self.folder = player, player.stage, folder
        self.size = scene_size(player.part)
        self.path = CameraPath.empty()
        gui = self.stage.server.gui
        with gui.add_folder("Camera path"):
            add = gui.add_button("add this view", hint="camera and time become the path's last view")
            self._views = gui.add_dropdown("view", (NO_VIEW,))
            act = gui.add_button_group("", ("go to", "delete"))
            self._seconds = gui.add_number("seconds", initial_value=4.0, min=0.1, max=600.0, step=0.1)
            self._time_map = gui.add_dropdown("time runs", (RECORDED, *TIME_MAPS))
            Activity(gui, "preview", "stop", self._preview, stopped)
            self._longer = gui.add_number(
                "pixels", initial_value=max(self.size), min=16, max=4096, step=2, hint="longer side"
            )
            self._name = gui.add_text("name", initial_value="path", hint=f"files in {folder}")
            files = gui.add_button_group("", ("save", "load"))
            Activity(gui, "render video", "stop", self._render, stopped)
        add.on_click(told(lambda event: self.add(event.client)))
        act.on_click(told(lambda event: (self.go if event.target.value == "go to" else self.delete)(event.client)))
        files.on_click(told(lambda event: (self.save if event.target.value == "save" else self.load)(event.client)))

    def add(self, client) -> None:
        height, width = self.size
        self._set(self.path.added(self.stage.camera_of(client, width / height), self.player.moment))

    def go(self, client) -> None:
        view = self._selected()
        self.player.moment = float(self.path.times[view])
        self.stage.move_client(client, self.path.cameras[view])

    def delete(self, client) -> None:
        self._set(self.path.without(self._selected()))

    def save(self, client) -> None:
        self._frames()  # a path without views is not worth a file
        self.path.save(self._file(".json"), self.size)
        client.add_notification("movies", f"wrote {self._file('.json')}", auto_close_seconds=10)

    def load(self, client) -> None:
        self._set(CameraPath.load(self._file(".json")))

    def _set(self, path: CameraPath) -> None:
        self.path = path
        names = tuple(f"{k + 1}: time {time:.2f}" for k, time in enumerate(path.times.tolist())) or (NO_VIEW,)
        self._views.options = names
        self._views.value = names[-1]
        self.stage.show_cameras("path", path.cameras, PATH_COLOR)

    def _selected(self) -> int:
        if not len(self.path):
            raise InputError("the camera path holds no view yet; add one first")
        return self._views.options.index(self._views.value)

    def _file(self, suffix: str) -> Path:
        """Where files of the path's name are. What a page sends never leads out of the folder."""
        name = self._name.value.strip()
        if not re.fullmatch(r"\w[\w -]*", name):
            raise InputError(f"a path's name is letters, digits, - and _, got {name!r}")
        return self.folder / f"{name}{suffix}"

    def _frames(self) -> tuple[Cameras, Tensor]:  # [F], [F]
        cameras, times = self.path.sampled(max(2, round(self._seconds.value * FPS)))
        time_map = self._time_map.value
        if time_map == RECORDED:
            return cameras, times
        return cameras, time_path(time_map, len(times), self.player.moment if time_map in OF_A_MOMENT else None)

    def _preview(self, client, running: Running) -> None:
        cameras, times = self._frames()
        started = time.monotonic()
        while running() and client.client_id in self.stage.server.get_clients():
            frame = min(int((time.monotonic() - started) * FPS), len(times) - 1)
            self.player.moment = float(times[frame])
            self.stage.move_client(client, cameras[frame])
            if frame == len(times) - 1:
                return
            time.sleep(1 / FPS)

    def _render(self, client, running: Running) -> None:
        out, shown, device = self._file(".mp4"), self.player.shown, self.player.part.times.device
        cameras, times = self._frames()
        size = scene_size(self.player.part, round(self._longer.value))
        note = client.add_notification("movies", f"rendering {out.name}", loading=True, with_close_button=False)
        try:
            # `to` gives a long scene segments of its own in memory: the page may move on meanwhile
            scene = Shown(shown.scene.to(device), shown.look, size[1] / self.size[1])
            frames = render_path(scene, cameras.to(device), times.to(device), size)
            write_video(out, _until_stopped(frames, running), FPS)
        finally:
            note.remove()
        client.add_notification("movies", f"wrote {out}", auto_close_seconds=30)


def _until_stopped(frames: Iterator[Tensor], running: Running) -> Iterator[Tensor]:
    for frame in frames:
        if not running():
            raise InputError("stopped; no video was written")
        yield frame
