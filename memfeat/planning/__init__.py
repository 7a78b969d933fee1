"""What an extraction will take, before any of it is done: frames, bytes, hours, money."""

from memfeat.planning.footage import Footage
from memfeat.planning.pace import Pace, Rate
from memfeat.planning.plan import Plan, make_plan
from memfeat.planning.size import Size

__all__ = ["Footage", "Pace", "Plan", "Rate", "Size", "make_plan"]
