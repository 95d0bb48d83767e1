"""Tells how long the student and the one on labels alone were trained, and whether that is fair.

Labels are short, so in as many epochs they are learned in fewer steps than rationales. Too few
steps prove nothing about labels: on triage a student answered 32, 50 and 95% after 44, 64 and 88.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bridge_jax.config import TrainConfig
from bridge_jax.config.io import to_json
from bridge_jax.methods.baselines import LABELS
from bridge_jax.methods.tutoring import DIRECT, INSTRUCT
from bridge_jax.report.workdir import Json, RunArtifacts

LEARNED = 0.1  # nats: labels with a lower loss are known by heart
FALLING = 0.2  # share of the loss; it is 0.02 for check digits, which labels do not tell


class Lengths(NamedTuple):
    """How long the student and the one on labels alone were trained.

    Attributes:
      ours, theirs: optimizer steps of the student and of the one on labels, without those on
        instructions; None where a training is missing.
      steps: `student_training.steps` in the config; 0 if the config gives epochs.
      own: settings of `labels_training` that set its length; if there are none, it takes as many
        steps as the student.
      patient: whether the dev split could stop the training on labels.
      is_learning: whether the loss on labels was still falling at the end: in the last fifth of the
        steps it was above `LEARNED`, and lower by `FALLING` than in the fifth before.
      taken: settings of `student_training` that the training on labels took over, because it had no
        length of its own.
    """

    ours: int | None
    theirs: int | None
    steps: int
    own: tuple[str, ...]
    patient: bool
    is_learning: bool
    taken: tuple[str, ...]

    @property
    def was_stopped(self) -> bool:
        """Returns whether the dev split stopped the training on labels before the student's end."""
        return self.patient and not self.own and self._is_less

    @property
    def is_unfair(self) -> bool:
        """Returns whether labels were learned for fewer steps by the config's own choice."""
        return self._is_less and not self.was_stopped

    @property
    def _is_less(self) -> bool:
        return self.ours is not None and self.theirs is not None and self.theirs < self.ours

    @property
    def said(self) -> str:
        """The length of the training on labels by the student's, for a sentence; "" of unknown."""
        if self.ours is None or self.theirs is None:
            return ""
        if self.was_stopped:
            return f" for {self.theirs:,} steps of {self.ours:,}, where the dev split stopped it,"
        if self.theirs < self.ours:
            return f" in only {self.theirs:,} steps of {self.ours:,}"
        times = f"{self.theirs / self.ours:.1f}".removesuffix(".0")
        if times == "1":
            return " in as many steps" if self.theirs == self.ours else " in about as many steps"
        return f" {times} times as long"

    @property
    def told(self) -> str:
        """Returns `said` with the numbers of steps where they differ."""
        if self.is_unfair or self.was_stopped or self.ours == self.theirs:
            return self.said.removesuffix(",")
        return (
            f"{self.said} ({self.theirs:,} steps, the student {self.ours:,})" if self.said else ""
        )

    @property
    def longer(self) -> int:
        """Returns for how many steps labels might be learned where these were not enough."""
        return 2 * (self.theirs or 0)

    @property
    def to_be_fair(self) -> list[str]:
        """Returns the settings with which labels are learned for as many steps, or for longer."""
        if self.is_unfair:
            return [f"labels_training.{name}=0" for name in self.own or ("epochs",)]
        steps = f"steps={self.longer}"
        return [f"labels_training.{each}" for each in (*self.taken, steps)]

    @property
    def of_labels_alone(self) -> list[str]:
        """Returns the flags with which method `labels` trains for as many steps as here."""
        if self.own or self.theirs in (None, self.steps):
            return []
        return [f"--config.student_training.steps={self.theirs}"]


def of(run: RunArtifacts) -> Lengths:
    """Returns the lengths of a run's trainings; all trainings of its student count."""
    others = {INSTRUCT.name, DIRECT.name, LABELS.name}
    taken = {name: max(row["step"] for row in rows) + 1 for name, rows in run.curves.items()}
    ours = [steps for name, steps in taken.items()
            if run.table[name].role == "student" and name not in others]  # fmt: skip
    labels = run.config.get("labels_training", {})
    student = run.config.get("student_training", {})
    own = tuple(name for name in ("epochs", "steps") if labels.get(name))
    # A resumed training repeats some steps.
    losses = {row["step"]: row["loss"] for row in run.curves.get(LABELS.name, ())}
    return Lengths(
        ours=sum(ours) or None,
        theirs=taken.get(LABELS.name),
        steps=student.get("steps", 0),
        own=own,
        patient=bool(labels.get("patience") or student.get("patience")),
        is_learning=_is_falling(list(losses.values())),
        taken=() if own else tuple(_taken(labels, student)),
    )


def _taken(labels: Json, student: Json) -> list[str]:
    """Returns what labels are learned with as the student is, as "learning_rate=0.001"."""
    default = to_json(TrainConfig())
    return [
        f"{name}={value}"
        for name, value in student.items()
        if name not in ("epochs", "steps")
        and value != default.get(name)
        and labels.get(name) == default.get(name)
    ]


def _is_falling(losses: Sequence[float]) -> bool:
    """Returns whether a loss was still falling in the last fifth of a training."""
    fifth = len(losses) // 5
    if not fifth:
        return False
    before, last = (sum(part) / fifth for part in (losses[-2 * fifth : -fifth], losses[-fifth:]))
    return last >= LEARNED and last <= (1 - FALLING) * before
