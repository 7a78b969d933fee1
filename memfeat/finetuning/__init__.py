"""Training I3D end to end, from videos and scores: the paper's "finetuned for memorability"."""

from memfeat.finetuning.finetuning import FinetuneSummary, finetune

__all__ = ["FinetuneSummary", "finetune"]
