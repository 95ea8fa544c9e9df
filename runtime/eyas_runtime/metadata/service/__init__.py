"""The metadata service: HTTP in front, one thread that owns the store behind, timers and the sweep beside it.

Rules. Every decision and every transaction runs in the store's thread (`worker`), so nothing here needs a lock; the
event loop only moves bytes; blob stores are touched by the sweeper's thread alone. What the service knows beyond the
database (lease terms, the hang lease, a drain request) is in memory, by the monotonic clock, and may be forgotten.
"""
