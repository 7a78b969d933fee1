"""Where `memfeat.ablation.transfer` used to be."""

from memfeat.ablation.transfer import plan_transfer, run_transfer

__all__ = ["plan_transfer", "run_transfer"]
