"""The page in a real browser, Chromium without a window and WebGL2 in software: its pictures are our renderer's."""

import base64
import io
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from worlds import SIZE, build_scene

from movies.cameras import Cameras
from movies.export import export
from movies.rendering import render
from movies.scene import Scene4D

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    *("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update"),
]
MINUTE = 60_000  # software drawing on a busy machine is slow
# What 8-bit colours, blended in 8 bits, leave: 48 dB measured. A wrong sign, order or threshold falls below 30.
LEAST_PSNR = 40.0
PICTURE = """async () => {
    await viewer.renderNow();
    return document.getElementById("canvas").toDataURL();
}"""


@dataclass(frozen=True)
class Opened:
    """A page of `scene`, and all that it asked for and said."""

    page: object
    scene: Scene4D
    path: str
    requests: list[str]
    said: list[str]

    def picture(self) -> np.ndarray:  # [H, W, 3]
        """The canvas, once it shows the present state."""
        data = self.page.evaluate(PICTURE).split(",")[1]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) / 255

    def psnr(self, time: float, camera: Cameras) -> float:
        """Of the canvas, against our renderer."""
        wanted = render(self.scene.at(time), camera, SIZE, SIZE).images.clamp(0, 1).permute(1, 2, 0).numpy()
        return -10 * math.log10(np.square(self.picture() - wanted).mean())

    def set_time(self, time: float) -> None:
        self.page.evaluate(f"viewer.setTime({time})")

    def first_view(self, time: float = 0.0) -> None:
        self.page.keyboard.press("r")
        self.set_time(time)


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Iterator[Opened]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; `apt-get install chromium` brings one")
    scene, path = build_scene(), tmp_path_factory.mktemp("page") / "scene.html"
    export(scene, "html", path, scene.times)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=2 * MINUTE)
        page = browser.new_page(viewport={"width": 240, "height": 200})
        page.set_default_timeout(2 * MINUTE)
        requests, said = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"exception: {error}"))
        page.goto(path.as_uri())
        page.evaluate("viewer.ready")
        page.evaluate(f"viewer.setSize({SIZE}, {SIZE})")
        yield Opened(page, scene, path.as_uri(), requests, said)
        browser.close()


@pytest.mark.parametrize("time", [0.0, 0.4, 1.0, 0.25])  # the last is interpolated
def test_the_first_view_is_our_renderers(opened, time):
    opened.first_view(time)
    assert opened.psnr(time, opened.scene.cameras[0]) > LEAST_PSNR


def test_another_camera_is_our_renderers(opened):
    camera = opened.scene.cameras[2]
    opened.set_time(0.7)
    opened.page.evaluate(f"viewer.setCamera({camera.c2w.flatten().tolist()}, {camera.fxfycxcy.tolist()})")
    assert opened.psnr(0.7, camera) > LEAST_PSNR


def test_no_gaps_open_in_a_larger_picture(opened):
    opened.first_view()
    small = opened.picture()
    opened.page.evaluate(f"viewer.setSize({2 * SIZE}, {2 * SIZE})")
    large = opened.picture()
    opened.page.evaluate(f"viewer.setSize({SIZE}, {SIZE})")
    averaged = large.reshape(SIZE, 2, SIZE, 2, 3).mean(axis=(1, 3))
    assert large.mean() == pytest.approx(small.mean(), rel=0.01)
    assert np.square(averaged - small).mean() < 1e-3  # 30 dB


def test_the_slider_changes_the_picture(opened):
    opened.first_view()
    before = opened.picture()
    opened.page.evaluate("""() => {
        const slider = document.getElementById("slider");
        slider.value = 1;
        slider.dispatchEvent(new Event("input"));
    }""")
    assert opened.psnr(1.0, opened.scene.cameras[0]) > LEAST_PSNR
    assert np.abs(opened.picture() - before).mean() > 0.01


def test_space_plays_and_pauses(opened):
    opened.first_view(0.1)
    opened.page.keyboard.press(" ")
    opened.page.wait_for_function("document.getElementById('slider').value != 0.1")
    opened.page.keyboard.press(" ")
    still = opened.page.evaluate("document.getElementById('slider').value")
    opened.picture()
    assert opened.page.evaluate("document.getElementById('slider').value") == still


def test_drag_pan_wheel_and_pinch_move_the_camera_and_r_brings_it_back(opened):
    opened.first_view()
    start, mouse = opened.picture(), opened.page.mouse

    def drag(button: str) -> None:
        mouse.move(50, 50)
        mouse.down(button=button)
        mouse.move(70, 60)
        mouse.up(button=button)

    def pinch() -> None:
        hand = opened.page.context.new_cdp_session(opened.page)
        for kind, gap in (("touchStart", 10), ("touchMove", 30), ("touchEnd", 0)):
            points = [{"x": 50 + side * gap, "y": 50, "id": side + 1} for side in (-1, 1)] if gap else []
            hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for gesture in (lambda: drag("left"), lambda: drag("right"), lambda: mouse.wheel(0, 300), pinch):
        opened.first_view()
        gesture()
        for _ in range(50):  # the browser hands wheels and touches on when it draws next
            opened.page.wait_for_timeout(100)
            change = np.abs(opened.picture() - start).mean()
            if change > 0.01:
                break
        assert change > 0.01
    opened.first_view()
    np.testing.assert_array_equal(opened.picture(), start)


def test_no_network_and_nothing_to_complain_of(opened):
    opened.first_view()
    opened.picture()
    assert opened.requests[0] == opened.path
    assert all(url.startswith("blob:") for url in opened.requests[1:])  # the worker's program
    assert not opened.said


def test_the_page_names_no_other_place(tmp_path):
    scene = build_scene(50, 20)
    export(scene, "html", tmp_path / "a.html", torch.tensor([0.0, 1.0]))
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "http:" not in page and "https:" not in page and "src=" not in page
    assert page.count('class="block"') == 3  # the static ones once, the moving ones twice


def test_a_page_cut_short_says_so(opened, tmp_path):
    page = opened.page.context.browser.new_page()
    whole = Path(opened.path.removeprefix("file://")).read_text(encoding="utf-8")
    block = whole.index('class="block">') + len('class="block">')
    (tmp_path / "cut.html").write_text(
        whole[: block + 1000] + whole[whole.index("</script>", block) :], encoding="utf-8"
    )
    page.goto((tmp_path / "cut.html").as_uri())
    page.wait_for_function("document.getElementById('message').textContent.startsWith('This scene cannot be shown')")
    page.close()


def test_a_drag_that_ended_out_of_sight_is_over(opened):
    opened.first_view()
    start, mouse = opened.picture(), opened.page.mouse
    mouse.move(50, 50)
    mouse.down()
    opened.page.evaluate("""() => canvas.dispatchEvent(
        new PointerEvent("pointermove", {pointerId: 1, pointerType: "mouse", buttons: 0}))""")
    mouse.move(80, 90)
    np.testing.assert_array_equal(opened.picture(), start)
    mouse.up()


def test_arrows_step_and_pause(opened):
    opened.first_view(0.5)
    opened.page.evaluate("viewer.setPlaying(true)")
    opened.page.keyboard.press("ArrowLeft")
    still = opened.page.evaluate("document.getElementById('slider').value")
    opened.picture()
    assert opened.page.evaluate("document.getElementById('slider').value") == still
