"""`memfeat serve`: a web page that scores videos, for one machine's user or a lab.

Nothing that is sent here is kept: an upload is deleted as soon as it is scored.
"""

from memfeat.serving.app import create_app
from memfeat.serving.guard import LOOPBACK, Guard
from memfeat.serving.queue import ScoringQueue

__all__ = ["LOOPBACK", "Guard", "ScoringQueue", "create_app"]
