"""What tests of several files share, made once for each process that runs tests."""

import gc
from pathlib import Path

import pytest


def pytest_sessionstart() -> None:
    gc.disable()  # which takes a fifth off the seconds of importing what is tested


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


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
