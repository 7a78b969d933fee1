"""What the progress bars count."""

import pytest
from rich.progress import Progress

from memfeat.cli.progress import EpochProgress
from memfeat.training import EpochReport


def completed_after(reports: list[tuple[int, int]], num_seeds: int) -> list[float]:
    """Tell of epochs, each a seed and its epoch, of 10 at most; return what the bar shows."""
    bar = Progress()
    progress, shown = EpochProgress(bar, num_seeds, 10), []
    for seed, epoch in reports:
        progress.advance(EpochReport(seed, epoch, 1e-4, 0.1, 0.1, None, None, best=False))
        shown.append(bar.tasks[0].completed)
    assert bar.tasks[0].total == 10 * num_seeds
    return shown


@pytest.mark.parametrize(
    ("reports", "shown"),
    [
        # One after another; seed 0 stops after two epochs.
        ([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)], [1, 2, 11, 12, 13]),
        # Together; seed 1 stops after two epochs, which shows when seed 0 is two ahead.
        ([(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (0, 3)], [1, 2, 3, 4, 5, 14]),
    ],
)
def test_epochs_of_all_seeds_add_up_whether_they_train_together_or_in_turn(reports, shown):
    assert completed_after(reports, 2) == shown
