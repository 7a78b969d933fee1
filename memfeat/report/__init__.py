"""The report: a run, a grid or a transfer as one self-contained page of HTML."""

from memfeat.report.html import write_report

__all__ = ["write_report"]
