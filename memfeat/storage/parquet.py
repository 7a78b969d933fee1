"""pyarrow, which is optional."""

from typing import Any

from memfeat.errors import ConfigError


def arrow() -> tuple[Any, Any]:
    """Return the modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"Parquet needs pyarrow ({error}); install it with `pip install 'memfeat[parquet]'`"
        ) from error
    return pyarrow, pyarrow.parquet
