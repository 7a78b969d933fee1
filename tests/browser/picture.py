"""Draw the README's picture: in each plot of the demo's report a video is pinned."""

import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

REPORT, PICTURE = Path("runs/demo/report.html"), Path("docs/report.png")
COLOURS = 200
PINNED = (37, 80, 12)  # places in the order of measured scores, one in each plot


def main() -> None:
    """Open the report as somebody would, and keep what is seen."""
    program = shutil.which("chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page(viewport={"width": 1180, "height": 2400}, color_scheme="light")
        page.goto(REPORT.absolute().as_uri())
        for plot, video in zip(page.get_by_role("slider").all(), PINNED, strict=True):
            plot.focus()
            page.keyboard.press("Home")
            for _ in range(video):
                page.keyboard.press("ArrowRight")
            page.keyboard.press("Enter")
        page.keyboard.press("ArrowLeft")
        shown = page.locator(".scatters").first.screenshot()
        browser.close()
    Image.open(io.BytesIO(shown)).convert("RGB").quantize(COLOURS).save(PICTURE, optimize=True)
    print(PICTURE, PICTURE.stat().st_size)


if __name__ == "__main__":
    main()
