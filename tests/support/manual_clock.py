"""A clock that moves when a test says so."""


class ManualClock:
    """Both clocks of `eyas_runtime.metadata.service.clock.Clock`; `advance` moves them together."""

    def __init__(self, *, monotonic: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._monotonic += seconds
        self._wall += seconds

    def set_wall(self, wall: float) -> None:
        """Someone sets the machine's date; the monotonic clock does not care."""
        self._wall = wall
