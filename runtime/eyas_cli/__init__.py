"""The `eyas` command. It alone imports both the operator core and the runtime.

Rules: parse first, import later (help answers in under half a second, without torch); every screen degrades to plain
lines without a terminal; one clear sentence for every mistake, with the exit code of `docs/exit-codes.md`.
"""
