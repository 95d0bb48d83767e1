"""What became of requests so far: counts for people who watch, and the commonest reason."""

import dataclasses
import re
from collections import Counter
from typing import Any

from bridge_jax.teachers.protocol import Failure, Reply

_DIGITS = re.compile(r"\d+")


@dataclasses.dataclass
class Tally:
    """Counts outcomes.

    Attributes:
      counts: by what became of requests: `answered`, `no_answer` (a paid reply that is none: cut
        off, empty, malformed, or declined by the model), and the kinds of `Failure`.
      reasons: requests without an answer, counted by `alike` of the reason.
      examples: a reason in full, by `alike`.
    """

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, outcome: Reply | Failure, copies: int = 1) -> None:
        """Counts what became of `copies` equal requests."""
        if isinstance(outcome, Reply) and outcome.finish == "stop":
            self.counts["answered"] += copies
            return
        if isinstance(outcome, Reply):
            kind, reason = "no_answer", f"a paid reply that is no answer ({outcome.finish})"
        else:
            kind, reason = outcome.kind, outcome.reason
        self.counts[kind] += copies
        self.reasons[alike(reason)] += copies
        self.examples.setdefault(alike(reason), reason)

    @property
    def replies(self) -> int:
        """How many requests have a reply, which is paid and kept."""
        return self.counts["answered"] + self.counts["no_answer"]

    def info(self) -> dict[str, Any]:
        """Returns the counts to show beside a progress bar; 0 is shown of answers alone."""
        kinds = ("no_answer", "failed", "refused", "not_asked")
        others = {kind: self.counts[kind] for kind in kinds if self.counts[kind]}
        return {"answered": self.counts["answered"]} | others

    def failures(self) -> str:
        """Returns what is not answered in words, with the commonest reason; "" if all is."""
        parts = [f"{n} {kind.replace('_', ' ')}" for kind, n in self.info().items() if n]
        parts = [part for part in parts if not part.endswith("answered")]
        if not parts:
            return ""
        key, times = self.reasons.most_common(1)[0]
        return f"{', '.join(parts)}; the commonest reason ({times}x): {self.examples[key]}"


def alike(reason: str) -> str:
    """Returns what reasons have in common that differ in their numbers alone."""
    return _DIGITS.sub("#", reason)
