"""The player: which moment of the scene is shown, in which colours, and how it runs on."""

import threading
import time
from dataclasses import replace

from movies.gaussians import Gaussians
from movies.long_scene import LongScene
from movies.scene import Scene4D
from movies.viewer.controls import Activity, Running
from movies.viewer.looks import LOOKS, recolored, widened
from movies.viewer.stage import INPUT_COLOR, Stage
from movies.viewer.trails import Trails

TICKS = 12.0  # moments shown a second, as far as machine and browser get
STORED_A_SECOND, SHORTEST = 6.0, 2.0  # stored times that pass in a second at speed 1; seconds of the shortest clip
SPEEDS = {"1/4": 0.25, "1/2": 0.5, "1": 1.0, "2": 2.0, "4": 4.0}


def advanced(moment: float, step: float) -> float:
    """The moment a step later; after the end comes the start."""
    moment += step
    return moment if moment <= 1 else moment % 1


class Player:
    """Time and looks of a scene on a stage, and their controls in the page; of a long one the segment of its time."""

    def __init__(self, stage: Stage, scene: Scene4D | LongScene, trails: Trails, stopped: threading.Event) -> None:
        self.stage, self.shown, self._scene, self._trails = stage, scene, scene, trails
        self._segment = 0
        self._seconds = max(SHORTEST, len(scene.times) / STORED_A_SECOND)
        self._lock = threading.Lock()  # callbacks come from several threads
        gui = stage.server.gui
        with gui.add_folder("Time"):
            self._slider = gui.add_slider("time", min=0.0, max=1.0, step=0.001, initial_value=0.0)
            self._speed = gui.add_dropdown("speed", tuple(SPEEDS), initial_value="1")
            Activity(gui, "play", "pause", self._play, stopped)
        with gui.add_folder("Show"):
            self._look = gui.add_dropdown("colour", tuple(LOOKS))
            cameras = gui.add_checkbox("cameras", initial_value=True)
            self._tracks = gui.add_checkbox("tracks", initial_value=len(trails) > 0, disabled=not len(trails))
            first = gui.add_button("first view")
        stage.show_cameras("cameras", scene.cameras, INPUT_COLOR, self.look_through)
        self._recolor()
        self._slider.on_update(lambda _: self._show())
        self._tracks.on_update(lambda _: self._show())
        self._look.on_update(lambda _: self._recolor())
        cameras.on_update(lambda _: stage.set_visible("cameras", cameras.value))
        first.on_click(lambda event: self.look_through(event.client, 0))

    @property
    def moment(self) -> float:
        """The time shown, 0 to 1."""
        return self._slider.value

    @moment.setter
    def moment(self, moment: float) -> None:
        self._slider.value = moment  # which shows it

    @property
    def film(self) -> Scene4D | LongScene:
        """What videos are rendered of."""
        return self._scene if isinstance(self._scene, LongScene) else self.shown

    def look_through(self, client, view: int) -> None:
        """Let a client look through an input camera, at its time."""
        self.moment = float(self._scene.view_times[view])
        self.stage.move_client(client, self._scene.cameras[view])

    def _recolor(self) -> None:
        with self._lock:
            long = isinstance(self._scene, LongScene)
            self.shown = recolored(self._scene.window(self.moment) if long else self._scene, self._look.value)
            full = widened(self.shown)
            self._moving = replace(full, static=Gaussians.empty(device=full.times.device))
            self.stage.show_gaussians("static", full.static)
        self._show()

    def _show(self) -> None:
        if isinstance(self._scene, LongScene) and self._scene.shown_most(self.moment) != self._segment:
            self._segment = self._scene.shown_most(self.moment)
            self._recolor()
            return
        with self._lock, self.stage.server.atomic():
            self.stage.show_gaussians("moving", self._moving.at(self.moment))
            if self._tracks.value:
                self.stage.show_trails("tracks", self._trails, self.moment)
            else:
                self.stage.remove("tracks")

    def _play(self, client, running: Running) -> None:
        before = time.monotonic()
        while running() and self.stage.server.get_clients():  # for nobody there is nothing to play
            time.sleep(1 / TICKS)
            now = time.monotonic()
            self.moment = advanced(self.moment, (now - before) * SPEEDS[self._speed.value] / self._seconds)
            before = now
