"""How large the exported page of a scene is, and how long it takes to open in Chromium with software WebGL.

    python tools/bench_html.py out/clip/scene.safetensors [--picture page.png]

Needs playwright and a Chromium (`apt-get install chromium`). Everything is drawn by the processor (SwiftShader): a
machine with a graphics card is faster. Opening ends when the first view is on the canvas.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from movies.export import export
from movies.scene import Scene4D

ARGUMENTS = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WINDOW = {"width": 960, "height": 600}
NUM_TIMES = 5
PATIENCE = 600_000  # milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", help="a scene.safetensors")
    parser.add_argument("--picture", help="write a picture of the page, in the middle of the clip")
    given = parser.parse_args()
    scene = Scene4D.load(given.scene)
    with tempfile.TemporaryDirectory() as folder:
        path, started = Path(folder) / "scene.html", time.perf_counter()
        export(scene, "html", path, scene.times)
        counts = f"{len(scene.static)} static and {len(scene.moving)} moving Gaussians, {len(scene.times)} times"
        written = time.perf_counter() - started
        print(f"{counts}: {path.stat().st_size / 1e6:.1f} MB, written in {written:.1f} s", flush=True)
        measure(path, given.picture)


def measure(path: Path, picture: str | None) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS, timeout=PATIENCE)
        page = browser.new_page(viewport=WINDOW)
        page.set_default_timeout(PATIENCE)
        started = time.perf_counter()
        page.goto(path.as_uri())
        page.evaluate("viewer.ready.then(() => viewer.renderNow())")
        print(f"opened and drawn in {time.perf_counter() - started:.1f} s", flush=True)
        started = time.perf_counter()
        for k in range(NUM_TIMES):
            page.evaluate(f"(viewer.setTime({k / (NUM_TIMES - 1)}), viewer.renderNow())")
        print(f"another time sorted and drawn in {(time.perf_counter() - started) / NUM_TIMES:.2f} s")
        if picture:
            page.evaluate("(viewer.setTime(0.5), viewer.renderNow())")
            page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
