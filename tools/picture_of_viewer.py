"""A picture of the live viewer with a scene in it: python tools/picture_of_viewer.py SCENE docs/viewer.png

Needs playwright, a Chromium and viser. The view lies behind and above the input cameras, so that they are seen.
"""

import io
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from movies.cameras import Cameras
from movies.geometry import look_at
from movies.scene import Scene4D
from movies.trajectories import focus_depth
from movies.viewer import open_viewer

SIZE, MOMENT = (1000, 620), 0.6
ARGUMENTS = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def behind(scene: Scene4D) -> Cameras:  # []
    """A view of the first camera's lens, back and up from the middle input camera, at what that one looks at."""
    focus, camera = focus_depth(scene), scene.cameras[len(scene.cameras) // 2]
    right, down, forward = camera.c2w[:3, :3].T
    eye = camera.c2w[:3, 3] + focus * (-0.6 * forward - 0.45 * down + 0.35 * right)
    target = camera.c2w[:3, 3] + focus * (0.6 * forward + 0.1 * down + 0.3 * right)  # the panel covers the right
    return Cameras(look_at(eye, target, down), camera.fxfycxcy)


def settled(page) -> np.ndarray:  # [H, W, 3]
    """A screenshot, once two in a row are the same and the splats have faded in."""
    before, shot = None, np.zeros(0)
    while before is None or not np.array_equal(before, shot):
        time.sleep(5)
        before, shot = shot, np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    return shot


def main(scene_path: str, out: str) -> None:
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with open_viewer(scene_path, port=0) as viewer, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        page = browser.new_page(viewport=dict(zip(("width", "height"), SIZE, strict=True)))
        page.set_default_timeout(300_000)
        page.goto(viewer.url)
        while not viewer.server.get_clients():
            time.sleep(0.1)
        client, player = next(iter(viewer.server.get_clients().values())), viewer.player
        for view in (0, len(player.part.cameras) // 2, -1):  # a path of three views
            player.look_through(client, view)
            viewer.editor.add(client)
        player.stage.move_client(client, behind(player.part))
        player.moment = MOMENT
        page.get_by_role("alert").get_by_role("button").click()  # the note on drawing in software
        picture = settled(page)
        browser.close()
    Image.fromarray(picture).save(out, optimize=True)
    print(f"wrote {out}, {Path(out).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(*sys.argv[1:])
