"""A pool of real worker processes: jobs, deaths and interrupts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from processes import eventually, exists

from memfeat.workers import JobEnded, LocalPool, Message, start_worker

DONE = JobEnded(None)


def say(send, slot, message):
    send(message)


def who(send, slot):
    send((os.getpid(), slot))


def length(send, slot, data):
    send(len(data))


def look(send, slot, name):
    send(os.environ.get(name))


def meet(send, slot, mine, other):
    Path(mine).touch()
    while not Path(other).exists():
        time.sleep(0.01)


def count(send, slot):
    for number in range(10**9):
        send(number)


def sleep(send, slot):
    time.sleep(600)


def kill(send, slot):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(send, slot, code):
    os._exit(code)


def fail(send, slot):
    raise ValueError("what a job raises")


def shout(send, slot, size):
    def repeat(number):
        for _ in range(10):
            send(bytes([number]) * size)

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def work(job, slot, send):
    """Do what the job says: step by step, each a function with its arguments."""
    for step, *given in job:
        step(send, slot, *given)


def run(jobs: Iterable, slots=(None,)) -> list:
    """Run jobs in a pool; return their events."""
    queue = list(jobs)
    with LocalPool(work, slots) as pool:
        return list(pool.run(lambda: queue.pop(0) if queue else None))


def finish(pool) -> list:
    """Return the events of the jobs that are running, until all have ended."""
    return list(pool.run(lambda: None))


def test_every_job_runs_once_and_its_messages_come_in_order():
    jobs = [((say, f"{i}a"), (say, f"{i}b")) for i in range(7)]
    events = run(jobs, ["one", "two"])
    for i, job in enumerate(jobs):
        mine = [event for each, event in events if each is job]
        assert mine == [Message(f"{i}a"), Message(f"{i}b"), DONE]
    assert len(events) == 3 * len(jobs)


def test_workers_run_at_the_same_time_each_with_its_slot(tmp_path):
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    jobs = [((who,), (meet, here, there)), ((who,), (meet, there, here))]
    events = run(jobs, ["one", "two"])
    said = dict(event.content for _, event in events if isinstance(event, Message))
    assert sorted(said.values()) == ["one", "two"]
    assert os.getpid() not in said


def test_no_more_processes_are_started_than_there_are_jobs():
    with LocalPool(work, range(50)) as pool:
        assert (pool.idle, pool.busy) == (50, 0)
        pids = set()
        for _ in range(3):
            pool.submit(((who,),))
            assert (pool.idle, pool.busy) == (49, 1)
            pids |= {event.content for _, event in finish(pool) if event != DONE}
        assert len(pids) == 1


def test_a_job_of_any_size_arrives():
    data = bytes(20_000_000)
    assert [event for _, event in run([((length, data),)] * 2)] == [Message(len(data)), DONE] * 2


def test_messages_that_threads_send_at_once_arrive_whole():
    events = run([((shout, 300_000),)])
    contents = Counter(event.content for _, event in events[:-1])
    assert contents == {bytes([number]) * 300_000: 10 for number in range(4)}


@pytest.mark.parametrize(
    ("death", "code"), [((kill,), -signal.SIGKILL), ((leave, 0), 0), ((fail,), 1)]
)
def test_a_death_ends_one_job_with_the_exit_code(death, code):
    dying, others = ((say, "last words"), death), [((say, i), (who,)) for i in range(4)]
    events = run([dying, *others], ["one", "two"])
    assert [event for job, event in events if job is dying] == [
        Message("last words"),
        JobEnded(code),
    ]
    for i, job in enumerate(others):
        said = [event for each, event in events if each is job]
        assert said[0] == Message(i)
        assert said[-1] == DONE


def test_a_worker_that_died_is_replaced_by_one_with_its_slot():
    events = run([((who,), (kill,)), ((who,),)], ["mine"])
    (first, *_), _, (second, *_), _ = (event for _, event in events)
    assert first[1] == second[1] == "mine"
    assert first[0] != second[0]


def test_a_worker_that_died_idle_costs_no_job():
    with LocalPool(work, ["mine"]) as pool:
        pool.submit(((who,),))
        (_, message), *_ = finish(pool)
        os.kill(message.content[0], signal.SIGKILL)
        # Its pipe is closed once all of its threads have ended, and it has been reaped.
        assert eventually(lambda: not Path(f"/proc/{message.content[0]}").exists())
        pool.submit(((say, "done"),))
        events = finish(pool)
    assert [event for _, event in events] == [Message("done"), DONE]


def test_messages_before_a_sudden_death_come_whole_and_in_order():
    events = []
    with LocalPool(work, [None]) as pool:
        pool.submit(((who,), (count,)))
        (_, message), *_ = pool.events()
        for _, event in pool.run(lambda: None):
            events.append(event)
            if len(events) == 100:
                os.kill(message.content[0], signal.SIGKILL)
    *numbers, end = events
    assert end == JobEnded(-signal.SIGKILL)
    assert numbers == [Message(number) for number in range(len(numbers))]
    assert len(numbers) >= 100


def test_a_pool_whose_workers_are_all_busy_refuses_a_job():
    with LocalPool(work, [None]) as pool:
        pool.submit(((sleep,),))
        with pytest.raises(ValueError, match="all 1 workers are busy; read `events` until"):
            pool.submit(((sleep,),))


def test_a_pool_without_jobs_waits_for_nothing():
    with LocalPool(work, [None]) as pool:
        assert pool.events() == []


ENVIRONMENT = "MEMFEAT_OF_THIS_TEST"


def test_a_worker_has_the_environment_of_the_moment_it_is_started_in(monkeypatch):
    for value in ("one", "two"):  # the second is set when the fork server runs already
        monkeypatch.setenv(ENVIRONMENT, value)
        assert run([((look, ENVIRONMENT),)])[0][1] == Message(value)


def parent(pipe):
    pipe.send(os.getppid())


def nest(send, slot):
    process, pipe = start_worker(parent, name="nested")
    send((os.getppid(), pipe.recv()))
    process.join()


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info >= (3, 14), reason="another server is started"
)
def test_a_workers_own_workers_are_forks_of_the_same_server():
    own, nested = run([((nest,),)])[0][1].content
    assert own == nested != os.getpid()


def test_leaving_the_context_ends_workers_that_are_busy():
    with pytest.raises(ZeroDivisionError), LocalPool(work, "ab") as pool:
        pids = []
        for _ in range(2):
            pool.submit(((who,), (sleep,)))
        while len(pids) < 2:
            pids += [event.content[0] for _, event in pool.events()]
        raise ZeroDivisionError
    assert not any(map(exists, pids))


SCRIPT = """
import signal
import sys
sys.path.insert(0, "tests")
from test_workers import LocalPool, sleep, who, work
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    with LocalPool(work, "ab") as pool:
        for _ in range(2):
            pool.submit(((who,), (sleep,)))
        while True:
            for _, message in pool.events():
                print(message.content[0], flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent_whatever_ends_it(number):
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does: to all of them
    else:
        os.kill(parent.pid, number)
    stderr = parent.communicate(timeout=60)[1]
    assert eventually(lambda: not any(map(exists, pids)))
    # Of the three processes the parent alone hears of the interrupt, and says so.
    assert stderr.count("Traceback") == (number == signal.SIGINT)
    assert stderr.count("KeyboardInterrupt") == (number == signal.SIGINT)


def test_workers_start_where_the_temporary_folder_has_a_long_name(tmp_path):
    """A batch system's often has; a socket in it would have too long a path."""
    folder = tmp_path / ("t" * 90)
    folder.mkdir()
    code = (
        "import os, sys\nsys.path.insert(0, sys.argv[1])\nimport test_workers\n"
        "if __name__ == '__main__': print(test_workers.run([((test_workers.say, 7),)])[0][1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{Message(7)}\n", done.stderr
