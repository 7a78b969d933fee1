"""`--tensorboard`: each model's epochs, as they end, for TensorBoard to draw."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memfeat.cli.options import LOCAL_PATH
from memfeat.errors import ConfigError

if TYPE_CHECKING:
    from memfeat.ablation import GridProgress

FIGURES = ("learning_rate", "train_l1", "dev_l1", "dev_plcc", "dev_srocc")

tensorboard_option = click.option(
    "--tensorboard", type=LOCAL_PATH, help="Also log epochs into this folder, for TensorBoard."
)


@contextmanager
def epoch_log(
    folder: Path | None, run: Path, show: "Callable[[GridProgress], None]"
) -> "Iterator[Callable[[GridProgress], None]]":
    """Give a callback for progress that logs an epoch and then shows it.

    Args:
        folder: where to log to; nowhere if there is none.
        run: folder that the models' run folders are in, or the only one.
        show: called with all progress.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    if folder is None:
        yield show
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"--tensorboard needs a package ({error}); pip install 'memfeat[tensorboard]'"
        ) from error
    writers: dict[Path, SummaryWriter] = {}

    def log(progress: "GridProgress") -> None:
        epoch = progress.epoch
        if progress.run is not None and epoch is not None:
            part = f"fold-{epoch.fold}" if epoch.fold else ""
            name = progress.run.relative_to(run.parent) / part
            if name not in writers:
                writers[name] = SummaryWriter(str(folder / name))
            for figure in FIGURES:
                value = getattr(epoch, figure)
                if value is not None:
                    writers[name].add_scalar(figure, value, epoch.epoch + 1)
        show(progress)

    try:
        yield log
    finally:
        for writer in writers.values():
            writer.close()
