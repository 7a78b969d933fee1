"""The documentation does what it says: commands run, flags and files exist, links lead on."""

import ast
import doctest
import importlib.util
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner

import memfeat
from memfeat.ablation import plan_cells
from memfeat.cli import main
from memfeat.config import AblationConfig, TrainConfig, build
from memfeat.datasets import FORMATS
from memfeat.datasets.demo import DEMO
from memfeat.encoders import ENCODERS
from memfeat.models import AGGREGATORS
from memfeat.video import write_video

# In an order in which what one page makes is there for the next.
PAGES = (
    *("docs/index.md", "docs/tutorial.md", "docs/how-to/own-videos.md"),
    *("docs/how-to/predict.md", "docs/how-to/serve.md", "README.md"),
    *("docs/how-to/choose-a-system.md", "docs/how-to/features-made-elsewhere.md"),
    "docs/how-to/text.md",
    *("docs/how-to/read-a-cache.md", "docs/how-to/mediaeval.md", "docs/how-to/papers-tables.md"),
    "docs/how-to/adverts.md",
    *("docs/how-to/cluster.md", "docs/reference/commands.md", "docs/reference/manifest.md"),
    *("docs/reference/cache.md", "docs/reference/runs.md", "docs/reference/python.md"),
    *("docs/architecture.md", "docs/scaling.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("CHANGELOG.md", "data_manifests/README.md", "tests/benchmarks/README.md"),
)
# Every command in a console or bash block is run, but for those that begin like this:
NOT_RUN = {
    "installs packages": ("make install", "pip install"),
    "takes minutes to hours": (
        *("make demo", "make table1-smoke"),
        *("make extract", "make train", "make ablation", "make table2", "memfeat demo"),
        *("memfeat extract pipelines/demo.toml", "memfeat ablation pipelines/demo.toml"),
        *("memfeat report runs/demo", "memfeat predict runs/demo/"),
    ),
    "would run this test": ("make test",),
    "starts workers, as test_ablation.py does; its settings are read here": (
        *("memfeat ablation grid.toml", "memfeat report runs/grid"),
    ),
    "needs MiniLM's weights, as test_sentences.py does": (
        "memfeat extract --manifest data_manifests/videm.csv --text title",
        "memfeat extract --manifest mine.csv --text captions.csv --encoder sentence/",
    ),
    "is run by test_videm.py": (
        *("memfeat manifest from videm ", "memfeat cache import /data/VIDEM/"),
        *("memfeat extract pipelines/videm.toml", "memfeat ablation pipelines/videm.toml"),
        *("memfeat submission runs/videm/", "memfeat manifest from movie "),
    ),
    "needs CLIP's, timm's or I3D's weights, or a real dataset": (
        *("memfeat extract pipelines/extract.toml", "memfeat extract --encoder timm/"),
        "memfeat extract --manifest mine.csv --text captions.csv --encoder text/ViT-L",
        *("memfeat train pipelines/train.toml --manifest mine.csv --cache cache/mine/ViT",),
        *("memfeat train pipelines/train.toml --manifest data_manifests/memento10k.csv",),
        *("memfeat finetune pipelines/", "memfeat ablation pipelines/beyond.toml"),
        *("memfeat plan --manifest mine.csv", "memfeat predict resmem", "memfeat predict vitmem"),
    ),
    "serves until Ctrl-C, as test_serving.py lets it": ("memfeat serve runs/mine",),
    "needs a cluster, a bucket or a server, as test_ray.py and others make": (
        *("ray start", "memfeat ablation pipelines/table1.toml"),
        *("memfeat train pipelines/train.toml --manifest s3:",),
        *("memfeat predict hf:", "memfeat predict https:"),
    ),
}
NOTEBOOK = Path("docs/how-to/notebook.ipynb").absolute()
SPLITS = ["train"] * 6 + ["dev"] * 4 + ["test"] * 4


class Block(NamedTuple):
    """A fenced block of a page; `saved_as` is the name that the text after it gives, if any."""

    page: str
    language: str
    text: str
    saved_as: str

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each command, and what the page shows of its output."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "bash":
            for line in lines:
                if found := re.search(r"\b(memfeat|make|ray) .*", line):
                    yield re.split(r" (?:\|\||>) ", found[0])[0], []
        elif self.language == "console":
            starts = [at for at, line in enumerate(lines) if line.startswith("$ ")]
            for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
                yield re.sub(r"\s+# .*", "", lines[start][2:]), lines[start + 1 : stop]


def blocks(page: str) -> Iterator[Block]:
    text = Path(page).read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        after = re.match(r"\s*Saved as `(\S+)`", text[found.end() :])
        yield Block(page, *found.groups(), after[1] if after else "")


def mentions(page: str) -> list[str]:
    """Return a page's inline code."""
    text = re.sub(r"^```.*?^```$", "", Path(page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


BLOCKS = [block for page in PAGES for block in blocks(page)]
MENTIONS = [(page, code) for page in PAGES for code in mentions(page)]
COMMANDS = [command for block in BLOCKS for command, _ in block.commands()]


def reason_not_to_run(command: str) -> str:
    return next((why for why, starts in NOT_RUN.items() if command.startswith(starts)), "")


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Find the command that words after `memfeat` name, and return it with its arguments."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(click.Context(command), name)
        assert found, f"memfeat has no command {name!r}"
        command = found
    return command, words


def options_of(command: click.Command) -> set[str]:
    return {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}


def check_flags(text: str) -> None:
    command, words = command_of(shlex.split(text)[1:])
    flags = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
    assert flags <= {*options_of(command), "--help", "--version"}, text


def all_options(command: click.Command) -> set[str]:
    if not isinstance(command, click.Group):
        return options_of(command)
    context = click.Context(command)
    parts = (command.get_command(context, name) for name in command.list_commands(context))
    return set.union(options_of(command), *(all_options(part) for part in parts if part))


def test_all_pages_are_looked_at():
    assert set(PAGES) >= {str(path) for path in Path("docs").rglob("*.md")}


def test_each_reason_not_to_run_a_command_has_a_command():
    for starts in NOT_RUN.values():
        for start in starts:
            assert any(command.startswith(start) for command in COMMANDS), start


def made_by(target: str) -> list[str]:
    """Return the commands that Make would run for a target and its variables."""
    command = ["make", "--dry-run", "--always-make", *target.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.replace("\\\n", "").splitlines()
    return [re.sub(r".*/memfeat", "memfeat", each) for each in lines if "/memfeat " in each]


def test_every_documented_command_would_be_accepted():
    targets = {command[5:] for command in COMMANDS if command.startswith("make ")}
    made = [command for target in sorted(targets) for command in made_by(target)]
    for command in {*COMMANDS, *made}:
        name, *words = shlex.split(command.partition(" || ")[0])
        if name == "memfeat":
            found, arguments = command_of(words)
            found.make_context(found.name, arguments)  # refuses what the command would refuse


def test_every_command_target_and_flag_that_is_mentioned_is_there():
    known, targets = {*all_options(main), "--help"}, make_targets()
    for page, code in MENTIONS:
        if code.startswith("memfeat "):
            check_flags(code.partition(" > ")[0])
        elif code.startswith("make "):
            assert code.split()[1] in targets, f"{page}: {code}"
        elif re.match("--[a-z]", code):
            assert re.split("[ =]", code)[0] in known, f"{page}: {code}"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):", Path("Makefile").read_text(), re.MULTILINE))


def test_commands_that_code_and_pipelines_name_are_there():
    """In backquotes, or on a line of its own in a comment."""
    targets = make_targets()
    paths = [*Path("memfeat").rglob("*.py"), *Path("pipelines").glob("*.toml")]
    found = [
        (path, command)
        for path in paths
        for pair in re.findall(
            r"`((?:make|memfeat) [^`{]+)|^# +((?:make|memfeat) \S.*)$", path.read_text(), re.M
        )
        for command in pair
        if command
    ]
    assert len(found) > 20
    for path, command in found:
        words = command.split()
        if words[0] == "make":
            assert words[1] in targets, f"{path}: {command}"
        else:
            parent: click.Command = main
            for word in words[1:]:
                if not isinstance(parent, click.Group) or not re.fullmatch("[a-z]+", word):
                    break
                child = parent.get_command(click.Context(parent), word)
                assert child, f"{path}: {command}"
                parent = child


def test_files_and_modules_that_are_named_exist():
    for page, code in MENTIONS:
        if re.fullmatch(r"(memfeat|pipelines|tests)/[\w./-]+", code):
            assert Path(code).exists(), f"{page} names {code}"
        elif re.fullmatch(r"test_\w+\.py", code):
            assert (Path("tests") / code).exists(), f"{page} names {code}"
    for module in re.findall(
        r"^::: (memfeat\S*)", Path("docs/reference/python.md").read_text(), re.M
    ):
        assert importlib.util.find_spec(module), module


def test_the_dockerfile_copies_what_is_there_and_leaves_all_else_out():
    lines = Path("docs/docker/Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert {"pyproject.toml", "memfeat", "pipelines"} <= copied
    assert all(Path(name).exists() for name in copied)
    ignored = Path("docs/docker/Dockerfile.dockerignore").read_text().split()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = {each for line in lines for each in re.findall(r"\.\[([\w,]+)\]", line)}
    assert set(wanted.split(",")) <= set(extras)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}


def test_links_lead_to_pages_and_headings_that_are_there():
    for page in map(Path, PAGES):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" not in link:
                path, _, anchor = link.partition("#")
                target = page.parent / path if path else page
                assert target.exists(), f"{page} links to {link}"
                assert not anchor or anchor in anchors(target), f"{page} links to {link}"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A folder to follow the documentation in: clips, their manifest, and label files."""
    generator = np.random.default_rng(0)
    (tmp_path / "videos").mkdir()
    lines = ["video_id,path,score,split,dataset"]
    for index, split in enumerate(SPLITS):
        frames = generator.integers(0, 256, (3 + index % 3, 6, 8, 3), dtype=np.uint8)
        path = f"videos/clip_{index:04}.mp4"
        write_video(tmp_path / path, frames.repeat(8, axis=1).repeat(8, axis=2), fps=10)
        lines.append(f"clip_{index:04},{path},{0.3 + 0.04 * index:.2f},{split},made up")
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    shutil.copy(tmp_path / "videos/clip_0000.mp4", tmp_path / "clip.mp4")
    shutil.copytree("pipelines", tmp_path / "pipelines")
    (tmp_path / "data_manifests").mkdir()
    labels(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for registry in (AGGREGATORS, ENCODERS, FORMATS):  # which the examples add to
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    return tmp_path


def labels(folder: Path) -> None:
    """Label files as the formats that the pages convert have them; every row is made up."""
    scores = "video_id,annotations_short_term,scores_normalized_short_term\n"
    files = {
        "Memento10k/train_scores.csv": f"{scores}1.mp4,80,0.81\n",
        "Memento10k/dev_scores.csv": f"{scores}2.mp4,80,0.62\n",
        "VideoMem/ground-truth_dev-set.csv": "video,short-term_memorability,"
        "nb_short-term_annotations\nvideo1.webm,0.9,34\nvideo2.webm,0.8,35\nvideo3.webm,0.7,36\n",
        "study/hits.csv": "clip,split,hit_rate,viewers\na,train,0.75,80\nb,dev,0.5,90\n",
    }
    clips = ("Memento10k/1.mp4", "Memento10k/2.mp4", "VideoMem/video1.mp4", "study/a.mp4")
    for name, text in {**files, **dict.fromkeys(clips, "")}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run(command: str, home: Path) -> str:
    """Run a documented command in this process and return what it prints."""
    name, *words = shlex.split(command.replace(" /data/", f" {home}/data/"))
    if name == "memfeat":
        result = CliRunner().invoke(main, words)
    else:
        assert name == "python", f"{command}: run it here, or say in NOT_RUN why not"
        script, *words = words
        result = CliRunner().invoke(as_main(script), words)
    assert result.exit_code == 0, f"{command}\n{result.output}"
    return result.output


def as_main(script: str) -> click.Command:
    """A command that runs a Python file as `python FILE` would."""

    @click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> None:
        sys.argv = [script, *words]
        runpy.run_path(script, run_name="__main__")

    return command


def test_the_documentation_does_what_it_says(home, monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    outputs: dict[str, str] = {}
    for block in BLOCKS:
        if block.saved_as:
            Path(block.saved_as).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, block.page, "exec"), {"__name__": block.page})
        for command, shown in block.commands():
            if not reason_not_to_run(command):
                if command not in outputs:
                    outputs[command] = run(command, home)
                printed = {line.rstrip() for line in outputs[command].splitlines()}
                assert {*map(str.rstrip, shown)} - {"..."} <= printed, f"{block.page}: {command}"
    run_notebook(NOTEBOOK)
    assert "share of viewers" in Path("data_manifests/study.csv").read_text()
    Path("data/study/hits.csv").write_text("clip,split,hit_rate,viewers\na,train,75,80\n")
    refused = CliRunner().invoke(main, shlex.split("manifest from hits data/study -o bad.csv"))
    assert refused.exit_code == 1
    assert "hits.csv, line 2, column hit_rate: " in refused.output
    assert "colour-layout" in run("memfeat cache info cache/mine/colours", home)
    assert '"max"' in Path("runs/max/config.json").read_text()
    for name in memfeat.__all__:
        for example in doctest.DocTestFinder().find(getattr(memfeat, name), name):
            assert doctest.DocTestRunner().run(example).failed == 0, example.name


def run_notebook(path: Path) -> None:
    """Run a notebook's cells one after another, and show each one's last expression as it would."""
    names: dict[str, object] = {"__name__": path.stem}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            *lines, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(lines, []), path.name, "exec"), names)
            if isinstance(last, ast.Expr):
                shown = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
                show = getattr(shown, "_repr_html_", None)
                assert show() if show else repr(shown)
            else:
                exec(compile(ast.Module([last], []), path.name, "exec"), names)


def test_the_tutorial_counts_the_demos_clips():
    shares = "{train} to learn from, {dev} to stop by, {test} to test on".format(**DEMO.clips)
    tutorial = " ".join(Path("docs/tutorial.md").read_text().split())
    assert f"{DEMO.num_clips} clips of two to three seconds: {shares}" in tutorial


def test_the_grid_of_the_how_to_can_be_read():
    grid, *more = [block for block in BLOCKS if block.language == "toml"]
    tables = tomllib.loads("\n".join(block.text for block in (grid, *more)))
    assert grid.saved_as == "grid.toml"
    config = build(AblationConfig, tables["ablation"], source="grid.toml")
    assert config.seeds == (0, 1, 2)
    cells = plan_cells(config, tables["train"])
    assert [cell.name for cell in cells if cell.kind == "baseline"] == ["avg+ridge"]
    assert build(TrainConfig, tables["train"] | {"cache": "c"}, source="grid.toml").max_epochs == 40


@pytest.mark.parametrize("title", ["An aggregator", "An encoder family", "A label format"])
def test_the_worked_examples_are_short(title):
    section = Path("CONTRIBUTING.md").read_text().split(f"### {title}\n")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    assert sum(bool(line.strip()) for line in code.splitlines()) < 40
