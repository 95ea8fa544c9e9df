"""`kubectl eyas doctor`: can this cluster run jobs, can this user, and what holds up a job? One line a check.

Checks only read. What this user may not see is a warning that says so, never an error: the cluster may be fine.
`installed` looks at definition and operator, `cluster` at storage and devices, `person` at the user's rights and clock,
`waiting` at one job.
"""

from eyas_cli.cluster.doctor.examine import examine

__all__ = ["examine"]
