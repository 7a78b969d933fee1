"""Hundreds of uploads through one server, and thousands at once."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from mutating import mutants
from processes import descendants, memory
from test_serving import ended, send, served
from trials import trials

pytestmark = [pytest.mark.soak, pytest.mark.timeout(24 * 3600)]
MOST = 1500 << 20  # bytes of the server and its decoders together


@contextmanager
def command(run: Path, folder: Path) -> Iterator[tuple[httpx.Client, int]]:
    """A client of `memfeat serve` in a process of its own, whose id comes with it.

    Uploads lie below `folder`.
    """
    arguments = [sys.executable, "-m", "memfeat", "serve", run, "--port", "0", "--device", "cpu"]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder)}
    with (
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as server,
        httpx.Client(base_url=server.stdout.readline().strip(), timeout=60) as client,
    ):
        try:
            yield client, server.pid
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 0


def test_the_server_stays_small_and_every_upload_is_answered(studied, tmp_path, tally):
    row = tally.row("uploads, one after another")
    whole = (studied / "v3.mp4").read_bytes()
    made, count = mutants(whole, trials(row.kind)), trials(row.kind)
    states, largest = Counter(), 0
    with command(studied / "run", tmp_path) as (client, server):
        right = ended(client, send(client, whole).json()["id"])["prediction"]["score"]
        for number in range(count):
            content = whole if number % 4 == 0 else next(made)
            found = ended(client, send(client, content).json()["id"])
            states[found["state"]] += 1
            is_right = number % 4 or found["prediction"]["score"] == right
            used = memory([server, *descendants(server)])
            largest = max(largest, used)
            left = sum(path.is_file() for path in tmp_path.rglob("scratch/**/*"))
            row.count(lost=not is_right, unreadable=left, uncaught=used > MOST)
    told = ", ".join(f"{state} {number}" for state, number in states.most_common())
    row.note = f"{told}; {largest >> 20} MB with decoders"


def test_of_thousands_at_once_each_gets_a_clear_answer(studied, tmp_path, tally):
    row = tally.row("uploads, all at once")
    whole = (studied / "v3.mp4").read_bytes()
    with served(studied / "run", tmp_path / "up", most_waiting=20) as client:

        def post(number: int) -> int:
            return send(client, whole, ("a.mp4", "<b>.mkv", "../x.webm")[number % 3]).status_code

        with ThreadPoolExecutor(64) as threads:
            answers = list(threads.map(post, range(trials(row.kind))))
        for answer in answers:
            row.count(uncaught=answer not in (202, 429))
        videos = [each["id"] for each in client.get("/api/videos").json()]
        scores = {ended(client, video)["prediction"]["score"] for video in videos}
        row.count(lost=len(scores) != 1, unreadable=len(list((tmp_path / "up").iterdir())))
    row.note = ", ".join(f"{code}: {number}" for code, number in Counter(answers).items())
