"""A grid of systems, trained from the cache and compared in one table."""

from memfeat.ablation.grid import plan_cells
from memfeat.ablation.pending import plan_grid, plan_training
from memfeat.ablation.progress import GridProgress
from memfeat.ablation.recipes import caches_of
from memfeat.ablation.running import run_ablation, train_seeds
from memfeat.ablation.scorers import scores_path

__all__ = [
    "GridProgress",
    "caches_of",
    "plan_cells",
    "plan_grid",
    "plan_training",
    "run_ablation",
    "scores_path",
    "train_seeds",
]
