"""The metadata store in plain Python: shipped for tests of others, and the second opinion on the SQLite store.

It shares no state transition with the SQLite store: one conformance suite and one state machine compare the two, which
says something only while each decides for itself.
"""

from eyas_runtime.metadata.fake.store import InMemoryMetadataStore

__all__ = ["InMemoryMetadataStore"]
