"""A scene in the browser, live."""

from tyro.conf import Positional

from movies.commands.arguments import Scene


def view(scene: Positional[Scene], host: str = "127.0.0.1", port: int = 8080) -> None:
    """Look at a scene in the browser: time, cameras, tracks, colourings, camera paths to record and render.

    Example: movies view out/clip/scene.safetensors

    Needs `pip install 'movies[view]'`. Ctrl-C ends it.

    Args:
        scene: A scene.safetensors, or the folder of a scene in segments. The tracks.npz beside it is drawn, camera
            paths and videos go to paths/ beside it.
        host: Who may connect: 127.0.0.1 this machine only, 0.0.0.0 whoever reaches it over the network.
        port: Where on it, 0 for any that is free.
    """
    from movies.viewer import open_viewer

    with open_viewer(scene, host, port) as viewer:
        print(f"{viewer.url} shows the scene in a browser; Ctrl-C ends it", flush=True)
        viewer.wait()
