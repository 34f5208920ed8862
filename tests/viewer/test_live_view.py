"""The live viewer in a real browser, Chromium without a window: its pictures are our renderer's, its controls work."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    *("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update"),
]
SIZE, MINUTE = 200, 60.0  # seconds: software drawing on a busy machine is slow
