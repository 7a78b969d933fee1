"""The server of `memfeat serve`, asked through its real application."""

import os
import re
import signal
import socket
import sys
import threading
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from commands import run, told
from fastapi.testclient import TestClient
from processes import descendants, eventually, exists, start, struck

import memfeat
from memfeat.cli import main
from memfeat.config import ServeConfig
from memfeat.errors import ExitCode
from memfeat.serving import LOOPBACK, Guard, ScoringQueue, create_app
from memfeat.video import write_video

HOST = "http://127.0.0.1:8765"
HAS_IPV6 = False
with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
    HAS_IPV6 = True


@contextmanager
def served(run: Path, folder: Path, *, secret: str = "", hosts=LOOPBACK, **limits):
    """A client of a server of its own, whose uploads lie in `folder`."""
    config = ServeConfig(device="cpu", **limits)
    folder.mkdir(exist_ok=True)
    scorers = {"mine": lambda: memfeat.load(run, device="cpu")}
    with ScoringQueue(folder, scorers, config) as queue:
        app = Guard(
            create_app(
                queue, config, lambda name: [f"{name}: random weights", "well made"], secret
            ),
            hosts,
        )
        client = TestClient(app, base_url=HOST)
        client.queue = queue
        yield client


def send(client: TestClient, content: bytes, name: str = "clip.mp4", **query):
    return client.post("/api/videos", params={"name": name, **query}, content=content)


def ended(client: TestClient, video: str) -> dict:
    """The video, once nothing more is done for it."""
    path = f"/api/videos/{video}"
    assert eventually(
        lambda: client.get(path).json()["state"] in ("done", "failed", "cancelled"), 60
    )
    return client.get(path).json()


@pytest.fixture(scope="module")
def client(studied, tmp_path_factory):
    uploads = tmp_path_factory.mktemp("uploads")
    with served(studied / "run", uploads, most_waiting=64) as client:
        client.folder = uploads
        yield client


def test_a_clip_gets_what_predict_prints_and_its_upload_is_deleted(client, studied):
    answer = send(client, (studied / "v3.mp4").read_bytes(), "<b>my clip</b>.mp4")
    assert answer.status_code == 202
    video = ended(client, answer.json()["id"])
    (printed,) = told("predict", studied / "run", studied / "v3.mp4", "--device", "cpu")
    own = video["prediction"]
    differing = {"path", "video_id"}
    assert {k: v for k, v in own.items() if k not in differing} == {
        k: printed[k] for k in own if k not in differing
    }
    assert (own["path"], own["video_id"], video["name"]) == (None, *["<b>my clip</b>.mp4"] * 2)
    assert video["decoded_seconds"] == own["pts_seconds"][-1]
    picture = client.get(f"/api/videos/{video['id']}/timeline.png")
    assert picture.content.startswith(b"\x89PNG")
    axis = video["timeline"]
    assert 0 < axis["left"] < axis["right"] < 1
    assert axis["from_seconds"] == own["pts_seconds"][0] < axis["to_seconds"]
    assert list(client.folder.iterdir()) == []


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.extras)])
def test_many_at_once_are_scored_in_turn_like_predict(client, studied, count):
    names = [f"v{index % 8}.mp4" for index in range(count)]
    answers: dict[int, str] = {}

    def post(index: int) -> None:
        answers[index] = send(client, (studied / names[index]).read_bytes()).json()["id"]

    threads = [threading.Thread(target=post, args=[index]) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = {
        Path(each["path"]).name: each["score"]
        for each in told("predict", studied / "run", *(studied / f"v{i}.mp4" for i in range(8)))
    }
    scores = [ended(client, answers[index])["prediction"]["score"] for index in range(count)]
    assert scores == [alone[name] for name in names]


def test_scores_can_be_compared_listed_and_forgotten(client, studied):
    ids = [
        ended(client, send(client, (studied / name).read_bytes(), name).json()["id"])["id"]
        for name in ("v0.mp4", "v5.mp4")
    ]
    found = client.post("/api/comparison", json={"videos": ids}).json()
    printed = told("compare", studied / "run", studied / "v0.mp4", studied / "v5.mp4")
    assert [each["video_id"] for each in found["ranking"]] == [
        f"{each['video_id']}.mp4" for each in printed["ranking"]
    ]
    assert found["differences"][0]["interval"] == printed["differences"][0]["interval"]
    assert any("most by the frames at" in line for line in found["lines"])
    table = client.get("/api/scores.csv").text.splitlines()
    assert table[0].startswith("video,score,score_std,low,high")
    assert any(line.startswith("v5.mp4,0.") for line in table)
    assert "v0.mp4" in [each["video_id"] for each in client.get("/api/scores.json").json()]
    assert client.delete(f"/api/videos/{ids[0]}").status_code == 200
    assert client.get(f"/api/videos/{ids[0]}").status_code == 404
    again = client.post("/api/comparison", json={"videos": ids})
    assert (again.status_code, again.json()["detail"][:13]) == (404, "no such video")


@pytest.mark.parametrize(
    ("name", "content", "status", "words"),
    [
        ("clip.exe", b"MZ", 415, "ends in none of .3gp"),
        ("clip", b"", 415, "ends in none of"),
        ("clip.mp4", b"", 400, "the video is empty"),
        ("clip.mp4", b"x" * 1_000_001, 413, "more than 1 MB"),
        ("x" * 300 + ".mp4", b"x", 422, "at most 255"),
        ("", b"x", 422, "at least 1"),
    ],
)
def test_what_is_not_taken_is_refused_before_it_is_decoded(
    studied, tmp_path, name, content, status, words
):
    with served(studied / "run", tmp_path / "up", most_megabytes=1) as client:
        answer = send(client, content, name)
        assert answer.status_code == status
        assert words in answer.text
        chunked = client.post(f"/api/videos?name={name}", content=iter([content]))
        assert chunked.status_code == status
        assert client.get("/api/videos").json() == []
        assert list((tmp_path / "up").iterdir()) == []


def test_a_package_of_the_extra_that_is_missing_is_told(studied, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi_offline", None)
    done = run("serve", studied / "run")
    assert done.exit_code == ExitCode.USAGE
    assert "memfeat serve needs more packages: pip install 'memfeat[serve]'" in done.stderr


def serve(arguments: list[str], environment: dict[str, str], said: Path) -> None:
    """Run the command, which writes to a file what it prints: for a process of its own."""
    os.environ.update(environment)
    with said.open("w") as file, redirect_stdout(file):
        main(arguments)


@pytest.mark.parametrize(
    ("blow", "host", "shown"),
    [
        (signal.SIGINT, "127.0.0.1", "127.0.0.1"),
        pytest.param(
            *(signal.SIGTERM, "::1", "[::1]"),
            marks=pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6"),
        ),
    ],
)
def test_a_signal_ends_the_command_in_the_midst_of_work_and_leaves_nothing(
    studied, tmp_path, blow, host, shown
):
    write_video(tmp_path / "long.mp4", np.zeros((2000, 48, 64, 3), np.uint8), fps=25)
    said, scratch = tmp_path / "said", tmp_path / "user/memfeat/remote/scratch"
    arguments = ["serve", str(studied / "run"), "--host", host, "--port", "0", "--device", "cpu"]
    before = set(descendants())
    process = start(serve, arguments, {"XDG_CACHE_HOME": str(tmp_path / "user")}, said)
    assert eventually(lambda: said.exists() and said.read_text().endswith("\n"), 60)
    address = said.read_text().strip()
    assert address.startswith(f"http://{shown}:")
    with httpx.Client(base_url=address, timeout=60) as client:
        video = send(client, (tmp_path / "long.mp4").read_bytes()).json()["id"]
        path = f"/api/videos/{video}"
        assert eventually(lambda: client.get(path).json()["decoded_seconds"] > 0, 60)
        own = set(descendants()) - before
        assert len(own) > 1  # itself, and a decoder
        os.kill(process.pid, blow)
    process.join(60)
    assert process.exitcode == {signal.SIGINT: 0, signal.SIGTERM: ExitCode.TERMINATED}[blow]
    assert eventually(lambda: not any(map(exists, own)))
    assert list(scratch.iterdir()) == []


HOSTILE = {
    "text.mp4": b"not a video at all" * 100,
    "playlist.mp4": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat.avi": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "../../up.mp4": b"\0" * 5000,
    "a/b\\c.mkv": b"RIFF" + bytes(range(256)) * 8,
    "<img src=x onerror=alert(1)>.webm": b"\x1aE\xdf\xa3" + b"\xff" * 400,
    "\u202egpj.mp4": b"\0\0\0\x18ftypmp42" + bytes(300),
    "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
}


def test_hostile_uploads_fail_by_themselves_and_leave_nothing(client, studied):
    whole = (studied / "v1.mp4").read_bytes()
    damaged = {f"cut{n}.mp4": whole[: len(whole) * n // 16] for n in range(1, 16)}
    places = [len(whole) * n // 17 for n in range(17)]
    damaged |= {f"flip{n}.mp4": whole[:n] + bytes(64) + whole[n + 64 :] for n in places}
    assert len({**HOSTILE, **damaged}) == 40
    videos = {
        name: send(client, content, name).json()["id"]
        for name, content in {**HOSTILE, **damaged}.items()
    }
    good = send(client, whole, "good.mp4").json()["id"]
    for name, video in videos.items():
        found = ended(client, video)
        assert found["name"] == name
        assert found["state"] in ("done", "failed")
        assert str(client.folder) not in str(found)
        assert "/etc/passwd" not in found["message"]
        if found["state"] == "failed":
            assert found["message"], name
    assert all(ended(client, videos[name])["state"] == "failed" for name in HOSTILE)
    assert ended(client, good)["state"] == "done"
    assert list(client.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Host": "evil.example:8765"}, "does not answer to that name"),
        ({"Host": "127.0.0.1.evil.example"}, "does not answer to that name"),
        ({"Origin": "http://evil.example"}, "other web pages are refused"),
        ({"Origin": "http://127.0.0.1:9999"}, "other web pages are refused"),
        ({"Origin": "null"}, "other web pages are refused"),
        ({"Origin": "http://["}, "other web pages are refused"),
    ],
)
def test_other_web_pages_are_refused(client, headers, words):
    for answer in (
        client.get("/", headers=headers),
        client.get("/api/videos", headers=headers),
        client.post("/api/videos?name=a.mp4", content=b"x", headers=headers),
    ):
        assert answer.status_code == 403
        assert words in answer.text


def test_the_page_asks_nobody_else_and_may_not(client):
    own = {"Origin": HOST}
    files = ("page.js", "page.css", "colours.css", "icon.svg", "docs", "openapi.json")
    for path in ("/", *(f"/{name}" for name in files)):
        answer = client.get(path, headers=own)
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        links = set(re.findall(r"(?:src|href|url)[=(:] ?[\"']?(https?:[^\"' )]+)", answer.text))
        assert links == set(), path
    assert "unsafe-inline" not in client.get("/").headers["Content-Security-Policy"]
    assert client.get("/api/server").json()["scorers"] == [
        {
            "name": "mine",
            "notes": ["mine: random weights", "well made"],
            "warnings": ["mine: random weights"],
        }
    ]


def test_beyond_this_machine_nothing_answers_without_the_secret(studied, tmp_path):
    with served(studied / "run", tmp_path / "up", secret="s3cret", hosts=None) as client:
        assert client.get("/s3cret/").status_code == 200
        assert client.get("/s3cret/docs").status_code == 200
        assert client.get("/s3cret/api/videos").json() == []
        for path in ("/", "/docs", "/openapi.json", "/api/videos", "/page.js", "/guess/"):
            assert client.get(path).status_code == 404, path
        answer = client.get("/s3cret/", headers={"Host": "lab:1", "Origin": "http://other:1"})
        assert answer.status_code == 403


class Patient:
    """A predictor that waits at each frame until it is let go."""

    def __init__(self, predictor: memfeat.Predictor, go: threading.Event) -> None:
        self._predictor, self._go = predictor, go

    def __getattr__(self, name):
        return getattr(self._predictor, name)

    def predict_each(self, videos, *, on_frames, **how):
        def watch(number, seconds):
            while not self._go.wait(0.02):
                on_frames(number, seconds)
            on_frames(number, seconds)

        return self._predictor.predict_each(videos, on_frames=watch, **how)


@contextmanager
def patient(studied: Path, folder: Path, monkeypatch, **limits):
    """A client of a patient server, what lets it go on, and a video."""
    go, real = threading.Event(), memfeat.load
    with monkeypatch.context() as patched:
        patched.setattr(memfeat, "load", lambda *a, **k: Patient(real(*a, **k), go))
        with served(studied / "run", folder, **limits) as client:
            yield client, go, (studied / "v2.mp4").read_bytes()


def test_a_full_queue_says_so_and_videos_can_be_cancelled_at_any_time(
    studied, tmp_path, monkeypatch
):
    limits = {"most_waiting": 3, "most_kept": 4}
    with patient(studied, tmp_path / "up", monkeypatch, **limits) as (client, go, content):
        first, second, third = (send(client, content).json()["id"] for _ in range(3))
        full = send(client, content)
        assert (full.status_code, full.headers["Retry-After"]) == (429, "10")
        assert "3 videos wait already" in full.json()["detail"]
        assert eventually(lambda: client.get(f"/api/videos/{first}").json()["state"] == "scoring")
        assert client.get(f"/api/videos/{first}/timeline.png").status_code == 409
        assert client.delete(f"/api/videos/{second}").json()["state"] == "cancelled"
        assert client.delete(f"/api/videos/{first}").json()["state"] == "cancelled"
        assert eventually(lambda: client.get(f"/api/videos/{third}").json()["state"] == "scoring")
        assert len(list((tmp_path / "up").iterdir())) == 1
        go.set()
        assert ended(client, third)["state"] == "done"
        assert ended(client, first)["state"] == "cancelled"
        for _ in range(2):
            last = send(client, content).json()["id"]
            assert ended(client, last)["state"] == "done"
        kept = [each["id"] for each in client.get("/api/videos").json()]
        assert (len(kept), kept[-1], first in kept) == (4, last, False)
        assert list((tmp_path / "up").iterdir()) == []


def test_a_video_that_is_cancelled_with_its_last_byte_is_deleted(studied, tmp_path):
    queue = ScoringQueue(tmp_path, {"mine": lambda: memfeat.load(studied / "run")}, ServeConfig())
    with queue.upload("a.mp4", "mine") as job:
        job.path.write_bytes(b"all of it")
        queue.remove(job.id)
    assert queue.job(job.id).state == "cancelled"
    assert list(tmp_path.iterdir()) == []


def test_nobody_sees_a_prediction_before_its_video_is_done(studied, tmp_path):
    seen = set()

    class Watched(threading.Condition):
        def __exit__(self, *error):
            for each in queue._jobs.values():
                seen.add((each.state, each.prediction is not None, each.timeline != b""))
            super().__exit__(*error)

    scorers = {"mine": lambda: memfeat.load(studied / "run", device="cpu")}
    queue = ScoringQueue(tmp_path, scorers, ServeConfig())
    queue._changed = Watched()
    with queue:
        with queue.upload("a.mp4", "mine") as job:
            job.path.write_bytes((studied / "v2.mp4").read_bytes())
        assert eventually(lambda: queue.job(job.id).has_ended)
    assert {each for each in seen if each[1] or each[2]} == {("done", True, True)}


@pytest.mark.extras
def test_a_decoder_that_is_killed_costs_nothing(studied, tmp_path, monkeypatch):
    write_video(tmp_path / "long.mp4", np.zeros((160, 48, 64, 3), np.uint8), fps=25)
    right = memfeat.load(studied / "run", device="cpu").predict(tmp_path / "long.mp4").score
    with patient(studied, tmp_path / "up", monkeypatch) as (client, go, _):
        video = send(client, (tmp_path / "long.mp4").read_bytes()).json()["id"]
        with struck(tmp_path / "up" / video, 1, signal.SIGKILL) as killed:
            assert eventually(lambda: killed)
        go.set()
        assert ended(client, video)["prediction"]["score"] == right
    assert list((tmp_path / "up").iterdir()) == []


def test_the_end_of_the_server_ends_the_work(studied, tmp_path, monkeypatch):
    with patient(studied, tmp_path / "up", monkeypatch) as (client, _, content):
        video = send(client, content).json()["id"]
        assert eventually(lambda: client.get(f"/api/videos/{video}").json()["state"] == "scoring")
    assert list((tmp_path / "up").iterdir()) == []
    assert client.get(f"/api/videos/{video}").json()["state"] == "cancelled"


def test_what_takes_too_long_is_cancelled(studied, tmp_path, monkeypatch):
    limits = {"most_minutes": 0.02}
    with patient(studied, tmp_path / "up", monkeypatch, **limits) as (client, _, content):
        video = ended(client, send(client, content).json()["id"])
    assert video["state"] == "cancelled"
    assert "it took more than 0.02 minutes" in video["message"]
