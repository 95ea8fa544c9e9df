"""The operator on one machine: pods as processes on loopback addresses, claims as folders, the same plan as a cluster.

Public: `local_run` and what it tells (`RunEvent`). See `folder` for the layout of a run's folder.
"""

from eyas_operator.backends.local.run import RunEvent, local_run

__all__ = ["RunEvent", "local_run"]
