"""A grid of systems, trained from the cache and compared in one table."""

from memfeat.ablation.grid import plan_cells
from memfeat.ablation.progress import GridProgress
from memfeat.ablation.recipes import caches_of
from memfeat.ablation.running import run_ablation, train_seeds

__all__ = [
    "GridProgress",
    "caches_of",
    "plan_cells",
    "run_ablation",
    "train_seeds",
]
