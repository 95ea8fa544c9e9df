"""Bytes under keys: one port, three adapters, no tensors.

Rules: nothing here imports torch, so the metadata service moves and deletes blobs with it; `mooncake` is imported only
in `mooncake_client`, when a client connects. A store is a dumb byte mover: who may read what, and what the bytes must
be, is known to the metadata service alone. Every key is checked before anything else happens, every call ends by our
own deadline, and a caller always gets memory of its own.
"""
