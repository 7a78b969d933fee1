"""On a real Ray cluster: the pool of actors, a grid, extraction, and which cluster is used."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from extracting import FRAMES, config, files, manifest
from processes import descendants, eventually, exists
from test_ablation import SMALL, grid, home, plan_cells, recipe, run_ablation  # noqa: F401
from test_workers import (
    DONE,
    count,
    fail,
    finish,
    say,
    sleep,
    who,
    work,
)

from memfeat.cache import verify
from memfeat.errors import ConfigError
from memfeat.extraction import extract
from memfeat.workers import (
    Cluster,
    JobEnded,
    Message,
    RayPool,
    Resources,
    ray_cluster,
    worker_pool,
)
from memfeat.workers.ray_cluster import (
    LEAN,
    LOOPBACK,
    load_ray,
    own_token,
    require_listener,
)

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def cluster():
    """The cluster of all tests here that need none of their own."""
    ray = load_ray()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (own_token() | LEAN).items():
            patch.setenv(name, value)
        ray.init(
            "local",
            num_cpus=2,
            num_gpus=3,  # names that Ray hands out; nothing here computes on them
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=100_000_000,
        )
        yield ray
        ray.shutdown()


def run(jobs, slots, engine="ray") -> list:
    queue = list(jobs)
    with worker_pool(engine, work, slots) as pool:
        return list(pool.run(lambda: queue.pop(0) if queue else None))


def look(send, slot, *names):
    """Say what the process sees of its surroundings."""
    send(({name: os.environ.get(name) for name in names}, str(Path.cwd())))


def threads(send, slot):
    import torch  # noqa: PLC0415

    send(torch.get_num_threads())


def count_aloud(send, slot, path):
    """Say numbers for ever, and note the latest in a file before it is said."""
    for number in range(10**9):
        Path(path).write_text(str(number))
        send(number)


def test_actors_do_jobs_as_processes_do_and_a_death_ends_its_own_job_alone():
    jobs = [((say, f"{i}a"), (say, f"{i}b")) for i in range(5)]
    jobs[1:1] = [((say, "last words"), (fail,))]
    told = {}
    for engine in ("local", "ray"):
        events = run(jobs, ["one", "two"], engine)
        told[engine] = [[event for each, event in events if each is job] for job in jobs]
    assert told["ray"] == told["local"]
    assert told["ray"][1] == [Message("last words"), JobEnded(1)]


def test_messages_come_in_order_while_the_job_runs_until_its_actor_is_killed():
    other = ((say, "well"),)
    with RayPool(work, ["a", "b"], Resources()) as pool:
        pool.submit(((who,), (count,)))
        (_, message), *events = pool.events()
        pool.submit(other)
        while pool.busy:
            events += pool.events()
            if len(events) >= 100 and (other, DONE) in events and exists(message.content[0]):
                os.kill(message.content[0], signal.SIGKILL)
    assert [event for job, event in events if job is other] == [Message("well"), DONE]
    *numbers, end = (event for job, event in events if job is not other)
    assert end == JobEnded(-signal.SIGKILL)
    assert numbers == [Message(number) for number in range(len(numbers))]


def test_an_actor_that_died_idle_costs_no_job_and_is_replaced_by_one_with_its_slot():
    with RayPool(work, ["mine"], Resources()) as pool:
        pool.submit(((who,),))
        (_, first), *_ = pool.events()
        finish(pool)
        os.kill(first.content[0], signal.SIGKILL)
        assert eventually(lambda: not exists(first.content[0]))
        pool.submit(((who,),))
        second, end = (event for _, event in finish(pool))
    assert first.content[1] == second.content[1] == "mine"
    assert first.content[0] != second.content[0]
    assert end == DONE


@pytest.mark.soak
def test_what_nobody_hears_does_not_pile_up(tmp_path):
    path = tmp_path / "latest"
    with RayPool(work, [None], Resources()) as pool:
        pool.submit(((count_aloud, str(path)),))
        pool.events()
        assert eventually(path.exists)
        time.sleep(1)
        latest = int(path.read_text())
        time.sleep(0.5)
        assert int(path.read_text()) == latest < 200


@pytest.mark.soak
def test_jobs_do_not_wait_for_actors_that_have_no_room():
    with RayPool(work, range(3), Resources(cpus=2)) as pool:
        for number in range(3):
            pool.submit(((say, number),))
        assert (pool.idle, pool.busy) == (0, 3)
        with pytest.raises(ValueError, match="all 3 workers are busy; read `events` until"):
            pool.submit(((sleep,),))
        events = [event for _, event in finish(pool)]
        assert pool.events() == []
    assert sorted(event.content for event in events if event != DONE) == [0, 1, 2]


def test_leaving_the_context_kills_an_actor_at_work_and_not_the_callers_ray(cluster):
    with pytest.raises(ZeroDivisionError), RayPool(work, "a", Resources()) as pool:
        pool.submit(((who,), (sleep,)))
        (_, message), *_ = pool.events()
        raise ZeroDivisionError
    assert eventually(lambda: not exists(message.content[0]))
    assert cluster.is_initialized()


@pytest.mark.soak
def test_an_actor_has_the_threads_folder_and_gpus_that_it_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MEMFEAT_NATIVE", "0")
    monkeypatch.chdir(tmp_path)
    names = ("OMP_NUM_THREADS", "MEMFEAT_NATIVE", "CUDA_VISIBLE_DEVICES")
    with RayPool(work, [None], Resources(cpus=0.5, gpus=0.5, threads=2)) as pool:
        pool.submit(((look, *names), (threads,)))
        events = [event for _, event in finish(pool)]
    seen, folder = events[0].content
    assert seen.pop("CUDA_VISIBLE_DEVICES") in {"0", "1", "2"}
    assert seen == {"OMP_NUM_THREADS": "2", "MEMFEAT_NATIVE": "0"}
    assert (folder, events[1]) == (str(tmp_path), Message(2))
    job = ((look, *names[:2]),)
    local, far = (run([job], [None], engine)[0][1].content for engine in ("local", "ray"))
    assert far == local


@pytest.mark.parametrize(
    ("machines", "workers", "gpu", "expected"),
    [
        ([(8, 2), (8, 4)], 0, True, (6, 1, 1)),
        ([(8, 2), (8, 4)], 0, False, (16, 1, 0)),
        ([(4, 0)], 0, True, (4, 1, 0)),
        ([(4, 0)], 8, True, (8, 0.5, 0)),
        ([(4, 2)], 3, True, (3, 1, 0.5)),
        ([(2, 1)], 3, True, (3, 0.6666, 0.3333)),
    ],
)
def test_a_cluster_is_shared_out_so_that_all_workers_find_room(machines, workers, gpu, expected):
    made = Cluster(tuple({"CPU": float(c)} | ({"GPU": float(g)} if g else {}) for c, g in machines))
    count, share = made.divide(workers, gpu=gpu)
    assert (count, share.cpus, share.gpus) == expected
    made.require(share)


@pytest.mark.parametrize(
    ("machines", "workers", "gpu", "each"),
    [
        ([(16, 0), (4, 0)], 2, False, 4),
        ([(16, 0), (4, 0)], 4, False, 2),
        ([(32, 4), (6, 2), (64, 0)], 6, True, 3),
        ([(32, 4), (6, 2)], 12, True, 1),
    ],
)
def test_workers_reserve_no_more_cores_than_the_smallest_machine_has_for_them(
    machines, workers, gpu, each
):
    made = Cluster(tuple({"CPU": float(c)} | ({"GPU": float(g)} if g else {}) for c, g in machines))
    assert made.cpus_each(workers, gpu=gpu) == each


def test_a_share_that_no_machine_has_is_refused():
    message = "needs 3 CPUs and 0 GPUs, and no machine of the Ray cluster has them: it has 2 CPUs"
    with pytest.raises(ConfigError, match=message), RayPool(work, [None], Resources(cpus=3)):
        pass


def test_an_address_where_nothing_listens_is_refused_at_once():
    with socket.socket() as bound, pytest.raises(ConfigError, match="cannot reach the Ray cluster"):
        bound.bind(("127.0.0.1", 0))  # so that nobody else listens there
        require_listener(f"127.0.0.1:{bound.getsockname()[1]}")


def test_without_ray_the_error_tells_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'memfeat\[ray\]'"), ray_cluster():
        pass


JOIN = """
import os
import sys
sys.path.insert(0, "tests")
from test_workers import who, work
from memfeat.workers import RayPool, Resources, ray_cluster
with ray_cluster() as cluster:
    print(cluster.cpus, cluster.gpus)
    with RayPool(work, "a", Resources()) as pool:
        pool.submit(((who,),))
        for _, event in pool.run(lambda: None):
            print(*event)
"""


def test_a_cluster_that_the_environment_names_is_joined_and_left_running(cluster):
    address = {"RAY_ADDRESS": cluster.get_runtime_context().gcs_address}
    command = [sys.executable, "-c", JOIN]
    joined = os.environ | LOOPBACK | address
    done = subprocess.run(
        command, env=joined, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"2 3\n\(\d+, 'a'\)\nNone\n", done.stdout)
    assert cluster.cluster_resources()["CPU"] == 2


SECONDS = re.compile(rb'"seconds": [0-9.]+')  # how long a model took, in its provenance


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): SECONDS.sub(b"", path.read_bytes()) for path in paths}


@pytest.mark.extras
def test_a_grid_on_ray_writes_what_the_local_engine_writes(home):  # noqa: F811
    written = {}
    for engine in ("local", "ray"):
        config = grid(
            home,
            engine=engine,
            workers=2,
            aggregators=("avg", "bigru"),
            baselines=("ridge",),
            controls=("avg+linear",),
        )
        run_ablation(config, plan_cells(config, recipe(home, **SMALL)))
        written[engine] = files_of(home / "grid")
        (home / "grid").rename(home / engine)
    assert len(written["local"]) > 10
    assert written["ray"] == written["local"]


def actors() -> list[int]:
    """The processes of Ray actors that are at work."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            title = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::MemfeatWorker"):
            found.append(int(process.name))
    return found


@pytest.mark.extras
def test_actors_make_the_cache_that_this_process_makes_though_one_is_killed_half_way(
    clips, tmp_path
):
    settings = {"encoder": "efficientnet-lite0"}  # actors import it in half the time of timm
    killed: list[int] = []
    seen = []

    def kill(outcome) -> None:
        seen.append(outcome.video_id)
        if not killed:
            killed.extend(actors())
            os.kill(killed[0], signal.SIGKILL)

    extract(manifest(clips), config(tmp_path / "here", **settings))
    far = config(tmp_path / "far", engine="ray", device="cpu,cpu", **settings)
    summary = extract(manifest(clips), far, on_video=kill)
    assert killed
    assert sorted(seen) == [f"v{n}" for n in range(len(FRAMES))]
    assert len(summary.outcomes) == len(FRAMES)
    assert summary.rates.written > 0  # actors send their rates too
    assert files(tmp_path / "far") == files(tmp_path / "here")
    assert verify(tmp_path / "far") == {}


SCRIPT = """
import os
import signal
import sys
sys.path.insert(0, "tests")
from test_workers import count, sleep, who, work
from memfeat.workers import RayPool, Resources
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with RayPool(work, "ab", Resources()) as pool:
        for _ in range(2):
            pool.submit(((who,), (sleep,)))
        while True:
            for _, event in pool.events():
                print(*event, flush=True)
"""


def listening(pids: set[int]) -> set[str]:
    """Return the addresses at which processes listen, as the kernel writes them."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(FileNotFoundError):
                inodes.add(str(link.readlink()))
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {
        row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes
    }


HERE_ALONE = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_ray_that_was_started_for_a_pool_listens_here_alone_and_ends_with_it(number):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    first = parent.stdout.readline()
    os.kill(int(re.findall(r"\d+", first)[0]), signal.SIGKILL)
    rest = [parent.stdout.readline() for _ in range(2)]
    assert sorted(line[0] for line in rest) == ["(", "-"], rest
    started = set(descendants(parent.pid))
    # Ray has two helpers to a machine that outlive its sudden death by a minute.
    helpers = {pid for pid in started if b"Agent" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    assert listening({parent.pid, *started}) <= HERE_ALONE
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does: to all of them
    else:
        os.kill(parent.pid, number)
    stdout, stderr = parent.communicate(timeout=60)
    assert stdout == ""
    assert parent.returncode == {signal.SIGINT: -2, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    if number == signal.SIGKILL:
        for pid in helpers:
            os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not any(map(exists, started)))
    assert (
        stderr.count("KeyboardInterrupt") == stderr.count("Traceback") == (number == signal.SIGINT)
    )
    assert "a Ray actor died while it ran a job" in stderr
