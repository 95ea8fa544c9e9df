"""Policies: one rule of behaviour a file, each a pure function of a `Moment` and a status, tested by itself."""
