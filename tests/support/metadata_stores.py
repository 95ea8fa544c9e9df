"""Both adapters of the metadata store behind one way to open them, for the suite that both pass.

The subject of a suite is a `Stores`; mutants hand in another class, and the same claims must then fail.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from eyas_runtime.metadata.fake import InMemoryMetadataStore
from eyas_runtime.metadata.port import JobFacts, MetadataStore
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from support.jobs import NOW, Actor, facts, prepared

KINDS = ("sqlite", "memory")


@dataclass
class Stores:
    """Opens stores of one kind; every one is a new database."""

    open_store: Callable[[Path, JobFacts], MetadataStore]
    folder: Path
    opened: list[MetadataStore] = field(default_factory=list)

    def store(self, **changes: object) -> MetadataStore:
        """A store that knows nothing but its facts."""
        store = self.open_store(self.folder / f"store-{len(self.opened)}.sqlite", facts(**changes))
        self.opened.append(store)
        return store

    def actor(self, count: int = 20, *, empty: tuple[int, ...] = (), held_out: int = 0, **changes: object) -> Actor:
        """A store with prepared inputs of `count` prompts and a registered producer."""
        actor = Actor(self.store(**changes))
        actor.store.commit_prepared(prepared(count, empty=empty, held_out=held_out), now=NOW)
        actor.register()
        return actor

    def running(self, count: int = 20, *, empty: tuple[int, ...] = (), held_out: int = 0, **changes: object) -> Actor:
        """The same with everything captured and the ranks started from nothing."""
        actor = self.actor(count, empty=empty, held_out=held_out, **changes)
        actor.capture_all()
        actor.reconcile()
        return actor

    def close(self) -> None:
        for store in self.opened:
            store.close()


def stores_of(kind: str, folder: Path) -> Stores:
    """The stores of one adapter."""
    if kind == "sqlite":
        return Stores(SQLiteMetadataStore, folder)
    return Stores(lambda _, wanted: InMemoryMetadataStore(wanted), folder)
