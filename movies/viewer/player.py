"""The player: which moment of the scene is shown, in which colours, and how it runs on."""

import threading
import time
from dataclasses import replace

from movies.gaussians import Gaussians
from movies.long_scene import LongScene
from movies.scene import Scene4D
from movies.viewer.controls import Activity, Running
from movies.viewer.looks import LOOKS
from movies.viewer.shown import Shown
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
    """Time and looks of a scene on a stage, and their controls in the page."""

    def __init__(self, stage: Stage, scene: Scene4D | LongScene, trails: Trails, stopped: threading.Event) -> None:
        self.stage, self.shown, self._trails = stage, Shown(scene, "rgb"), trails
        self._drawn: tuple[str, int] | None = None  # colouring and part of what stands still
        self._seconds = max(SHORTEST, len(scene.times) / STORED_A_SECOND)
        self._lock = threading.Lock()  # callbacks come from several threads
        gui = stage.server.gui
        with gui.add_folder("Time"):
            self._slider = gui.add_slider("time", min=0.0, max=1.0, step=0.001, initial_value=0.0)
            self._speed = gui.add_dropdown("speed", tuple(SPEEDS), initial_value="1")
            Activity(gui, "play", "pause", self._play, stopped)
        with gui.add_folder("Show"):
            self._look = gui.add_dropdown("colour", tuple(LOOKS))
            self._cameras = gui.add_checkbox("cameras", initial_value=True)
            self._tracks = gui.add_checkbox("tracks", initial_value=len(trails) > 0, disabled=not len(trails))
            first = gui.add_button("first view")
        self._show()
        self._slider.on_update(lambda _: self._show())
        self._tracks.on_update(lambda _: self._show())
        self._look.on_update(lambda _: self._show())
        self._cameras.on_update(lambda _: stage.set_visible("cameras", self._cameras.value))
        first.on_click(lambda event: self.look_through(event.client, 0))

    @property
    def moment(self) -> float:
        """The time shown, 0 to 1."""
        return self._slider.value

    @moment.setter
    def moment(self, moment: float) -> None:
        self._slider.value = moment  # which shows it

    @property
    def part(self) -> Scene4D:
        """The scene, or the part of a long one, as it is shown."""
        return self.shown.part(self.moment)

    def look_through(self, client, view: int) -> None:
        """Let a client look through an input camera of this part, at its time."""
        part = self.part
        self.moment = float(part.view_times[view])
        self.stage.move_client(client, part.cameras[view])

    def _show(self) -> None:
        with self._lock, self.stage.server.atomic():
            moment = self.moment
            if self._look.value != self.shown.look:
                self.shown = Shown(self.shown.scene, self._look.value)
            drawn = self.shown.look, self.shown.number(moment)
            if drawn != self._drawn:
                self._show_part(self.shown.part(moment))
                self._drawn = drawn
            self.stage.show_gaussians("moving", self._moving.at(moment))
            if self._tracks.value:
                self.stage.show_trails("tracks", self._trails, moment)
            else:
                self.stage.remove("tracks")

    def _show_part(self, part: Scene4D) -> None:
        """What does not change with every moment."""
        self._moving = replace(part, static=Gaussians.empty(device=part.times.device))
        self.stage.show_gaussians("static", part.static)
        self.stage.show_cameras("cameras", part.cameras, INPUT_COLOR, self.look_through)
        self.stage.set_visible("cameras", self._cameras.value)

    def _play(self, client, running: Running) -> None:
        before = time.monotonic()
        while running() and self.stage.server.get_clients():  # for nobody there is nothing to play
            time.sleep(1 / TICKS)
            now = time.monotonic()
            self.moment = advanced(self.moment, (now - before) * SPEEDS[self._speed.value] / self._seconds)
            before = now
