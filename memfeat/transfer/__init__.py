"""Models trained on one dataset and evaluated on another (paper, Table 2)."""

from memfeat.transfer.pairs import pair_folder
from memfeat.transfer.planning import plan_cells
from memfeat.transfer.running import RESULT, run_transfer

__all__ = ["RESULT", "pair_folder", "plan_cells", "run_transfer"]
