"""`eyas bench cluster`: what a kill costs a gang of three pods on a cluster, ours beside a plain Indexed Job.

Both arms train at the same pace with the same distance of checkpoints, in the same image on the same volume, and are
hurt in the same ways. `next step` is the first step that is made after the kill, `all running` the moment at which
every pod of the gang runs again, `work lost` the steps made before the kill that have to be made again.
"""
