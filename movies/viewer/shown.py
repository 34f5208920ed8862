"""Shown: a scene in one colouring and for one size of pictures, whether it is whole or long and in segments."""

import math

from torch import Tensor

from movies.gaussians import Gaussians
from movies.long_scene import LongScene
from movies.scene import Scene4D
from movies.viewer.looks import recolored, with_camera
from movies.widening import widen, widened


class Shown:
    """A scene as `look` colours it, for pictures `enlarged` times as large as the input views.

    Of a long scene there is a part at a time: the segment shown most, with what stands still in its neighbours.
    """

    def __init__(self, scene: Scene4D | LongScene, look: str, enlarged: float = math.inf) -> None:
        self.scene, self.look, self.enlarged = scene, look, enlarged
        self._last: tuple[int, Scene4D] | None = None

    def number(self, moment: float) -> int:
        """Which part is shown at a moment."""
        return self.scene.shown_most(moment) if isinstance(self.scene, LongScene) else 0

    def part(self, moment: float) -> Scene4D:
        """The part shown at a moment, coloured and widened."""
        number = self.number(moment)
        if self._last is None or self._last[0] != number:
            scene = self.scene.window(moment) if isinstance(self.scene, LongScene) else self.scene
            self._last = number, widened(recolored(with_camera(scene), self.look), self.enlarged)
        return self._last[1]

    def at(self, time: float | Tensor) -> Gaussians:  # [N]
        """What is drawn at a time; as Scene4D.at."""
        part = self.part(float(time))
        if isinstance(self.scene, LongScene) and self.look == "rgb":  # which fades from segment to segment
            return widen(self.scene.at(time), part, self.enlarged)
        return part.at(time)
