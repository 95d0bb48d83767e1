"""Stops a training that is ruined: limits on the numbers that its steps log."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Limit:
    """A limit on the mean of a number over the last steps.

    Attributes:
      name: of the number in the log.
      setting: of the config that holds the limit, for messages.
      bound: the largest mean that is allowed, or the smallest where `is_least`.
      why: what a mean beyond it shows, and what may help; it ends a sentence.
      steps: how many the mean is over; nothing is checked before so many have logged the number.
      is_least: whether means below `bound` are refused instead of those above.
    """

    name: str
    setting: str
    bound: float
    why: str
    steps: int = 1
    is_least: bool = False

    def fault(self, values: Sequence[float]) -> str:
        """Returns why a training whose last steps have logged `values` has to stop, or ""."""
        if len(values) < self.steps:
            return ""
        mean = sum(values) / len(values)
        is_kept = mean >= self.bound if self.is_least else mean <= self.bound
        if is_kept:
            return ""
        over = f"over the last {self.steps} steps " if self.steps > 1 else ""
        than = "less" if self.is_least else "more"
        limit = f"{self.setting}={self.bound:g}"
        return f"{over}{self.name} is {mean:.3g}, {than} than {limit}: {self.why}"


class Watch:
    """Keeps the recent values of the numbers that have limits.

    The state is a JSON value. It is saved with that of the training, so that the means go on after
    an interruption.
    """

    def __init__(self, limits: Sequence[Limit]):
        """Takes the limits, each of a number of its own."""
        self._limits = limits
        self._recent = {each.name: collections.deque[float](maxlen=each.steps) for each in limits}

    def add(self, logged: Mapping[str, float]) -> None:
        """Adds what a step has logged; a step may lack a number."""
        for name, recent in self._recent.items():
            if name in logged:
                recent.append(logged[name])

    @property
    def fault(self) -> str:
        """Returns why the training has to stop, by the first limit that is broken; else ""."""
        for limit in self._limits:
            if fault := limit.fault(self._recent[limit.name]):
                return fault
        return ""

    def get_state(self) -> dict[str, list[float]]:
        """Returns the recent values of each number."""
        return {name: list(recent) for name, recent in self._recent.items()}

    def set_state(self, state: Mapping[str, Sequence[float]]) -> None:
        """Goes to a state; limits may have been added or taken away since."""
        for name, values in state.items():
            if name in self._recent:
                self._recent[name].extend(values)
