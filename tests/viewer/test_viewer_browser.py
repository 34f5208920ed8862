"""The live viewer in a real browser, Chromium without a window and WebGL2 in software: its pictures are ours."""

import io
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image

from movies.rendering import render
from movies.viewer import Viewer, open_viewer

pytest.importorskip("viser", reason="viser is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    *("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update"),
]
SIZE = 200  # of the page: viser projects a picture as the window of the frame before, so they must be alike
PATIENCE = 120.0  # seconds: software drawing on a busy machine is slow
# What JPEG and viser's order of splats at equal depth leave: 31 to 38 dB measured. A splat out of place, a wrong sign
# or lens falls below 20.
LEAST_PSNR = 28.0


@dataclass
class Opened:
    """A viewer, the page that shows it, and all that the page asked for and died of."""

    viewer: Viewer
    page: object
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def client(self):
        return next(iter(self.viewer.server.get_clients().values()))

    def picture(self) -> np.ndarray:  # [H, W, 3]
        """What the page's camera sees, over white and without controls."""
        return self.client.get_render(SIZE, SIZE, timeout=PATIENCE) / 255

    def psnr(self, view: int) -> float:
        """Of that picture against our renderer's of an input camera at the moment shown, once it is good or at last."""
        part, deadline = self.viewer.player.part, time.monotonic() + PATIENCE
        gaussians = part.at(self.viewer.player.moment)
        wanted = render(gaussians, part.cameras[view], SIZE, SIZE, background=torch.ones(3)).images
        value = 0.0
        while value < LEAST_PSNR and time.monotonic() < deadline:
            error = np.square(self.picture() - wanted.clamp(0, 1).permute(1, 2, 0).numpy()).mean()
            value = -10 * math.log10(error)
        return value


def _wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def opened(scene, tmp_path_factory) -> Iterator[Opened]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; `apt-get install chromium` brings one")
    path = tmp_path_factory.mktemp("scene") / "scene.safetensors"
    scene.save(path)
    with open_viewer(path, port=0) as viewer, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=1000 * PATIENCE)
        page = browser.new_page(viewport={"width": SIZE, "height": SIZE})
        page.set_default_timeout(1000 * PATIENCE)
        result = Opened(viewer, page)
        page.on("request", lambda request: result.requests.append(request.url))
        page.on("pageerror", lambda error: result.errors.append(str(error)))
        page.goto(viewer.url)
        _wait_for(lambda: viewer.server.get_clients())
        yield result
        browser.close()


def test_the_first_view_is_the_first_input_cameras(opened):
    stage, camera = opened.viewer.player.stage, opened.viewer.player.part.cameras[0]
    _wait_for(lambda: (stage.camera_of(opened.client, 1.0).c2w - camera.c2w).abs().max() < 1e-4)
    assert opened.client.camera.fov == pytest.approx(float(camera.fov()[1]))
    stage.set_visible("cameras", False)
    assert opened.psnr(0) > LEAST_PSNR


@pytest.mark.parametrize(("moment", "view"), [(0.25, 0), (1.0, 2)])  # the first is interpolated
def test_other_moments_and_cameras_are_our_renderers(opened, moment, view):
    opened.viewer.player.look_through(opened.client, view)
    opened.viewer.player.moment = moment
    assert opened.psnr(view) > LEAST_PSNR


def test_the_slider_of_the_page_changes_the_picture(opened):
    opened.viewer.player.look_through(opened.client, 0)
    assert opened.psnr(0) > LEAST_PSNR
    before = opened.picture()
    opened.page.locator("[role=slider][aria-valuenow='0']").first.press("End")  # once the page shows time 0
    _wait_for(lambda: opened.viewer.player.moment == 1.0)
    assert opened.psnr(0) > LEAST_PSNR
    assert np.abs(opened.picture() - before).mean() > 0.01


def test_the_page_plays_and_pauses_and_looks_along_a_path(opened):
    player, editor, page = opened.viewer.player, opened.viewer.editor, opened.page
    player.look_through(opened.client, 0)
    editor.add(opened.client)
    page.get_by_role("button", name="play").dispatch_event("click")
    _wait_for(lambda: player.moment > 0)
    page.get_by_role("button", name="pause").dispatch_event("click")
    page.get_by_role("button", name="play").wait_for()  # it is over
    player.look_through(opened.client, 2)
    editor.add(opened.client)
    editor._seconds.value = 0.5
    player.moment = 0.3
    page.get_by_role("button", name="preview").dispatch_event("click")
    _wait_for(lambda: player.moment == 1.0)
    page.get_by_role("button", name="preview").wait_for()
    assert opened.psnr(2) > LEAST_PSNR


def test_the_page_is_not_blank_and_asks_nobody_else(opened):
    shot = np.asarray(Image.open(io.BytesIO(opened.page.screenshot())).convert("RGB"))
    assert len(np.unique(shot.reshape(-1, 3), axis=0)) > 100
    places = [url.removeprefix("blob:") for url in opened.requests]
    assert places and all(url.startswith(opened.viewer.url) for url in places)
    assert not opened.errors
