"""What buttons of the page do: mistakes are told to who clicked, and what takes long ends at a second click."""

import threading
from collections.abc import Callable

from movies.errors import InputError

Running = Callable[[], bool]  # whether to go on


def told(action: Callable) -> Callable:
    """A callback of viser's whose mistakes (InputError, OSError) appear in the page of the client who made them."""

    def callback(event) -> None:
        try:
            action(event)
        except (InputError, OSError) as error:
            event.client.add_notification("movies", str(error), color="red")

    return callback


class Activity:
    """A button that starts something long, `action(client, running)`; clicked again, `running()` says no."""

    def __init__(self, gui, label: str, ending: str, action: Callable, stopped: threading.Event) -> None:
        self._label, self._ending, self._action, self._stopped = label, ending, action, stopped
        self._lock, self._running = threading.Lock(), False
        self._button = gui.add_button(label)
        self._button.on_click(told(self._clicked))

    def _clicked(self, event) -> None:
        with self._lock:
            self._running = not self._running
            if not self._running:
                return
        self._button.label = self._ending
        try:
            self._action(event.client, lambda: self._running and not self._stopped.is_set())
        finally:
            self._running = False
            self._button.label = self._label
