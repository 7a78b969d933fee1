"""Runs that lie elsewhere, or in one file: fetched once, checked, and the same as at home."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
import torch
from made_up import config, contents, dataset

from memfeat.errors import MemfeatError, RemoteError, RunError
from memfeat.runs import Run
from memfeat.runs.packing import pack_run
from memfeat.storage import Url, upload, write
from memfeat.training import train


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of two seeds, and the same one packed in a folder and in a file."""
    folder = tmp_path_factory.mktemp("made")
    run = train(*dataset(), config(folder / "run", max_epochs=1, seeds=(0, 1)))
    for name in ("packed", "packed.zip"):
        pack_run(run, folder / name, predictions=True)
    return folder


@pytest.fixture(autouse=True)
def user(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr("memfeat.storage.remote.PAUSE_SECONDS", 0.01)
    return tmp_path / "user/memfeat/remote"


@pytest.fixture
def memory(made) -> Iterator[Url]:
    there = Url("memory://there")
    put(made / "packed", there / "run")
    upload(made / "packed.zip", there / "run.zip")
    yield there
    fsspec.filesystem("memory").store.clear()


def put(folder: Path, there: Url) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            upload(path, there / path.relative_to(folder))


@contextmanager
def web(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server of a folder's files, and what it was asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def assert_same(run: Run, made: Path) -> None:
    own = Run.load(made / "run")
    assert run.metrics == own.metrics
    assert run.predictions().prediction.tolist() == own.predictions().prediction.tolist()
    for one, other in zip(run.regressors(), own.regressors(), strict=True):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("place", ["memory://there/run", "memory://there/run.zip", "{}/packed.zip"])
def test_a_run_elsewhere_or_packed_is_the_one_at_home(made, memory, user, place):
    run = Run.load(place.format(made))
    assert_same(run, made)
    assert run.name == place.format(made)
    assert contents(run.folder) == contents(made / "packed")
    assert list(user.glob("scratch/*")) == []


def test_a_run_with_folds_comes_with_all_its_models(memory, tmp_path):
    own = config(tmp_path / "run", max_epochs=1, seeds=(0, 1), folds=3, bootstrap=0)
    run = train(*dataset(), own)
    put(run.folder, memory / "folds")
    pack_run(run, tmp_path / "folds.zip", predictions=True)
    for place in ("memory://there/folds", tmp_path / "folds.zip"):
        found = Run.load(place)
        assert len(found.parts) == len(found.regressors()) == 6
        assert found.predictions().prediction.tolist() == run.predictions().prediction.tolist()


def test_a_packed_run_is_fetched_from_a_web_server_once_and_again_when_it_changes(
    made, user, tmp_path
):
    (tmp_path / "www").mkdir()
    shutil.copy(made / "packed.zip", tmp_path / "www/run.zip")
    with web(tmp_path / "www") as (address, asked):
        assert_same(Run.load(f"{address}/run.zip"), made)
        fetched = asked.count("/run.zip")
        Run.load(f"{address}/run.zip")
        assert asked.count("/run.zip") == fetched == 1
        other = train(*dataset(seed=1), config(tmp_path / "other", max_epochs=1))
        (tmp_path / "www/run.zip").unlink()
        pack_run(other, tmp_path / "www/run.zip")
        assert Run.load(f"{address}/run.zip").metrics == other.metrics
    assert Run.load(f"{address}/run.zip").metrics == other.metrics  # though nothing answers
    assert len(list(user.glob("runs/*"))) == 2
    with pytest.raises(RemoteError, match=r"cannot read .*none\.zip: 3 tries failed"):
        Run.load(f"{address}/none.zip")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as reading a model takes: `user/name`, from `folder`."""

    def __init__(self, asked: list[str], folder: Path, *arguments: object) -> None:
        self.asked, self.folder = asked, folder
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        tree, files = "/api/models/user/name/tree/main", "/user/name/resolve/main"
        if path.startswith(tree):
            entries = (self.folder / path.removeprefix(tree).strip("/")).iterdir()
            self.answer(json.dumps([self.described(entry) for entry in entries]).encode())
        elif path.startswith(files):
            self.answer((self.folder / path.removeprefix(files).strip("/")).read_bytes())
        elif path.startswith("/api/models/user/name"):
            self.answer(json.dumps({"id": "user/name", "sha": "a" * 40}).encode())
        else:
            self.send_error(404)

    def described(self, entry: Path) -> dict[str, object]:
        kind = "directory" if entry.is_dir() else "file"
        mark = hashlib.sha1(b"" if entry.is_dir() else entry.read_bytes()).hexdigest()
        where = entry.relative_to(self.folder).as_posix()
        return {"type": kind, "path": where, "size": entry.stat().st_size, "oid": mark}

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"mark"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def test_the_hubs_own_client_gets_a_run_once_and_again_when_it_changes(made, user, tmp_path):
    folder = shutil.copytree(made / "packed", tmp_path / "packed")
    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, asked, folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        endpoint = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        found = []
        for changed in (False, False, True):
            if changed:
                shutil.rmtree(folder)
                own = config(tmp_path / "other", max_epochs=1, aggregator="avg", head="linear")
                pack_run(train(*dataset(seed=1), own), folder)
            done = subprocess.run(
                [sys.executable, "-m", "memfeat", "run", "show", "hf://user/name"],
                env={**os.environ, **endpoint, "HF_HOME": str(tmp_path / "hf")},
                capture_output=True,
                text=True,
                check=True,
            )
            files = [path for path in asked if "/resolve/" in path]
            found.append((done.stdout, len(files)))
            asked.clear()
        server.shutdown()
    assert [number > 0 for _, number in found] == [True, False, True]
    assert found[0][0] == found[1][0] == (made / "packed/README.md").read_text()
    assert found[2][0] == (folder / "README.md").read_text()
    assert len(list(user.glob("runs/name-*"))) == 2


def test_several_that_want_a_run_at_once_get_it_whole(memory, user):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: Run.load("memory://there/run"), range(8)))
    assert {run.folder for run in runs} == {*user.glob("runs/*")}
    assert len({*user.glob("runs/*")}) == 1


def test_a_pack_has_the_same_bytes_whenever_it_is_made(made, tmp_path):
    again = pack_run(Run.load(made / "packed.zip"), tmp_path / "again.zip", predictions=True)
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(made / "packed.zip") as other:
        assert one.namelist() == other.namelist()
        changed = {name for name in one.namelist() if one.read(name) != other.read(name)}
    assert changed == {"config.json", "seed-0/config.json", "seed-1/config.json", "SHA256SUMS"}
    pack_run(Run.load(made / "packed.zip"), tmp_path / "same/again.zip", predictions=True)
    assert (tmp_path / "same/again.zip").read_bytes() == again.read_bytes()


def test_what_was_changed_after_it_was_packed_is_refused(made, memory, user):
    write(memory / "run/predictions.csv", b"video_id,split,score,prediction\nv0,dev,0.5,0.5\n")
    with pytest.raises(RunError, match=r"there/run is not as it was packed: predictions\.csv"):
        Run.load("memory://there/run")
    assert list(user.glob("runs/*")) == []


def archive(path: Path, *names: str, size: int = 1) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, bytes(size))
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_holds_no_run_is_refused_and_writes_nothing_elsewhere(
    made, user, tmp_path, monkeypatch
):
    cut = tmp_path / "cut.zip"
    cut.write_bytes((made / "packed.zip").read_bytes()[:-100])
    monkeypatch.setattr("memfeat.runs.fetching.MOST_BYTES", 1 << 20)
    refused = {
        cut: "is damaged",
        archive(tmp_path / "other.zip", "a.txt"): "holds no run: there is no config.json",
        archive(tmp_path / "twice.zip", "config.json", *["metrics.json"] * 2): "holds a name twice",
        archive(tmp_path / "bomb.zip", "metrics.json", size=2 << 20): "2097152 bytes; a run has",
    }
    for path, words in refused.items():
        with pytest.raises(RunError, match=rf"{words}") as caught:
            Run.load(path)
        assert "\n" not in str(caught.value)
    shutil.copy(made / "packed.zip", tmp_path / "up.zip")
    with zipfile.ZipFile(tmp_path / "up.zip", "a") as file:
        for name in ("../x", "seed-0/../../../../x", f"{tmp_path}/x", "x"):
            file.writestr(name, b"x")
    assert_same(Run.load(tmp_path / "up.zip"), made)
    assert list(tmp_path.rglob("x")) == []
    assert list(user.glob("scratch/*")) == []


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("memory://there", "no complete run at memory://there"),
        ("memory://there/none.zip", "there is no such file"),
        ("https://example.org/run", "name a packed file, as `memfeat run pack RUN -o mine.zip`"),
        ("none.zip", "there is no run folder none.zip"),
    ],
)
def test_a_place_without_a_run_is_told_of(memory, place, words):
    with pytest.raises(MemfeatError, match=words):
        Run.load(place)
