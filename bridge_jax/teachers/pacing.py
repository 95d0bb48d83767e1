"""How fast a teacher may be asked: requests and tokens per minute, as its vendor limits them."""

import time
from collections.abc import Callable


class Pace:
    """Evenly spaced turns, shared by all who ask.

    The vendors' limits are token buckets that refill all the time; we take from ours without
    bursts, so that no minute, wherever it begins, has more than its share.

    Args:
      requests_per_minute, tokens_per_minute: 0 is no limit.
      clock: seconds, monotonic.
    """

    def __init__(
        self,
        requests_per_minute: float = 0,
        tokens_per_minute: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._clock = clock
        self._per_second = (requests_per_minute / 60, tokens_per_minute / 60)
        self._free_at = [clock(), clock()]

    def take(self, tokens: int) -> float:
        """Takes the next turn, for a request of at most `tokens`; returns the seconds until it."""
        now = self._clock()
        start = now
        for i, rate in enumerate(self._per_second):
            if rate:
                start = max(start, self._free_at[i])
        for i, (rate, amount) in enumerate(zip(self._per_second, (1, tokens))):
            if rate:
                self._free_at[i] = start + amount / rate
        return start - now

    def give_back(self, tokens: int, requests: int = 0) -> None:
        """Returns what was taken and not used."""
        for i, (rate, amount) in enumerate(zip(self._per_second, (requests, tokens))):
            if rate:
                self._free_at[i] -= amount / rate
