"""The kubectl plugin: a job on a cluster as its owner sees it, with the owner's own rights.

`commands` parses; `access` opens the cluster; `job` reads one job and its pods; `live` asks the metadata service
through a tunnel; `screens`, `logs`, `events`, `doctor` and `kill` are a command each. What local runs show in the same
way (screen, plot, checks, incident lines) is in the rooms above and used by both.
"""
