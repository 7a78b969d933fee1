"""Files that are elsewhere, in storages of which each is a real one, if a small one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

import fsspec
import pytest

from memfeat.errors import RemoteError
from memfeat.storage import (
    Mirror,
    Url,
    fetch,
    list_files,
    local_copy,
    read,
    scratch_folder,
    shards_at,
    upload,
    write,
)

STATUS = {"/busy.mp4": 200, "/slow.mp4": 200, "/secret.mp4": 403}
UPLOAD = """
import sys
from pathlib import Path
from memfeat.storage import Url, upload
upload(Path(sys.argv[1]), Url.of(sys.argv[2]))
"""
HOLD_SCRATCH = """
import sys, time
from memfeat.storage import scratch_folder
with scratch_folder() as folder:
    (folder / "copy.mp4").write_bytes(b"video")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _own_cache_and_short_pauses(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr("memfeat.storage.remote.PAUSE_SECONDS", 0.01)


@pytest.fixture
def memory() -> Iterator[Url]:
    yield Url("memory://test")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """A web server that is busy the first two times it is asked for a file, and slow in one."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            asked.append(self.path)
            busy = self.path == "/busy.mp4" and asked.count(self.path) < 3
            status = 503 if busy else STATUS.get(self.path, 404)
            if status != 200:
                self.send_error(status)
                return
            slow = self.path == "/slow.mp4"
            self.send_response(200)
            self.send_header("Content-Length", str(10_000_000 if slow else 5))
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(b"video")
            with suppress(OSError):
                while slow:
                    self.wfile.write(bytes(6000))
                    time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def file(tmp_path: Path, content: bytes, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_a_file_goes_there_and_comes_back_whole(tmp_path, memory, storage):
    folder = memory if storage == "memory" else Url.of(f"file://{tmp_path}/there")
    upload(file(tmp_path, b"content"), folder / "deep/x.h5")
    assert list(list_files(folder / "deep")) == ["x.h5"]
    assert list_files(folder / "deep")["x.h5"].size == 7
    assert read(folder / "deep/x.h5") == b"content"
    fetch(folder / "deep/x.h5", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


def test_a_file_comes_back_whole_to_many_at_once(tmp_path, memory):
    content = os.urandom(1 << 24)
    upload(file(tmp_path, content), memory / "x.mp4")
    copies = [tmp_path / str(number) for number in range(4)]
    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(lambda copy: fetch(memory / "x.mp4", copy), copies))
    assert all(copy.read_bytes() == content for copy in copies)


def test_a_killed_upload_leaves_a_whole_file_or_none(tmp_path):
    content = os.urandom(1 << 20) * 64
    source, there = file(tmp_path, content), tmp_path / "there"
    interrupted = 0
    for index in range(3):
        url = Url.of(f"file://{there}/shard-{index}.h5")
        with subprocess.Popen([sys.executable, "-c", UPLOAD, source, str(url)]) as uploader:
            while uploader.poll() is None and not list(there.glob(f"*shard-{index}.h5*")):
                time.sleep(0.001)
            uploader.kill()
        placed = list(there.glob(f"shard-{index}.h5"))
        interrupted += not placed
        assert all(path.read_bytes() == content for path in placed)
    assert interrupted
    assert shards_at(Url.of(f"file://{there}")) == sorted(p.name for p in there.glob("shard-*"))


def test_a_busy_server_is_asked_again(tmp_path, web):
    fetch(Url.of(f"{web}/busy.mp4"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"video"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("{web}/gone.mp4", "missing"),
        ("{web}/secret.mp4", "permission"),
        ("http://127.0.0.1:9/v.mp4", "unreachable"),
        ("memory://nowhere/v.mp4", "missing"),
        ("nonsense://x/v.mp4", "unusable"),
    ],
)
def test_what_cannot_be_fetched_says_why_in_one_line(tmp_path, web, place, reason):
    url = Url.of(place.format(web=web))
    with pytest.raises(RemoteError) as raised:
        fetch(url, tmp_path / "copy")
    assert raised.value.reason == reason
    assert str(raised.value).startswith(f"cannot read {url}: ")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "copy").exists()


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="the package is here")
def test_a_missing_package_is_named():
    with pytest.raises(RemoteError, match=r"cannot list gs://b/x: .*gcsfs") as raised:
        list_files(Url.of("gs://b/x"))
    assert raised.value.reason == "unusable"


def test_a_web_server_is_never_written_to(tmp_path, web):
    with pytest.raises(RemoteError, match=r"cannot write http://\S+: a web server's files can"):
        write(Url.of(f"{web}/x"), b"")


def test_fetching_stops_when_it_is_told_to(tmp_path, web):
    stop = Event()
    errors: list[BaseException] = []

    def fetching() -> None:
        try:
            fetch(Url.of(f"{web}/slow.mp4"), tmp_path / "copy", stop=stop)
        except Exception as error:
            errors.append(error)

    thread = Thread(target=fetching)
    thread.start()
    while not (tmp_path / "copy").exists():
        time.sleep(0.01)
    stop.set()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert not (tmp_path / "copy").exists()


def test_the_scratch_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path):
    command = [sys.executable, "-c", HOLD_SCRATCH]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as living,
    ):
        stale, kept = (Path(each.stdout.readline().strip()) for each in (killed, living))
        killed.kill()
        killed.wait()
        assert (stale / "copy.mp4").exists()
        with scratch_folder() as own:
            assert own not in (stale, kept)
        assert not stale.exists()
        assert not own.exists()
        assert (kept / "copy.mp4").exists()
        living.kill()


def test_a_local_file_is_its_own_copy_and_a_remote_ones_copy_does_not_stay(tmp_path, memory):
    path = file(tmp_path, b"video", "v.mp4")
    with local_copy(path) as copy:
        assert copy == path
    upload(path, memory / "v.mp4")
    with local_copy(memory / "v.mp4") as copy:
        assert copy.read_bytes() == b"video"
        assert copy.suffix == ".mp4"
    assert not copy.exists()
    assert path.exists()


def test_a_mirror_fetches_what_is_new_or_changed_and_drops_what_is_gone(tmp_path, memory):
    for name in "abc":
        upload(file(tmp_path, name.encode() * 9), memory / f"shard-{name}.h5")
    upload(file(tmp_path, b"no shard"), memory / "notes.txt")
    folder = Mirror(memory).pull()
    assert [path.name for path in sorted(folder.glob("[!.]*"))] == [
        "shard-a.h5",
        "shard-b.h5",
        "shard-c.h5",
    ]
    before = (folder / "shard-a.h5").stat()
    upload(file(tmp_path, b"B" * 9), memory / "shard-b.h5")  # of the same size
    fsspec.filesystem("memory").rm("/test/shard-c.h5")
    os.utime(folder / "shard-c.h5", (0, 0))
    assert Mirror(memory).pull() == folder
    assert (folder / "shard-a.h5").stat().st_ino == before.st_ino
    assert (folder / "shard-b.h5").read_bytes() == b"B" * 9
    assert not (folder / "shard-c.h5").exists()
    Mirror(memory).pull(anew=True)
    assert (folder / "shard-a.h5").stat().st_ino != before.st_ino
    assert (folder / "shard-a.h5").read_bytes() == b"a" * 9


def test_a_pushed_shard_is_moved_into_the_copy_and_not_fetched_again(tmp_path, memory):
    with scratch_folder() as scratch:
        shard = file(scratch, b"shard", "shard-a.h5")
        inode = shard.stat().st_ino
        Mirror(memory).push(shard)
        assert not shard.exists()
    assert read(memory / "shard-a.h5") == b"shard"
    assert list(list_files(memory)) == ["shard-a.h5"]
    assert (Mirror(memory).pull() / "shard-a.h5").stat().st_ino == inode


def test_mirrors_of_folders_of_one_name_are_kept_apart(tmp_path, memory):
    upload(file(tmp_path, b"one"), memory / "one/cache/shard-a.h5")
    upload(file(tmp_path, b"two"), memory / "two/cache/shard-a.h5")
    for name in ("one", "two"):
        folder = Mirror(memory / name / "cache").pull()
        assert (folder / "shard-a.h5").read_bytes() == name.encode()
