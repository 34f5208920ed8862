"""The stage: Gaussians, cameras and trails in a viser server, and the cameras of those who look. The door to viser."""

import contextlib
import io
import math
import socket

import numpy as np
import torch

from movies.cameras import Cameras
from movies.errors import InputError
from movies.gaussians import Gaussians
from movies.geometry import matrix_to_quaternion, quaternion_to_matrix, rigid
from movies.viewer.trails import Trails

# viser keeps covariances in float16, good for standard deviations from 0.008 to 256. The world is shown enlarged: what
# the cameras look at lies at this distance, where the splats of pixels are some 0.05 to 0.5 wide.
SHOWN_FOCUS = 50.0
MAX_SCALE = 200.0
NEAR, FAR = 0.002, 200.0  # of what is drawn, in focus depths
FRUSTUM_SHARE, FRUSTUM_SIZES = 0.5, (0.2, 2.5)  # size of a camera: so much of the way to the next, within these
LINE_WIDTH = 2.0  # pixels
INPUT_COLOR, PATH_COLOR = (90, 170, 255), (255, 160, 40)


def start_server(host: str, port: int):
    """A viser server that listens there and nowhere else; port 0 takes any free one.

    Raises InputError where viser is not installed or the place is taken: viser itself would go to the next port.
    """
    try:
        import viser
    except ImportError as error:
        raise InputError("the live viewer needs viser; pip install 'movies[view]'") from error
    _check_free(host, port)
    with contextlib.redirect_stdout(io.StringIO()):  # its banner
        server = viser.ViserServer(host, port, label="movies", verbose=False)
    if port and server.get_port() != port:  # taken in between
        stop_server(server)
        raise InputError(_taken(host, port))
    # Any visitor's page can ask viser for a public address through its makers' tunnel. Not of this server.
    server.request_share_url = lambda verbose=True: None
    server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
    return server


def stop_server(server) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # its farewell
        server.stop()


def _check_free(host: str, port: int) -> None:
    if not 0 <= port <= 65535:
        raise InputError(f"there is no port {port}; choose one from 1 to 65535, or 0 for any that is free")
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{_taken(host, port)} ({getattr(error, 'strerror', None) or error})") from error


def _taken(host: str, port: int) -> str:
    return f"cannot listen on {host}, port {port}; choose another --port, or 0 for any that is free"


def packed(gaussians: Gaussians, unit: float) -> dict[str, np.ndarray]:  # [N]
    """Gaussians as viser takes them, lengths times `unit`: centers, covariances [N, 3, 3], rgbs, opacities [N, 1]."""
    g = gaussians.detach().to("cpu")
    axes = quaternion_to_matrix(g.quats) * (g.scales * unit).clamp(max=MAX_SCALE)[:, None, :]  # [N, 3, 3]
    covariances = axes @ axes.transpose(-1, -2)
    tensors = {
        "centers": g.means * unit,
        "covariances": covariances,
        "rgbs": g.colors,
        "opacities": g.opacities[:, None],
    }
    return {name: tensor.numpy() for name, tensor in tensors.items()}


class Stage:
    """What a viser server shows of a world whose lengths it multiplies by `unit`."""

    def __init__(self, server, focus: float) -> None:
        self.server, self.unit = server, SHOWN_FOCUS / focus
        self._groups = {}  # viser's handles by name

    def set_first_view(self, camera: Cameras) -> None:  # []
        """Where who comes anew stands; the world's up is this camera's."""
        eye, rotation = camera.c2w[:3, 3] * self.unit, camera.c2w[:3, :3]
        first, up = self.server.initial_camera, -rotation[:, 1].numpy()
        self.server.scene.set_up_direction(up)
        first.position, first.look_at, first.up = eye.numpy(), (eye + SHOWN_FOCUS * rotation[:, 2]).numpy(), up
        first.fov, first.near, first.far = _fov(camera), NEAR * SHOWN_FOCUS, FAR * SHOWN_FOCUS

    def show_gaussians(self, name: str, gaussians: Gaussians) -> None:  # [N]
        """Show these under `name`, in place of those shown under it before."""
        if not len(gaussians):
            self.remove(name)
            return
        values = packed(gaussians, self.unit)
        if name in self._groups:
            self._groups[name].set_gaussians(**values)
        else:
            self._groups[name] = self.server.scene.add_gaussian_splats(f"/{name}", **values)

    def show_cameras(self, name: str, cameras: Cameras, color: tuple[int, int, int], on_click=None) -> None:  # [K]
        """Show cameras as frustums, in place of those under `name`; a click calls `on_click(client, k)`."""
        with self.server.atomic():
            self.remove(name)
            self._groups[name] = self.server.scene.add_frame(f"/{name}", show_axes=False)
            steps = (cameras.centers[1:] - cameras.centers[:-1]).norm(dim=-1) * self.unit
            size = np.clip(FRUSTUM_SHARE * float(steps.median()) if len(steps) else np.inf, *FRUSTUM_SIZES)
            for k, camera in enumerate(cameras):
                fx, fy = camera.fxfycxcy[:2].tolist()
                wxyz, position = self._pose(camera)
                frustum = self.server.scene.add_camera_frustum(
                    f"/{name}/{k}", _fov(camera), fy / fx, scale=float(size), thickness=LINE_WIDTH,
                    thickness_units="screen", color=color, wxyz=wxyz, position=position,
                )  # fmt: skip
                if on_click:
                    frustum.on_click(lambda event, k=k: on_click(event.client, k))

    def show_trails(self, name: str, trails: Trails, time: float) -> None:
        """Show where the points have been until `time`."""
        segments = trails.until(time)  # [K P, 2, 3]
        if not len(segments):
            self.remove(name)
            return
        colors = trails.colors().repeat(len(segments) // len(trails), 1)[:, None].expand(-1, 2, -1)
        points, colors = (segments * self.unit).numpy(), (colors * 255).to(torch.uint8).numpy()
        self._groups[name] = self.server.scene.add_line_segments(
            f"/{name}", points, colors, thickness=LINE_WIDTH, thickness_units="screen"
        )

    def remove(self, name: str) -> None:
        if name in self._groups:
            self._groups.pop(name).remove()

    def set_visible(self, name: str, visible: bool) -> None:
        if name in self._groups:
            self._groups[name].visible = visible

    def camera_of(self, client, aspect: float) -> Cameras:  # []
        """Where a client looks from, in the scene's world, for pictures of this width / height."""
        rotation = quaternion_to_matrix(torch.from_numpy(client.camera.wxyz).float())
        position = torch.from_numpy(client.camera.position).float() / self.unit
        fy = 0.5 / math.tan(client.camera.fov / 2)
        return Cameras(rigid(rotation, position), torch.tensor([fy / aspect, fy, 0.5, 0.5]))

    def move_client(self, client, camera: Cameras) -> None:  # []
        """Let a client look through a camera."""
        wxyz, position = self._pose(camera)
        with client.atomic():
            client.camera.position, client.camera.wxyz, client.camera.fov = position, wxyz, _fov(camera)

    def _pose(self, camera: Cameras) -> tuple[np.ndarray, np.ndarray]:
        c2w = camera.c2w.cpu()
        return matrix_to_quaternion(c2w[:3, :3]).numpy(), (c2w[:3, 3] * self.unit).numpy()


def _fov(camera: Cameras) -> float:  # []
    """Vertical, in radians."""
    return float(camera.fov()[1])
