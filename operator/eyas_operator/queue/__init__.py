"""The keyed queue: which job is looked at next, and by whom. `schedule` decides, `workers` make the passes."""
