"""A grid of systems, trained from the cache and compared in one table."""

from memfeat.ablation.grid import Cell, plan_cells
from memfeat.ablation.progress import GridProgress
from memfeat.ablation.recipes import CacheRequest, caches_of, missing_caches
from memfeat.ablation.results import table_of
from memfeat.ablation.running import run_ablation, train_seeds
from memfeat.ablation.scheduler import train_cells

__all__ = [
    "CacheRequest",
    "Cell",
    "GridProgress",
    "caches_of",
    "missing_caches",
    "plan_cells",
    "run_ablation",
    "table_of",
    "train_cells",
    "train_seeds",
]
