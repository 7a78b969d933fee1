"""Pages in Chromium, without a network: what they show, ask for, and say to a screen reader."""

import os
import shutil
from pathlib import Path

import pytest

AXE = Path(".venv/node_modules/axe-core/axe.min.js").absolute()
WIDTHS = (400, 1400)


@pytest.fixture(scope="session")
def chromium():
    """A browser, or skips."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no Chromium; `make browser` installs Debian's")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="there is no playwright; `make browser` installs it"
    )
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def show(chromium):
    """Opens a file, or a server's page; in the end, nobody else was asked, nothing complained."""
    opened, said, asked = [], [], []

    def open_page(path, width=1400, dark=False, **options):
        scheme = "dark" if dark else "light"
        page = chromium.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        address = path if isinstance(path, str) else path.absolute().as_uri()
        page.goto(address)
        opened.append((page, address))
        return page

    yield open_page
    for page, _ in opened:
        page.close()
    assert said == []
    own = {address for _, address in opened}
    served = tuple(address for address in own if address.startswith("http:"))
    allowed = ("data:image/", *(("blob:", *served) if served else ()))
    assert [url for url in asked if url not in own and not url.startswith(allowed)] == []


@pytest.fixture(scope="session")
def axe():
    """The script of axe-core, or skips."""
    if not AXE.is_file():
        pytest.skip("there is no axe-core; `make browser` installs it")
    return AXE.read_text()
