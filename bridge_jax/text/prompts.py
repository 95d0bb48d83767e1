"""Builds prompts and training sequences from examples.

The system message states the mode, like the task prefixes of Distilling Step-by-Step (2305.02301):
an example without a rationale then trains the direct answer, and does not teach the model to skip
its reasoning. In mode "explain" the model is given the gold answer (after STaR, 2203.14465). If the
config has a task (`data.example`), it comes first.

Texts of users and datasets are inserted verbatim; they are never used as format strings.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from bridge_jax.config import DataConfig
from bridge_jax.data.answers import ANSWER_MARK, format_completion
from bridge_jax.data.example import Example, Task, read_task
from bridge_jax.errors import UserError
from bridge_jax.text.tokenizer import Tokenizer

# A file in an exported model's folder: the system message of its training, for other programs.
SYSTEM_FILE = "system_message.txt"

Mode = Literal["reason", "answer", "explain"]

_GAP = " … "  # Replaces the part that is cut from the middle of a question.
_PARTIAL = "\ufffd"  # The result of decoding an incomplete character.

INSTRUCTIONS: dict[Mode, str] = {
    "reason": "Reason step by step, then write the answer.",
    "answer": "Write only the answer.",
    "explain": "Explain the answer, then write it.",
}


class TrainingSequence(NamedTuple):
    """One training sequence in parts, from which its loss masks follow.

    Attributes:
      prompt: ids of the rendered chat, up to the assistant's turn; no loss.
      rationale: ids of the rationale; may be empty.
      answer: ids of the answer and of the end token.
      extra_targets: what an objective reads at each target of rationale and answer, a tree of
        arrays whose first axis is the targets; None if it reads the tokens alone.
    """

    prompt: list[int]
    rationale: list[int]
    answer: list[int]
    extra_targets: Any = None

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.prompt) + self.targets

    @property
    def targets(self) -> int:
        """Number of tokens that are trained on."""
        return len(self.rationale) + len(self.answer)

    @property
    def without_answer(self) -> "TrainingSequence":
        """The sequence without its answer: the end token follows the rationale."""
        return TrainingSequence(self.prompt, [*self.rationale, self.answer[-1]], [])

    def own_answer(self, mark: list[int], ends: Sequence[int]) -> "TrainingSequence":
        """Returns the sequence with only the answer's own tokens as `answer`.

        A leading `mark` (ids) moves to `rationale`, and a final token that is one of `ends` is
        dropped, because every answer has both. If nothing is left, the sequence is returned
        unchanged. The result has no `extra_targets`.
        """
        start = len(mark) if self.answer[: len(mark)] == mark else 0
        own = self.answer[start:]
        own = own[:-1] if own and own[-1] in ends else own
        if not own:
            return self
        return TrainingSequence(self.prompt, [*self.rationale, *self.answer[:start]], own)


class DrawnInstructions(NamedTuple):
    """Generic instructions for the student's warm-up.

    Attributes:
      sequences: the instructions, in training order.
      left_out: number of instructions that were left out because they are too long.
      skipped: number of bad rows in the source.
    """

    sequences: list[TrainingSequence]
    left_out: int = 0
    skipped: int = 0


def messages(example: Example, mode: Mode) -> list[dict[str, str]]:
    """Returns the chat that asks a model about `example`."""
    given = f"\n{ANSWER_MARK} {example.gold}" if mode == "explain" else ""
    system = system_message(example.task, labels_of(example), mode)
    return [
        {"role": "system", "content": with_budget(system, example.budget)},
        {"role": "user", "content": example.question + given},
    ]


def with_budget(system: str, budget: int) -> str:
    """Returns a system message with the sentence that states a budget of thinking tokens.

    Everything that states a budget uses it: training data, tests, chat and exported models.

    Args:
      system: the message; may be empty.
      budget: the most thinking tokens; 0 adds nothing.
    """
    if not budget:
        return system
    return f"{system} Think for at most {budget} tokens.".strip()


def system_message(task: Task, labels: Sequence[str], mode: Mode) -> str:
    """Returns the system message: the task, its labels, and what to write.

    Args:
      task: the task of the data; if it is empty, the labels are left out too.
      labels: the closed set of answers; empty if the answers are not labels.
      mode: whether to reason, to answer or to explain.
    """
    return "\n\n".join([*task_paragraphs(task, labels), INSTRUCTIONS[mode]])


def system_message_of(data: DataConfig, mode: Mode) -> str:
    """Returns the system message of a dataset; labels that rows list themselves are left out."""
    labels = data.choices if data.kind == "label" else ()
    return system_message(read_task(data), labels, mode)


def task_paragraphs(task: Task, labels: Sequence[str]) -> list[str]:
    """Returns the paragraphs of the task: the instruction and the labels."""
    parts = [task.instruction] if task.instruction else []
    if labels and task.is_said:
        parts.append(f"The answer is one of these labels:\n{list_labels(task, labels)}")
    return parts


def list_labels(task: Task, labels: Sequence[str]) -> str:
    """Returns the labels, one per line, each with its description if it has one."""
    described = task.label_descriptions
    return "\n".join(
        f"- {label}: {described[label]}" if label in described else f"- {label}" for label in labels
    )


def labels_of(example: Example) -> tuple[str, ...]:
    """Returns the closed set of labels of an example; options of a choice are in its question."""
    return example.choices if example.kind == "label" else ()


def hides_choices(example: Example) -> bool:
    """Returns whether a label or option is stated neither in the task nor in the question."""
    if labels_of(example) and example.task.is_said:
        return False
    question = example.question.casefold()
    return not all(choice.casefold() in question for choice in example.choices)


def instruction_sequence(tokenizer: Tokenizer, question: str, answer: str) -> TrainingSequence:
    """Returns a generic instruction as a sequence: the user's turn, and the answer verbatim.

    It has no system message, except one that the chat template itself adds.
    """
    prompt = tokenizer.render_chat([{"role": "user", "content": question}])
    return TrainingSequence(prompt, [], [*tokenizer.encode(answer), tokenizer.end_id])


def draw_instructions(
    rows: Iterable[tuple[str, str]], tokenizer: Tokenizer, count: int, longest: int
) -> DrawnInstructions:
    """Returns the first `count` (question, answer) pairs of at most `longest` tokens, or fewer."""
    found: list[TrainingSequence] = []
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
      UserError: the prompt is longer, and `on_long` is "error" (other values cut the question); or
        it is too long even with an empty question.
    """
    ids = tokenizer.render_chat(messages(example, mode))
    excess = len(ids) - max_tokens
    if excess <= 0:
        return ids
    empty = dataclasses.replace(example, question="")
    rest = len(tokenizer.render_chat(messages(empty, mode)))
    of_task = _of_task(tokenizer, example)
    no_room = UserError(
        f"example {example.id!r}: its prompt needs {rest} tokens besides the question{of_task}, "
        f"but max_prompt_tokens is {max_tokens}; raise it"
        + (", or shorten the task" if of_task else "")
    )
    if rest >= max_tokens:
        raise no_room
    if on_long == "error":
        raise UserError(
            f"example {example.id!r}: its prompt has {len(ids)} tokens{of_task}, but "
            f"max_prompt_tokens is {max_tokens}; raise it, or cut long questions with "
            "--config.on_long_prompt=cut_end, cut_beginning or cut_middle"
        )
    question = tokenizer.encode(example.question)
    # Re-tokenizing the cut text may give more tokens, so cut until the rendered chat fits.
    while len(ids) > max_tokens and excess < len(question):
        shorter = dataclasses.replace(example, question=_cut(tokenizer, question, excess, on_long))
        ids = tokenizer.render_chat(messages(shorter, mode))
        excess += max(1, len(ids) - max_tokens)
    if len(ids) > max_tokens:
        raise no_room
    return ids


def _cut(tokenizer: Tokenizer, ids: list[int], excess: int, how: str) -> str:
    """Returns the text of a question without `excess` of its tokens.

    A character that the cut splits is dropped.
    """
    kept = len(ids) - excess
    before = {"cut_end": kept, "cut_middle": (kept + 1) // 2, "cut_beginning": 0}[how]
    begin = tokenizer.decode(ids[:before]).rstrip(_PARTIAL)
    end = tokenizer.decode(ids[len(ids) - (kept - before) :]).lstrip(_PARTIAL)
    return f"{begin}{_GAP}{end}" if begin and end else begin or end


def _of_task(tokenizer: Tokenizer, example: Example) -> str:
    """Returns a remark on the token count of the task; "" if there is no task."""
    parts = task_paragraphs(example.task, labels_of(example))
    if not parts:
        return ""
    tokens = len(tokenizer.encode("\n\n".join(parts)))
    return f" ({tokens} of them for the instruction and the labels)"


def training_sequence(
    tokenizer: Tokenizer, prompt: list[int], rationale: str | None, answer: str
) -> TrainingSequence:
    """Returns prompt, rationale and answer as one sequence; the rationale may be None or empty."""
    reasoning, final = format_completion(rationale or "", answer)
    return TrainingSequence(
        prompt, tokenizer.encode(reasoning), [*tokenizer.encode(final), tokenizer.end_id]
    )
