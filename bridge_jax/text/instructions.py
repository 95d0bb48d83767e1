"""Which of a source's instructions the student's warm-up is trained on: those that fit a row."""

from collections.abc import Iterable
from typing import NamedTuple

from bridge_jax.data.instructions import Instruction
from bridge_jax.text.prompts import Sequence, instruction_sequence
from bridge_jax.text.tokenizer import Tokenizer


class Drawn(NamedTuple):
    """What is trained on.

    Attributes:
      sequences: in the order of training.
      left_out: instructions that were too long, of those that were looked at.
      skipped: bad rows of the source.
    """

    sequences: list[Sequence]
    left_out: int = 0
    skipped: int = 0


def draw(rows: Iterable[Instruction], tokenizer: Tokenizer, count: int, longest: int) -> Drawn:
    """Returns the first `count` instructions of at most `longest` tokens, or fewer."""
    found: list[Sequence] = []
    left_out = 0
    for row in rows:
        if len(found) == count:
            break
        sequence = instruction_sequence(tokenizer, row.question, row.answer)
        if sequence.length > longest:
            left_out += 1
        else:
            found.append(sequence)
    return Drawn(found, left_out)
