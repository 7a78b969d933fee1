"""A report in Chromium: dots that show their videos, rows to sort and compare, and who can read."""

import re

import numpy as np
import pytest
from made_up import SMALL, spec
from scipy.stats import spearmanr

from memfeat.ablation import plan_cells
from memfeat.ablation.results import table_of
from memfeat.ablation.transfer import plan_transfer, run_transfer
from memfeat.cache import Cache, EncodedVideo, write_shard
from memfeat.config import AblationConfig, TransferConfig
from memfeat.manifest import VideoRecord, read_manifest, write_manifest
from memfeat.prediction.comparison import Comparison
from memfeat.prediction.explaining import timelines_of
from memfeat.prediction.scorer import Scorer
from memfeat.prediction.timeline import timeline_svg
from memfeat.report import write_report
from memfeat.report.comparison import ComparedVideo, write_comparison
from memfeat.runs import Run, read_predictions
from memfeat.storage import write_json
from memfeat.training import Examples, train
from memfeat.training.baselines import run_baseline
from memfeat.video import write_video

pytestmark = pytest.mark.browser
REPORTS = ("grid", "run", "transfer")
PAPER = 688  # pixels across A4, within its margins
MADE_UP = "made up for a test: scores from a formula, not from people"


def make_dataset(home, name, count=45):
    """Clips with features that tell their scores; videos of the last third of dev are missing."""
    generator = np.random.default_rng(len(name))
    records, videos = [], []
    for number in range(count):
        path = home / f"{name}-{number}.mp4"
        if number < 0.8 * count:
            tiles = generator.integers(0, 256, (4, 3, 4, 3), dtype=np.uint8)
            write_video(path, tiles.repeat(16, axis=1).repeat(16, axis=2), fps=5)
        score = round(float(generator.uniform(0.3, 0.95)), 4)
        frames = generator.normal(0, 0.1, (6, 6)) + score
        frames[:, 0] = 1 - score
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        video_id = f"{name}-{number:02d}-<b>with&a_long_name_that_has_to_break_somewhere"
        videos.append(EncodedVideo(video_id, frames.astype(np.float16), np.arange(6) / 5))
        split = ["train", "dev", "dev"][number % 3]
        records.append(
            VideoRecord(video_id=video_id, path=path, score=score, split=split, dataset=MADE_UP)
        )
    write_manifest(home / f"{name}.csv", records)
    write_shard(home / "caches" / name, spec(6), videos)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The pages of a grid, of one of its runs, of a transfer, and of a comparison."""
    home = tmp_path_factory.mktemp("reports")
    for name in ("one", "other"):
        make_dataset(home, name)
    recipe = {"max_epochs": 4, "learning_rate": 0.01, "bootstrap": 50, "device": "cpu", **SMALL}
    grid = AblationConfig(
        title="A grid",
        run=home / "grid",
        split="dev",
        seeds="0-1",
        cache_root=home / "caches",
        caches=("one",),
        aggregators=("avg", "linear-avg", "bigru"),
        heads=("linear", "mlp"),
        baselines=("ridge",),
        controls=("avg+linear",),
    )
    cells = plan_cells(grid, recipe | {"manifest": home / "one.csv"})
    features = Cache.open(home / "caches" / "one").load()
    records = read_manifest(home / "one.csv").records
    for cell in cells:
        if cell.kind == "baseline":
            run_baseline(Examples.join(features, records), cell.config)
        else:
            train(features, records, cell.config)
    write_json(home / "grid" / "ablation.json", table_of(grid, cells, {"avg+svr": "no luck"}))
    datasets = [
        {"name": name, "manifest": home / f"{name}.csv", "cache": home / "caches" / name}
        for name in ("one", "other")
    ]
    transfer = TransferConfig(
        title="A transfer", run=home / "transfer", seeds=(0,), datasets=datasets, workers=1
    )
    run_transfer(transfer, plan_transfer(transfer, recipe | {"aggregator": "avg"}))
    folders = {"grid": grid.run, "run": grid.run / "cells" / "bigru+mlp", "transfer": transfer.run}
    compared = home / "comparison.html"
    write_page_of_comparison(compared, folders["run"], home / "caches" / "one")
    return {"comparison": compared} | {
        kind: write_report(folder, home / f"{kind}.html", None, timelines_of)
        for kind, folder in folders.items()
    }


def write_page_of_comparison(output, run, cache):
    predictions = list(Scorer(run, device="cpu").predict_cache(cache))
    found = Comparison.of(predictions[:3], 0.1)
    ranking = found.ranking
    pixels = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), np.uint8)
    videos = [
        ComparedVideo(
            name=each.name,
            score=each.score,
            interval=each.interval,
            percentile=each.percentile,
            lines=each.lines(),
            timeline=timeline_svg(each.timeline, str(number)),
            frames=dict(enumerate(pixels)),
        )
        for number, each in enumerate(ranking)
    ]
    sources = ranking[0].sources
    write_comparison(output, videos, findings=found.lines(), failed=["no video"], sources=sources)


@pytest.fixture(scope="module")
def predictions(reports):
    """The dev split's predictions of the grid's rows, by system."""
    cells = reports["grid"].parent / "grid" / "cells"
    found = {}
    for folder in cells.iterdir():
        own = Run.load(folder).predictions()
        found[folder.name] = own.of([own.video_id[n] for n in np.flatnonzero(own.scored("dev"))])
    return found


def dot(page, video_id, figure=0):
    """Where a video's dot is on the screen, by the page's data and its axes."""
    return page.evaluate(
        """([video, number]) => {
          const figure = document.querySelectorAll("figure.scatter")[number];
          figure.querySelector("svg").scrollIntoView({ block: "center" });
          const data = JSON.parse(document.getElementById("data").textContent);
          const system = data.systems[figure.dataset.system], set = data.sets[system.set];
          const place = set.ids.indexOf(video);
          const { low, high } = figure.querySelector(".plot").dataset;
          const box = figure.querySelector("path.axis").getBoundingClientRect();
          const share = (value) => (value - low) / (high - low);
          return [box.left + share(set.truth[place]) * box.width,
                  box.bottom - share(system.predictions[place]) * box.height];
        }""",
        [video_id, figure],
    )


def drawn(page, figure=0):
    return page.locator("figure.scatter figcaption b").nth(figure).text_content().strip()


def test_pointing_at_a_dot_shows_its_video_and_a_click_pins_it_with_its_timeline(
    reports, predictions, show
):
    page = show(reports["grid"])
    own = predictions[drawn(page)]
    margin = np.sort(np.abs(own.score - own.prediction))[-(-(len(own.score) + 1) * 9 // 10) - 1]
    for place in (int(np.argmax(own.prediction)), int(np.argmin(own.score))):
        page.mouse.move(*dot(page, own.video_id[place]))
        tip = page.locator(".tip:visible")
        low, high = np.clip(own.prediction[place] + np.array([-margin, margin]), 0, 1)
        assert " ".join(tip.inner_text().split()).endswith(
            f"{own.video_id[place]} measured {own.score[place]:.3f} "
            f"predicted {own.prediction[place]:.3f} [{low:.3f}, {high:.3f}]"
        )
        image = tip.locator("img")
        if image.count():
            assert image.evaluate("each => each.complete && each.naturalWidth > 0")
        assert page.locator(".ring.on").count() == 3, "the same video in every plot"
    page.mouse.click(*dot(page, own.video_id[place]))
    page.mouse.move(0, 0)
    pinned = page.locator(".pinned:visible")
    assert not page.locator(".tip:visible").count()
    assert own.video_id[place] in pinned.inner_text()
    label = pinned.locator("svg").get_attribute("aria-label")
    assert re.search(r"raised most by the frames at \d\.\d\d s", label)
    assert pinned.locator("svg").bounding_box()["height"] > 100
    pinned.get_by_role("button", name="Unpin").click()
    assert not page.locator(".pinned:visible").count()


def test_what_is_said_of_a_dot_stands_where_the_fewest_dots_are_but_never_on_that_dot(
    reports, predictions, show
):
    page = show(reports["grid"])
    own = predictions[drawn(page)]
    plot = page.locator("figure.scatter .plot").first
    middle = (float(plot.get_attribute("data-low")) + float(plot.get_attribute("data-high"))) / 2
    quarters = list(zip(own.prediction < middle, own.score > middle, strict=True))
    for place in (int(np.argmax(own.prediction)), int(np.argmin(own.score))):
        x, y = dot(page, own.video_id[place])
        page.mouse.move(x, y)
        tip, box = page.locator(".tip:visible").bounding_box(), plot.bounding_box()
        across = tip["x"] + tip["width"] / 2 > box["x"] + box["width"] / 2
        down = tip["y"] > box["y"] + 0.05 * box["height"]  # else it hangs from the top
        others = [(d, a) for d in (0, 1) for a in (0, 1) if (d, a) != quarters[place]]
        assert (down, across) in others
        assert quarters.count((down, across)) == min(map(quarters.count, others))


def test_a_keyboard_goes_through_the_videos_and_a_screen_reader_is_told(reports, predictions, show):
    page = show(reports["grid"])
    own = predictions[drawn(page)]
    plot = page.get_by_role("slider").first
    while plot.evaluate("each => each !== document.activeElement"):
        page.keyboard.press("Tab")
    worst = np.argmax(np.abs(own.score - own.prediction))
    assert plot.get_attribute("aria-valuetext").startswith(own.video_id[worst])
    order = np.lexsort([np.arange(len(own.score)), own.score])
    page.keyboard.press("Home")
    for video in order[:3]:
        told = plot.get_attribute("aria-valuetext")
        assert told.startswith(f"{own.video_id[video]}, measured {own.score[video]:.3f}, predicted")
        assert own.video_id[video] in page.locator(".tip:visible").inner_text()
        page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert own.video_id[order[-1]] in page.locator(".pinned:visible").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator(".tip:visible").count()
    page.keyboard.press("Escape")
    assert not page.locator(".pinned:visible").count()


def test_the_table_sorts_and_filters(reports, show):
    page = show(reports["grid"])
    table = page.locator("table.results")
    names = lambda: [  # noqa: E731
        text.split()[0] for text in table.locator("tbody tr:visible th").all_inner_texts()
    ]
    for column, name in ((1, "SROCC"), (4, "MSE")):
        head = table.get_by_role("button", name=name)
        for direction, sign in (("descending", -1), ("ascending", 1)):
            head.click()
            assert head.locator("xpath=..").get_attribute("aria-sort") == direction
            rows = table.locator("tbody tr:not(.ceiling)")
            cells = [rows.nth(n).locator("th, td").nth(column) for n in range(rows.count())]
            values = [cell.locator("data").first.get_attribute("value") for cell in cells]
            ordered = sign * np.array(values, float)
            assert (np.diff(ordered) >= 0).all()
    table.get_by_role("button", name="System").click()
    assert names() == sorted(names())
    assert len(names()) == 8
    page.get_by_role("searchbox").fill("LINEAR-avg")
    assert names() == ["linear-avg+linear", "linear-avg+mlp"]
    assert "2 of 8 rows" in page.get_by_role("status").inner_text()
    page.get_by_role("searchbox").fill("")
    assert len(names()) == 8


def test_two_rows_are_compared_on_the_same_videos(reports, predictions, show):
    page = show(reports["grid"])
    for name in ("avg+mlp", "bigru+mlp", "avg+ridge"):  # the first gives way to the third
        page.get_by_role("checkbox", name=f"compare {name}", exact=True).check()
    assert page.locator("tbody input:checked").count() == 2
    one, other = predictions["bigru+mlp"], predictions["avg+ridge"]
    panel = page.get_by_role("region", name="Comparison of two rows")
    words = " ".join(panel.inner_text().split())
    assert words.startswith("bigru+mlp against avg+ridge")
    found = re.search(r"30 videos: (\S+) \[(\S+), (\S+)\]", words.replace("\N{MINUS SIGN}", "-"))
    seeds = Run.load(reports["grid"].parent / "grid" / "cells" / "bigru+mlp").members
    each = [read_predictions(own / "predictions.csv").of(one.video_id) for own in seeds]
    sroccs = [spearmanr(own.score, own.prediction).statistic for own in each]
    difference = np.mean(sroccs) - spearmanr(other.score, other.prediction).statistic
    value, low, high = map(float, found.groups())
    assert value == pytest.approx(difference, abs=5.1e-4)
    assert low < value < high
    assert "from 50 resamples" in words
    errors = [np.abs(own.prediction - own.score) for own in (one, other)]
    assert f"nearer to the measured score for {(errors[0] < errors[1]).sum()} of them" in words
    apart = np.argsort(-np.abs(one.prediction - other.prediction), kind="stable")[:6]
    shown = panel.locator("li .id").all_inner_texts()
    assert shown == [one.video_id[place] for place in apart]
    page.get_by_role("checkbox", name="compare avg+ridge", exact=True).uncheck()
    assert not panel.is_visible()


def test_rows_of_different_videos_are_not_paired(reports, show):
    page = show(reports["transfer"])
    boxes = page.locator("tbody input")
    boxes.nth(0).check()
    page.get_by_role("checkbox", name="compare other to other, dev split").check()
    assert "different videos" in page.locator("#compare").inner_text()
    page.get_by_role("checkbox", name="compare other to one, dev split").check()
    boxes.nth(0).check()
    assert "SROCC of the first minus" in page.locator("#compare").inner_text()


def use(page):
    """Do what shows everything that a page can show; a comparison shows it at once."""
    if not page.locator("figure.scatter").count():
        return
    page.locator("figure.scatter svg").first.scroll_into_view_if_needed()
    page.get_by_role("slider").first.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    for box in page.locator("tbody input").all()[:2]:
        box.check()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("kind", (*REPORTS, "comparison"))
def test_it_can_be_read_at_every_width_and_in_the_dark(reports, show, axe, kind, width, dark):
    page = show(reports[kind], width, dark)
    use(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((each) => {
          const style = getComputedStyle(each);
          const own = [...each.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
          const { left, right, width } = each.getBoundingClientRect();
          const scrolls = each.closest(".scroll, .unseen, svg, script, style");
          return own && width && !scrolls && style.visibility === "visible" &&
            (each.scrollWidth > each.clientWidth + 1 && style.display !== "inline" ||
             left < -1 || right > innerWidth + 1);
        }).map((each) => each.outerHTML.slice(0, 200))"""
    )
    assert outside == []
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    problems = [
        (each["id"], [node["html"][:150] for node in each["nodes"][:3]])
        for each in found["violations"]
    ]
    assert problems == []


@pytest.mark.parametrize("kind", REPORTS)
def test_text_in_pictures_stays_inside_and_its_letters_are_large_enough(reports, show, kind):
    for width in (400, 1400):
        page = show(reports[kind], width)
        use(page)
        sizes = page.evaluate(
            """() => [...document.querySelectorAll(".scatters svg text")].map((each) => {
              const box = each.getBoundingClientRect();
              const whole = each.ownerSVGElement.getBoundingClientRect();
              const inside = box.left >= whole.left - 1 && box.right <= whole.right + 1 &&
                box.top >= whole.top - 1 && box.bottom <= whole.bottom + 1;
              return [each.textContent, inside, Math.min(box.width, box.height)];
            })"""
        )
        assert len(sizes) > 30
        assert [text for text, inside, _ in sizes if not inside] == []
        assert [text for text, _, size in sizes if text != "1" and size < 4] == []


@pytest.mark.parametrize("kind", REPORTS)
def test_it_prints(reports, show, tmp_path, kind):
    page = show(reports[kind], dark=True)
    use(page)
    pdf = page.pdf(format="A4", path=tmp_path / "a.pdf")
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 3 <= pages <= 40
    page.emulate_media(media="print")
    for each in ("nav", ".tools", ".tip", ".pick"):
        assert not page.locator(f"{each}:visible").count()
    page.set_viewport_size({"width": PAPER, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == PAPER
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".pinned:visible").count() == 1, "what was chosen is printed"


def test_without_scripts_everything_but_the_asking_is_there(reports, chromium):
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto(reports["grid"].as_uri())
    assert page.locator("figure.scatter svg .videos path").count() == 36
    assert page.locator("table.results tbody tr").count() == 8
    assert not page.locator(".scripted:visible").count()
    page.close()


def test_nothing_can_be_fetched_whatever_gets_in(reports, chromium):
    page = chromium.new_page()
    ended = []
    page.on("requestfailed", lambda request: ended.append((request.url[-6:], request.failure)))
    page.on("requestfinished", lambda request: ended.append((request.url[-6:], "finished")))
    page.goto(reports["grid"].as_uri())
    page.evaluate(
        """() => {
          window.blocked = [];
          document.addEventListener("securitypolicyviolation",
            (event) => blocked.push(event.effectiveDirective));
          document.body.append(Object.assign(new Image(), { src: "http://127.0.0.1:9/x.png" }));
          document.body.append(Object.assign(document.createElement("script"), { text: "1" }));
          fetch("http://127.0.0.1:9/y").catch(() => {});
        }"""
    )
    page.wait_for_function("new Set(blocked).size === 3")
    assert set(page.evaluate("blocked")) == {"img-src", "connect-src", "script-src-elem"}
    assert set(ended) <= {("/x.png", "csp"), ("d.html", "finished")}
    page.close()
