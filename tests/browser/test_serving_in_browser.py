"""The page of `memfeat serve` in Chromium, and its API as a stranger's tool tries it."""

import socket
import threading

import numpy as np
import pytest
import uvicorn
from hypothesis import given, settings

import memfeat
from memfeat.config import ServeConfig
from memfeat.serving import LOOPBACK, Guard, ScoringQueue, create_app
from memfeat.video import write_video

pytestmark = pytest.mark.browser
NAMES = ("<b>bold<b> & a name without any space that has to break somewhere.webm", "v1.mp4")


@pytest.fixture(scope="module")
def app(studied, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    scorers = {"mine": lambda: memfeat.load(studied / "run", device="cpu")}
    config = ServeConfig(most_megabytes=2)
    notes = ["features: a tiny encoder, RANDOM WEIGHTS", "scores: made up, not from people"]
    with ScoringQueue(folder, scorers, config) as queue:
        yield Guard(create_app(queue, config, lambda _: notes), LOOPBACK)
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def address(app):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two clips that Chromium can play, which plays no H.264 everywhere."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for name in NAMES:
        tiles = generator.integers(0, 256, (20, 6, 8, 3), dtype=np.uint8)
        write_video(folder / name, tiles.repeat(16, axis=1).repeat(16, axis=2), fps=10)
    return [folder / name for name in NAMES]


def scored(page, clips):
    """Send clips, and wait until they have scores."""
    rows = page.locator("#rows tr")
    before = rows.count()
    page.wait_for_selector("#taken:not(:empty)")
    page.set_input_files("#files", clips)
    for at in range(before, before + len(clips)):
        rows.nth(at).locator("input").wait_for(timeout=60_000)
    return [rows.nth(at) for at in range(before, before + len(clips))]


def test_dropped_clips_get_scores_play_with_their_timelines_and_are_compared(address, clips, show):
    page = show(address)
    rows = scored(page, clips)
    assert rows[0].locator("th").inner_text().startswith(NAMES[0])
    (score, *_) = [row.locator("[data-label=score]").inner_text() for row in rows]
    assert score.startswith("0.")
    rows[0].get_by_role("button", name="Show").click()
    page.wait_for_selector("#shown-title:not(:empty)")
    assert page.locator("#shown-title").inner_text() == NAMES[0]
    assert page.evaluate("document.activeElement.id") == "shown-title"
    assert score in page.locator("#verdict").inner_text()
    assert page.locator("#picture").evaluate("each => each.decode().then(() => each.naturalWidth)")
    assert "Raised most at" in page.locator("#picture").get_attribute("alt")
    moment = page.locator("#strongest button").first
    seconds = float(moment.inner_text().split(" s")[0])
    moment.click()
    assert page.locator("#cursor").is_visible()
    assert page.locator("#player").evaluate("each => each.currentTime") == pytest.approx(seconds)
    left = page.locator("#cursor").evaluate("each => parseFloat(each.style.left)")
    page.locator("#timeline").click(position={"x": 300, "y": 60})
    assert page.locator("#cursor").evaluate("each => parseFloat(each.style.left)") != left
    assert page.locator("#compare").is_disabled()
    for row in rows:
        row.get_by_role("checkbox").check()
    page.locator("#compare").click()
    page.locator("#compared").wait_for()
    assert "higher than" in page.locator("#differences").inner_text()
    for label, suffix in (("CSV", ".csv"), ("JSON", ".json"), ("PNG", ".png")):
        with page.expect_download() as got:
            page.get_by_role("link", name=label).first.click()
        assert got.value.suggested_filename.endswith(suffix)
    for row in rows:
        row.get_by_role("button", name="Remove").click()
    page.locator("#videos").wait_for(state="hidden")
    assert page.locator("#shown").is_hidden()


def test_what_cannot_be_scored_is_told_beside_its_name(address, tmp_path, show):
    page = show(address)
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "large.mp4").write_bytes(bytes(2_000_001))
    page.wait_for_selector("#taken:not(:empty)")
    page.set_input_files("#files", [tmp_path / "text.mp4", tmp_path / "large.mp4"])
    row = page.locator("#rows tr", has_text="text.mp4")
    row.get_by_role("button", name="Remove").wait_for()
    assert "text.mp4" in row.locator("td[colspan]").inner_text()
    page.get_by_text("large.mp4 was not sent: it is larger than this server takes").wait_for()
    row.get_by_role("button", name="Remove").click()


def test_a_row_stays_while_its_video_is_decoded(address, tmp_path, show):
    write_video(tmp_path / "long.mp4", np.zeros((6000, 48, 64, 3), np.uint8), fps=25)
    page = show(address)
    page.evaluate(
        "() => { window.revoked = 0; URL.revokeObjectURL = () => { window.revoked += 1; }; }"
    )
    page.wait_for_selector("#taken:not(:empty)")
    page.set_input_files("#files", [tmp_path / "long.mp4"])
    row = page.locator("#rows tr")
    text = row.locator("td[colspan]", has_text="decoded")
    text.wait_for()
    bar, before = row.locator("progress").element_handle(), text.inner_text()
    page.wait_for_function(
        "([bar, before]) => bar.parentNode.innerText !== before", arg=[bar, before]
    )
    assert bar.evaluate("each => each.isConnected")
    assert page.evaluate("window.revoked") == 1  # whether or not this browser plays H.264
    row.get_by_role("button", name="Cancel").click()
    row.get_by_role("button", name="Remove").click()
    page.locator("#videos").wait_for(state="hidden")
    assert page.evaluate("sent.size") == 0


def test_a_score_that_does_not_arrive_is_told_in_its_row(address, clips, show):
    page = show(address)
    page.route("**/api/videos/*", lambda route: route.fulfill(body="cut off"))
    page.wait_for_selector("#taken:not(:empty)")
    page.set_input_files("#files", clips[1:])
    row = page.locator("#rows tr")
    row.get_by_text("JSON").wait_for()
    page.unroute("**/api/videos/*")
    row.get_by_role("button", name="Remove").click()
    page.locator("#videos").wait_for(state="hidden")


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_at_every_width_and_in_the_dark(address, clips, show, axe, width, dark):
    page = show(address, width, dark)
    rows = scored(page, clips)
    for row in rows:
        row.get_by_role("checkbox").check()
    page.locator("#compare").click()
    page.locator("#compared").wait_for()
    rows[1].get_by_role("button", name="Show").click()
    page.locator("#strongest button").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    problems = [
        (each["id"], [node["html"][:150] for node in each["nodes"][:3]])
        for each in found["violations"]
    ]
    assert problems == []
    for row in rows:
        row.get_by_role("button", name="Remove").click()
    page.locator("#videos").wait_for(state="hidden")


def test_a_keyboard_is_enough(address, clips, show):
    page = show(address)
    scored(page, clips[:1])
    page.locator("#scorer").focus()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert f"compare {NAMES[0]}" in reached
    assert f"Show {NAMES[0]}" in reached
    page.get_by_role("button", name="Show").focus()
    page.keyboard.press("Enter")
    page.locator("#shown").wait_for()
    page.get_by_role("button", name="Remove").focus()
    page.keyboard.press("Enter")
    page.locator("#videos").wait_for(state="hidden")


def test_no_request_that_its_description_allows_makes_the_api_fail(address):
    schemathesis = pytest.importorskip(
        "schemathesis", reason="there is no schemathesis; `make browser` installs it"
    )
    tried = 0
    for operation in schemathesis.openapi.from_url(f"{address}openapi.json").get_all_operations():

        @settings(max_examples=30, deadline=None, database=None, derandomize=True)
        @given(case=operation.ok().as_strategy())
        def attempt(case):
            nonlocal tried
            answer = case.call(base_url=address.rstrip("/"))
            assert answer.status_code < 500, answer.text
            tried += 1

        attempt()
    assert tried > 100
