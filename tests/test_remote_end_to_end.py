"""Both stages on data that is elsewhere: in memory, and behind a server that speaks S3."""

import json
import os
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from moto.server import ThreadedMotoServer
from processes import start

from memfeat.cache import Cache
from memfeat.cli import main
from memfeat.storage import Url, list_files, read, remove, shards_at, upload, write
from memfeat.video import write_video
from memfeat.workers.processes import worker_context

SPLITS = ["train"] * 5 + ["dev"] * 3 + ["test"] * 3
ENCODER = ["--encoder", "timm/test_vit", "--weights", "random", "--batch-size", "8"]
EXTRACT = [*ENCODER, "--videos-per-shard", "4", "--device", "cpu", "--json"]
TRAIN = ["--max-epochs", "2", "--bootstrap", "50", "--device", "cpu", "--aggregator", "avg"]


def extract_there(arguments: list[str], environment: dict[str, str]) -> None:
    """Run `memfeat extract`: for a process of its own."""
    os.environ.update(environment)
    main(arguments, standalone_mode=False)


def upload_there(path: Path, url: Url, environment: dict[str, str], ready: Event) -> None:
    """Upload a file, and say when that begins: for a process of its own."""
    os.environ.update(environment)
    list_files(url.parent)
    ready.set()
    upload(path, url)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """A folder with a manifest and its clips, and what extraction makes of them in place."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    lines = ["video_id,path,score,split"]
    for index, split in enumerate(SPLITS):
        frames = generator.integers(0, 256, (3 + index % 3, 48, 64, 3), dtype=np.uint8)
        write_video(folder / f"v{index}.mp4", frames, fps=10)
        lines.append(f"v{index},v{index}.mp4,{0.3 + 0.04 * index:.2f},{split}")
    (folder / "m.csv").write_text("\n".join(lines))
    ok("extract", "--manifest", folder / "m.csv", "--cache", folder / "cache", *EXTRACT)
    return folder


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("memfeat.storage.remote.PAUSE_SECONDS", 0.01)


@pytest.fixture
def user(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user/memfeat/remote"


@pytest.fixture
def memory() -> Iterator[Url]:
    yield Url("memory://here")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path) -> Iterator[Url]:
    settings = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()  # they remember an endpoint
    kind().mkdirs("bucket", exist_ok=True)
    yield Url("s3://bucket")
    kind.clear_instance_cache()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def ok(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def put(clips: Path, there: Url) -> None:
    for path in (clips / "m.csv", *clips.glob("*.mp4")):
        upload(path, there / "data" / path.name)


def places(there: Url) -> list[object]:
    return ["--manifest", there / "data/m.csv", "--cache", there / "cache"]


def put_cache(clips: Path, there: Url) -> None:
    for path in (clips / "cache").glob("shard-*"):
        upload(path, there / "cache" / path.name)


def assert_same_shards(clips: Path, there: Url) -> None:
    local = {path.name: path.read_bytes() for path in (clips / "cache").glob("shard-*")}
    assert shards_at(there / "cache") == sorted(local)
    assert {name: read(there / "cache" / name) for name in local} == local
    assert set(list_files(there / "cache")) == set(local)


def test_what_is_in_memory_is_extracted_to_the_same_bytes_and_trained_on(
    clips, user, memory, tmp_path
):
    put(clips, memory)
    ok("extract", *places(memory), *EXTRACT)
    assert_same_shards(clips, memory)
    assert list(user.glob("scratch/*")) == []
    for index in range(len(SPLITS)):
        remove(memory / f"data/v{index}.mp4")  # so that no second look can find them
    again = json.loads(ok("extract", *places(memory), *EXTRACT).stdout)
    assert (again["already_done"], again["ok"]) == (len(SPLITS), 0)

    scores = []
    for where in (places(memory), ["--manifest", clips / "m.csv", "--cache", clips / "cache"]):
        ok("train", *where, *TRAIN, "--run", tmp_path / f"run{len(scores)}")
        scores.append((tmp_path / f"run{len(scores)}/predictions.csv").read_bytes())
    assert scores[0] == scores[1]
    ok("evaluate", tmp_path / "run0")
    assert json.loads(ok("cache", "info", memory / "cache", "--json").stdout)["frames"] == sum(
        3 + index % 3 for index in range(len(SPLITS))
    )
    assert str(memory / "cache") in ok("cache", "verify", memory / "cache").stderr


def test_a_video_that_is_not_there_fails_by_its_own_url_and_no_other(clips, user, memory):
    put(clips, memory)
    remove(memory / "data/v3.mp4")
    write(memory / "data/v7.mp4", b"not a video")
    result = run("extract", *places(memory), *EXTRACT[:-1])
    assert result.exit_code == 3
    assert "2 videos failed (1 missing, 1 unreadable)" in result.stderr
    assert f"cannot read {memory}/data/v3.mp4" in result.stderr
    assert f"'{memory}/data/v7.mp4'" in result.stderr
    assert str(user) not in result.output
    put(clips, memory)
    mended = json.loads(ok("extract", *places(memory), *EXTRACT, "--retry-failed").stdout)
    assert (mended["ok"], mended["failures"]) == (2, {})


def test_a_damaged_remote_shard_is_set_aside_and_made_again(clips, user, memory):
    put(clips, memory)
    put_cache(clips, memory)
    name = shards_at(memory / "cache")[1]
    write(memory / "cache" / name, b"no shard")
    summary = json.loads(ok("extract", *places(memory), *EXTRACT).stdout)
    assert summary["set_aside"] == [f"{memory}/cache/{name}.damaged"]
    assert read(memory / "cache" / f"{name}.damaged") == b"no shard"
    remove(memory / "cache" / f"{name}.damaged")
    assert_same_shards(clips, memory)


def test_verify_looks_at_the_remote_shards_and_not_at_their_copies(clips, user, memory):
    put_cache(clips, memory)
    ok("cache", "info", memory / "cache")
    name = shards_at(memory / "cache")[0]
    (copy,) = user.glob(f"*/{name}")
    copy.write_bytes(bytes(copy.stat().st_size))
    ok("cache", "verify", memory / "cache")
    content = bytearray(read(memory / "cache" / name))
    content[-1] ^= 1
    write(memory / "cache" / name, bytes(content))
    assert run("cache", "verify", memory / "cache").exit_code == 1
    repaired = json.loads(ok("cache", "repair", memory / "cache", "--json").stdout)
    assert list(repaired["set_aside"]) == [f"{memory}/cache/{name}.damaged"]
    status = json.loads(ok("status", memory / "cache", "--json").stdout)
    assert status["set_aside"] == [f"{memory}/cache/{name}.damaged"]
    assert status["videos"]["ok"] in (len(SPLITS) - 4, len(SPLITS) - 3)


def test_memory_is_refused_where_several_devices_have_a_process_each(clips, memory):
    put(clips, memory)
    result = run("extract", *places(memory), *EXTRACT, "--device", "cpu,cpu")
    assert result.exit_code == 2
    assert f"{memory}/cache is in this process's memory" in result.stderr


def test_a_bucket_carries_both_stages_after_a_kill_and_a_prediction(clips, user, bucket, tmp_path):
    put(clips, bucket)
    arguments = ["extract", *map(str, places(bucket)), *EXTRACT]
    extraction = start(extract_there, arguments, dict(os.environ))
    while extraction.is_alive() and not shards_at(bucket / "cache"):
        time.sleep(0.2)
    extraction.kill()
    extraction.join()
    held = Cache.open(bucket / "cache").entries if shards_at(bucket / "cache") else {}
    summary = json.loads(ok("extract", *places(bucket), *EXTRACT).stdout)
    assert summary["already_done"] == len(held)
    assert_same_shards(clips, bucket)
    assert list(user.glob("scratch/*")) == [], f"this is {os.getpid()}, killed {extraction.pid}"
    ok("train", *places(bucket), *TRAIN, "--run", tmp_path / "run")
    assert (tmp_path / "run/metrics.json").exists()

    videos = [bucket / "data/v1.mp4", bucket / "data/none.mp4", clips / "v1.mp4"]
    drawn = "--timeline", tmp_path / "drawn", "--device", "cpu"
    result = run("predict", tmp_path / "run", *videos, *drawn)
    assert result.exit_code == 3
    there, here = (line.split("\t") for line in result.stdout.splitlines())
    assert (there[1], here[1]) == (str(videos[0]), str(videos[2]))
    assert there[0] == here[0]
    assert f"failed: cannot read {videos[1]}" in result.stderr
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"v1.png", "v1-2.png"}
    ok("run", "pack", tmp_path / "run", "-o", tmp_path / "run.zip")
    for path in (*(tmp_path / "run").iterdir(), tmp_path / "run.zip"):
        upload(path, bucket / "run" / path.name)
    for run_there in (bucket / "run", bucket / "run/run.zip"):
        scored = ok("predict", run_there, clips / "v1.mp4", "--device", "cpu")
        assert scored.stdout.split("\t")[0] == here[0]
    assert list(user.glob("scratch/*")) == []


def test_a_killed_upload_leaves_a_whole_object_or_none(bucket, tmp_path):
    content = os.urandom(1 << 20) * 48
    (tmp_path / "file").write_bytes(content)
    for delay in (0.0, 0.05, 0.15):
        url = bucket / "half" / str(delay)
        ready = worker_context().Event()
        uploader = start(upload_there, tmp_path / "file", url, dict(os.environ), ready)
        assert ready.wait(60)
        time.sleep(delay)
        uploader.kill()
        uploader.join()
        if url.name in list_files(bucket / "half"):
            assert read(url) == content


@pytest.mark.parametrize(
    ("cache", "change", "words"),
    [
        ("s3://nowhere/cache", {}, "there is no such file, folder or bucket"),
        (
            "s3://bucket/cache",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "3 tries failed",
        ),
        ("s3://bucket/cache", {"AWS_ACCESS_KEY_ID": ""}, "set the credentials of s3://"),
    ],
)
def test_a_storage_that_cannot_be_had_is_told_of_in_one_line(
    clips, bucket, monkeypatch, cache, change, words
):
    for name, value in {"AWS_MAX_ATTEMPTS": "1", **change}.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    result = run("extract", "--manifest", clips / "m.csv", "--cache", cache, *EXTRACT)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert words in line
