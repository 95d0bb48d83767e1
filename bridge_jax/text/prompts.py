"""Builds prompts and training sequences from examples.

The instruction is in the system message and says which mode is wanted, as the task prefixes of
Distilling Step-by-Step (2305.02301) do: an example without a rationale trains the direct answer
without teaching the model to skip its reasoning. To explain, a model is given the gold answer
(after STaR, 2203.14465). The task comes first, where the data say it (`data.example`).

What a user or a dataset wrote is put in as it is, never as a pattern to fill in.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import Literal, NamedTuple

import numpy as np

from bridge_jax.config import DataConfig
from bridge_jax.data.answers import ANSWER_MARK, format_completion
from bridge_jax.data.example import Example, Task, read_task
from bridge_jax.errors import UserError
from bridge_jax.text.tokenizer import Tokenizer

# Beside an exported model, the system message that it was trained with.
SYSTEM_FILE = "system_message.txt"

Mode = Literal["reason", "answer", "explain"]

INSTRUCTIONS: dict[Mode, str] = {
    "reason": "Reason step by step, then write the answer.",
    "answer": "Write only the answer.",
    "explain": "Explain the answer, then write it.",
}


class SoftTargets(NamedTuple):
    """Another model's predictions at each of N targets: its K most probable tokens.

    Attributes:
      ids: int32[N, K].
      logprobs: f32[N, K], in nats, of the whole vocabulary.
    """

    ids: np.ndarray
    logprobs: np.ndarray


class Sequence(NamedTuple):
    """One training sequence in parts: the masks follow from the parts, not from a search.

    Attributes:
      prompt: ids of the rendered chat, up to the assistant's turn; no loss.
      rationale: ids of the rationale; may be empty.
      answer: ids of the answer and of the end of the turn.
      soft: of another model, for rationale and answer; None where none was asked.
    """

    prompt: list[int]
    rationale: list[int]
    answer: list[int]
    soft: SoftTargets | None = None

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.prompt) + self.targets

    @property
    def targets(self) -> int:
        """Number of tokens that are trained on."""
        return len(self.rationale) + len(self.answer)

    @property
    def without_answer(self) -> "Sequence":
        """The prompt and the rationale alone, which then ends the turn."""
        return Sequence(self.prompt, [*self.rationale, self.answer[-1]], [])


class DrawnInstructions(NamedTuple):
    """Generic instructions that the student's warm-up is trained on.

    Attributes:
      sequences: in the order of training.
      left_out: instructions that were too long, of those that were looked at.
      skipped: bad rows of the source.
    """

    sequences: list[Sequence]
    left_out: int = 0
    skipped: int = 0


def messages(example: Example, mode: Mode) -> list[dict[str, str]]:
    """Returns the chat that asks a model about `example`."""
    given = f"\n{ANSWER_MARK} {example.answer}" if mode == "explain" else ""
    return [
        {"role": "system", "content": system_message(example.task, labels_of(example), mode)},
        {"role": "user", "content": example.question + given},
    ]


def system_message(task: Task, labels: Seq[str], mode: Mode) -> str:
    """Returns the system message: the task, its labels, and what to write.

    Args:
      task: as the data say it; may be empty, and then the labels are not told either.
      labels: the closed set of answers; none where the answers are no labels.
      mode: whether to reason, to answer or to explain.
    """
    return "\n\n".join([*told(task, labels), INSTRUCTIONS[mode]])


def system_message_of(data: DataConfig, mode: Mode) -> str:
    """Returns the system message before each question of a dataset.

    Labels that each row of the data lists for itself are not in it.
    """
    labels = data.choices if data.kind == "label" else ()
    return system_message(read_task(data), labels, mode)


def told(task: Task, labels: Seq[str]) -> list[str]:
    """Returns the paragraphs that say the task: what is asked, and the labels."""
    parts = [task.instruction] if task.instruction else []
    if labels and task.is_said:
        parts.append(f"The answer is one of these labels:\n{list_labels(task, labels)}")
    return parts


def list_labels(task: Task, labels: Seq[str]) -> str:
    """Returns the labels, one a line, each with its description where it has one."""
    described = task.label_descriptions
    return "\n".join(
        f"- {label}: {described[label]}" if label in described else f"- {label}" for label in labels
    )


def labels_of(example: Example) -> tuple[str, ...]:
    """Returns the closed set of labels of an example; options stand in its question."""
    return example.choices if example.kind == "label" else ()


def untold(example: Example) -> bool:
    """Whether a model is not told some of the labels or options that its answer is one of."""
    if labels_of(example) and example.task.is_said:
        return False
    question = example.question.casefold()
    return not all(choice.casefold() in question for choice in example.choices)


def instruction_sequence(tokenizer: Tokenizer, question: str, answer: str) -> Sequence:
    """Returns a generic instruction as a sequence: the user's turn, and the answer as it is.

    It has nothing of the run's task and no system message of ours; what a chat template writes
    where there is none stays.
    """
    prompt = tokenizer.render_chat([{"role": "user", "content": question}])
    return Sequence(prompt, [], [*tokenizer.encode(answer), tokenizer.end_id])


def draw_instructions(
    rows: Iterable[tuple[str, str]], tokenizer: Tokenizer, count: int, longest: int
) -> DrawnInstructions:
    """Returns the first `count` (question, answer) of at most `longest` tokens, or fewer."""
    found: list[Sequence] = []
    left_out = 0
    for question, answer in rows:
        if len(found) == count:
            break
        sequence = instruction_sequence(tokenizer, question, answer)
        if sequence.length > longest:
            left_out += 1
        else:
            found.append(sequence)
    return DrawnInstructions(found, left_out)


def render_prompt(
    tokenizer: Tokenizer, example: Example, mode: Mode, max_tokens: int, on_long: str
) -> list[int]:
    """Returns the prompt's ids, at most `max_tokens`.

    Raises:
      UserError: it is longer, and `on_long` is not "truncate", which cuts the question's
        beginning (the question proper and its options stand at the end), or what stands beside
        the question is longer by itself.
    """
    ids = tokenizer.render_chat(messages(example, mode))
    excess = len(ids) - max_tokens
    if excess <= 0:
        return ids
    empty = dataclasses.replace(example, question="")
    rest = len(tokenizer.render_chat(messages(empty, mode)))
    of_task = _of_task(tokenizer, example)
    no_room = UserError(
        f"example {example.id!r}: its prompt needs {rest} tokens beside the question{of_task}, "
        f"max_prompt_tokens is {max_tokens}; raise it"
        + (", or say the task in fewer words" if of_task else "")
    )
    if rest >= max_tokens:
        raise no_room
    if on_long != "truncate":
        raise UserError(
            f"example {example.id!r}: its prompt has {len(ids)} tokens{of_task}, max_prompt_tokens "
            f"is {max_tokens}; raise it, or cut long questions with "
            "--config.on_long_prompt=truncate"
        )
    question = tokenizer.encode(example.question)
    # Decoding may merge differently at the cut, so cut until the rendered chat fits.
    while len(ids) > max_tokens and excess < len(question):
        shorter = dataclasses.replace(example, question=tokenizer.decode(question[excess:]))
        ids = tokenizer.render_chat(messages(shorter, mode))
        excess += max(1, len(ids) - max_tokens)
    if len(ids) > max_tokens:
        raise no_room
    return ids


def _of_task(tokenizer: Tokenizer, example: Example) -> str:
    """Returns the number of the task's tokens, for messages; "" where there is no task."""
    parts = told(example.task, labels_of(example))
    if not parts:
        return ""
    tokens = len(tokenizer.encode("\n\n".join(parts)))
    return f" ({tokens} of them the instruction and the labels)"


def training_sequence(
    tokenizer: Tokenizer, prompt: list[int], rationale: str | None, answer: str
) -> Sequence:
    """Returns prompt, rationale and answer as one sequence; without rationale the answer alone."""
    reasoning, final = format_completion(rationale or "", answer)
    return Sequence(
        prompt, tokenizer.encode(reasoning), [*tokenizer.encode(final), tokenizer.end_id]
    )
