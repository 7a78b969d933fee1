"""The report: a run or a grid as one self-contained page of HTML."""

from memfeat.report.page import write_report

__all__ = ["write_report"]
