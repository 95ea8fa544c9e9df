"""PID 1 of every pod: starts the role's processes, restarts them in place, leaves with a meaningful exit code.

The kubelet restarts a container with a growing pause that knows nothing of progress; a supervisor inside restarts at
once and slows down only when nothing gets better. It leaves the pod when the work is done (0), for the codes that
nobody can repair in place (65, 75, 78, 86), and when its budget is spent. In a consumer pod it also speaks for its
ranks to the metadata service (`gang`), so that a rank's death in one pod restarts the ranks of all pods.

`policy` and `settings` decide (pure); `children`, `orphans`, `gang` act; `loop` joins them. Torch-free; one thread
starts every child and reaps it, and ends last.
"""
