"""What tests of several files share, made once for each process that runs tests."""

import gc
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest


def pytest_sessionstart() -> None:
    gc.disable()  # which takes a fifth off the seconds of importing what is tested


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != "test_ray.py")  # lest two processes share them


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()
    if sys.platform == "linux" and ("processes" in sys.modules or len(session.items) > 100):
        start_fork_server()


def start_fork_server() -> None:
    """Start it before a decoder does, with all that the workers of these tests load."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as memfeat.workers does
    libraries = ["timm", "sklearn.linear_model", "sklearn.model_selection"]
    forkserver.set_forkserver_preload(["memfeat.ablation", "memfeat.extraction", *libraries])
    forkserver.ensure_running()
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the clips of `extracting.py`."""
    from extracting import render  # noqa: PLC0415  so that tests without it need not wait

    return render(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that an undisturbed extraction makes of the clips."""
    from extracting import config, manifest  # noqa: PLC0415

    from memfeat.extraction import extract  # noqa: PLC0415

    cache = tmp_path_factory.mktemp("whole")
    extract(manifest(clips), config(cache))
    return cache


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study of `predicting.py`: clips, cache and runs."""
    from predicting import study  # noqa: PLC0415

    return study(tmp_path_factory.mktemp("study"))
