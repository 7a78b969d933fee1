"""A crew of real processes: what it does with tasks, deaths and interrupts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from memfeat.processes import Crew, Ended, Said

DONE = Ended(None)


def say(send, argument, message):
    send(message)


def who(send, argument):
    send((os.getpid(), argument))


def length(send, argument, data):
    send(len(data))


def meet(send, argument, mine, other):
    Path(mine).touch()
    while not Path(other).exists():
        time.sleep(0.01)


def count(send, argument):
    for number in range(10**9):
        send(number)


def sleep(send, argument):
    time.sleep(600)


def kill(send, argument):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(send, argument, code):
    os._exit(code)


def fail(send, argument):
    raise ValueError("what a task raises")


def work(task, argument, send):
    """Do what the task says: step by step, each a function with what it takes."""
    for step, *given in task:
        step(send, argument, *given)


def run(tasks: Iterable, arguments=(None,)) -> list:
    """Have a crew do tasks; return what it said."""
    heard, waiting = [], list(tasks)
    with Crew(work, arguments) as crew:
        while waiting or crew.busy:
            while waiting and crew.idle:
                crew.give(waiting.pop(0))
            heard += crew.hear()
    return heard


def exists(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody could have reaped."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def eventually(claim) -> bool:
    deadline = time.monotonic() + 20
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.02)
    return claim()


def test_every_task_is_done_once_and_says_its_messages_in_order():
    tasks = [((say, f"{i}a"), (say, f"{i}b")) for i in range(7)]
    heard = run(tasks, ["one", "two"])
    for i, task in enumerate(tasks):
        mine = [event for each, event in heard if each is task]
        assert mine == [Said(f"{i}a"), Said(f"{i}b"), DONE]
    assert len(heard) == 3 * len(tasks)


def test_workers_are_at_work_at_the_same_time_each_with_its_argument(tmp_path):
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    tasks = [((who,), (meet, here, there)), ((who,), (meet, there, here))]
    heard = run(tasks, ["one", "two"])
    said = dict(event.message for _, event in heard if isinstance(event, Said))
    assert sorted(said.values()) == ["one", "two"]
    assert os.getpid() not in said


def test_no_more_processes_are_started_than_there_are_tasks():
    with Crew(work, range(50)) as crew:
        assert (crew.idle, crew.busy) == (50, 0)
        pids = set()
        for _ in range(3):
            crew.give(((who,),))
            assert (crew.idle, crew.busy) == (49, 1)
            while crew.busy:
                pids |= {event.message for _, event in crew.hear() if event != DONE}
        assert len(pids) == 1


def test_a_task_of_any_size_arrives():
    data = bytes(20_000_000)
    assert [event for _, event in run([((length, data),)] * 2)] == [Said(len(data)), DONE] * 2


@pytest.mark.parametrize(
    ("death", "code"), [((kill,), -signal.SIGKILL), ((leave, 0), 0), ((fail,), 1)]
)
def test_a_death_ends_one_task_and_tells_the_exit_code(death, code):
    dying, others = ((say, "last words"), death), [((say, i), (who,)) for i in range(4)]
    heard = run([dying, *others], ["one", "two"])
    assert [event for task, event in heard if task is dying] == [Said("last words"), Ended(code)]
    for i, task in enumerate(others):
        said = [event for each, event in heard if each is task]
        assert said[0] == Said(i)
        assert said[-1] == DONE


def test_a_worker_that_died_is_replaced_by_one_with_its_argument():
    heard = run([((who,), (kill,)), ((who,),)], ["mine"])
    (first, *_), _, (second, *_), _ = (event for _, event in heard)
    assert first[1] == second[1] == "mine"
    assert first[0] != second[0]


def test_a_worker_that_died_idle_costs_no_task():
    with Crew(work, ["mine"]) as crew:
        crew.give(((who,),))
        (_, said), *_ = crew.hear()
        while crew.busy:
            crew.hear()
        os.kill(said.message[0], signal.SIGKILL)
        os.waitid(os.P_PID, said.message[0], os.WEXITED | os.WNOWAIT)
        crew.give(((say, "done"),))
        heard = []
        while crew.busy:
            heard += crew.hear()
    assert [event for _, event in heard] == [Said("done"), DONE]


def test_what_was_said_before_a_sudden_death_is_heard_whole_and_in_order():
    heard = []
    with Crew(work, [None]) as crew:
        crew.give(((who,), (count,)))
        (_, said), *_ = crew.hear()
        while crew.busy:
            heard += [event for _, event in crew.hear()]
            if len(heard) == 100:
                os.kill(said.message[0], signal.SIGKILL)
    *numbers, end = heard
    assert end == Ended(-signal.SIGKILL)
    assert numbers == [Said(number) for number in range(len(numbers))]
    assert len(numbers) >= 100


def test_a_crew_whose_workers_all_have_a_task_refuses_another():
    with Crew(work, [None]) as crew:
        crew.give(((sleep,),))
        with pytest.raises(ValueError, match="all 1 workers have a task; `hear` until one"):
            crew.give(((sleep,),))


def test_a_crew_without_a_task_has_nothing_to_wait_for():
    with Crew(work, [None]) as crew:
        assert crew.hear() == []


def test_leaving_the_context_ends_workers_in_the_midst_of_a_task():
    with pytest.raises(ZeroDivisionError), Crew(work, "ab") as crew:
        pids = []
        for _ in range(2):
            crew.give(((who,), (sleep,)))
        while len(pids) < 2:
            pids += [event.message[0] for _, event in crew.hear()]
        raise ZeroDivisionError
    assert not any(map(exists, pids))


SCRIPT = """
import signal
import sys
sys.path.insert(0, "tests")
from test_processes import Crew, sleep, who, work
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    with Crew(work, "ab") as crew:
        for _ in range(2):
            crew.give(((who,), (sleep,)))
        while True:
            for _, said in crew.hear():
                print(said.message[0], flush=True)
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
