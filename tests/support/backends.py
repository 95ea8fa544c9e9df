"""One store of any backend, and as many clients of it as a test asks for."""

from collections.abc import Callable, Sequence

from eyas_runtime.features.blobs.port import BlobStore


class Backend:
    """A store under test.

    `lasting` are clients that outlive the test and are handed out first: leaving a Mooncake pool takes a second.
    """

    def __init__(self, name: str, make: Callable[[], BlobStore], lasting: Sequence[BlobStore] = ()) -> None:
        self.name = name
        self._make = make
        self._lasting = list(lasting)
        self._clients: list[BlobStore] = []

    def client(self) -> BlobStore:
        """Another client, as another process would have; never close it."""
        return self._lasting.pop(0) if self._lasting else self.fresh_client()

    def fresh_client(self) -> BlobStore:
        """A client that the test may close."""
        client = self._make()
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
