"""Compares how long the student and the student on labels alone were trained.

Labels are short, so the same number of epochs has fewer steps than with rationales. Too few steps
prove nothing about labels: on triage, a student on labels was right for 32%, 50% and 95% of the
questions after 44, 64 and 88 steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bridge_jax.config import TrainConfig
from bridge_jax.config.io import to_json
from bridge_jax.methods.baselines import LABELS
from bridge_jax.methods.tutoring import DIRECT, INSTRUCT
from bridge_jax.report.workdir import Json, RunArtifacts

LEARNED = 0.1  # nats; with a lower loss, the labels count as learned by heart
FALLING = 0.2  # share of the loss; on check digits, which labels do not teach, it falls by 0.02


class Lengths(NamedTuple):
    """The lengths of the student's training and of the training on labels alone.

    Attributes:
      ours, theirs: optimizer steps of the student and of the student on labels, without those on
        instructions; None if a training is missing.
      steps: `student_training.steps` in the config; 0 if the config gives epochs.
      own: settings of `labels_training` that set its length; if there are none, it takes as many
        steps as the student.
      patient: whether the dev split could stop the training on labels.
      is_learning: whether the loss on labels was still falling at the end: in the last fifth of the
        steps it was `LEARNED` or more, and lower by `FALLING` or more than in the fifth before.
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
        """Returns whether the dev split stopped the training on labels at fewer steps than ours."""
        return self.patient and not self.own and self._is_less

    @property
    def is_unfair(self) -> bool:
        """Returns whether the training on labels had fewer steps because of the config."""
        return self._is_less and not self.was_stopped

    @property
    def _is_less(self) -> bool:
        return self.ours is not None and self.theirs is not None and self.theirs < self.ours

    @property
    def said(self) -> str:
        """The length of the training on labels relative to ours, as a phrase; "" if unknown."""
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
        """Returns `said`, with the numbers of steps if they differ and it does not have them."""
        if self.is_unfair or self.was_stopped or self.ours == self.theirs:
            return self.said.removesuffix(",")
        return (
            f"{self.said} ({self.theirs:,} steps, the student {self.ours:,})" if self.said else ""
        )

    @property
    def longer(self) -> int:
        """Returns how many steps on labels to try if these were not enough: twice as many."""
        return 2 * (self.theirs or 0)

    @property
    def to_be_fair(self) -> list[str]:
        """Returns settings that train on labels for as many steps as the student, or for longer."""
        if self.is_unfair:
            return [f"labels_training.{name}=0" for name in self.own or ("epochs",)]
        steps = f"steps={self.longer}"
        return [f"labels_training.{each}" for each in (*self.taken, steps)]

    @property
    def of_labels_alone(self) -> list[str]:
        """Returns flags that make the method `labels` train for as many steps as here."""
        if self.own or self.theirs in (None, self.steps):
            return []
        return [f"--config.student_training.steps={self.theirs}"]


def compute(run: RunArtifacts) -> Lengths:
    """Returns the lengths of a run's trainings; `ours` sums all trainings of its student."""
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
    """Returns the settings taken over from the student's training, as "learning_rate=0.001"."""
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
