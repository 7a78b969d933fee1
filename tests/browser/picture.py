"""Draw the README's pictures, as one uses them: the demo's report, and `memfeat serve`."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Locator, sync_playwright

REPORT, RUN, CLIPS = Path("runs/demo/report.html"), "runs/demo/cells/bigru+mlp", Path("data/demo")
COLOURS = 200
PINNED = (37, 80, 12)  # places in the order of measured scores, one in each plot
SENT = ("demo-0300.mp4", "demo-0012.mp4")


def report(browser: Browser) -> Image.Image:
    """Pin a video in each plot of the demo's report; above them, what its scores are."""
    page = browser.new_page(viewport={"width": 1180, "height": 2400}, color_scheme="light")
    page.goto(REPORT.absolute().as_uri())
    for plot, video in zip(page.get_by_role("slider").all(), PINNED, strict=True):
        plot.focus()
        page.keyboard.press("Home")
        for _ in range(video):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    parts = [picture(page.locator(part).first) for part in (".warning", ".scatters")]
    whole = Image.new("RGB", (parts[1].width, sum(part.height for part in parts)), "white")
    whole.paste(parts[0], (0, 0))
    whole.paste(parts[1], (0, parts[0].height))
    return whole


def picture(part: Locator) -> Image.Image:
    """Draw a part of a page."""
    return Image.open(io.BytesIO(part.screenshot())).convert("RGB")


def served(browser: Browser) -> Image.Image:
    """Send two clips to the server's page, and show the first."""
    with server() as address:
        page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
        page.goto(address)
        page.wait_for_selector("#taken:not(:empty)")
        page.set_input_files("#files", [CLIPS / name for name in SENT])
        rows = page.locator("#rows tr")
        for at in range(len(SENT)):
            rows.nth(at).locator("input").wait_for(timeout=120_000)
        rows.first.get_by_role("button", name="Show").click()
        page.locator("#strongest button").first.click()
        page.locator("#picture").evaluate("each => each.decode()")
        page.wait_for_timeout(1000)  # until the player shows that frame
        return picture(page.locator("main"))


@contextmanager
def server() -> Iterator[str]:
    """The address of a server of the demo's run."""
    command = [sys.executable, "-m", "memfeat", "serve", RUN, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running.stdout.readline().strip()
        finally:
            running.terminate()


def main() -> None:
    """Open the pages as somebody would, and keep what is seen."""
    program = shutil.which("chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=arguments)
        for name, draw in (("report", report), ("serve", served)):
            path = Path(f"docs/{name}.png")
            draw(browser).quantize(COLOURS).save(path, optimize=True)
            print(path, path.stat().st_size)
        browser.close()


if __name__ == "__main__":
    main()
