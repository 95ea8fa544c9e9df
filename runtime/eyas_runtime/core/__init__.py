"""The pure middle of the runtime: which sample is trained when, what may enter the store, what may leave it.

Rules: no I/O, no clock, no randomness, no torch. Callers hand in `now`, nonces and observations, and write what a
function here decided. Both metadata adapters use these functions, so that they can only differ in how they store.
"""
