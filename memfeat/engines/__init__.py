"""Where tasks are worked off: in processes of this machine, or by actors of a Ray cluster."""

from memfeat.engines.choosing import Engine, crew_for
from memfeat.engines.ray_cluster import Cluster, Share, ray_cluster
from memfeat.engines.ray_crew import RayCrew

__all__ = ["Cluster", "Engine", "RayCrew", "Share", "crew_for", "ray_cluster"]
