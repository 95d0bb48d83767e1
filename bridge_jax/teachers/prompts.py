"""What a teacher behind an API is told. Whoever wants other words changes them here.

The answer's form is named per kind of task, so that a right answer parses. Whether the gold answer
is shown is an option. The papers do not say that it is, so by default it is not: then an answer
that agrees with gold says something about the rationale.
"""

from bridge_jax.tasks.answers import ANSWER_MARK
from bridge_jax.tasks.example import AnswerKind, Example
from bridge_jax.teachers.protocol import Message

TASK = (
    "You show a much smaller model how to reason. Answer the user's question. Reason in a few "
    "short plain sentences, each of which follows from the question or from those before it."
)

ANSWER: dict[AnswerKind, str] = {
    "label": "The answer is exactly one of: {choices}.",
    "choice": "The answer is the text of one of the options, word for word: {choices}.",
    "numeric": "The answer is one number in digits, without a unit.",
    "text": "The answer is a short text on one line.",
}

COMMA = " The comma is the decimal mark: 1,5 is one and a half."

IN_TEXT = (
    f'Write the reasoning first. The last line is "{ANSWER_MARK} " and the answer, nothing more.'
)
IN_JSON = (
    'Reply with one JSON object: "rationale" is the reasoning, and after it "answer" is the answer '
    "alone."
)

GOLD = (
    "{question}\n\nThe answer is known: {gold}. Write the reasoning that leads to it, as if you "
    "had not been told."
)


def messages(example: Example, show_gold: bool, structured: bool) -> tuple[Message, ...]:
    """Returns the chat that asks an API teacher about `example`."""
    form = ANSWER[example.kind].format(choices=", ".join(example.choices))
    if example.kind == "numeric" and example.decimal == ",":
        form += COMMA
    system = " ".join((TASK, form, IN_JSON if structured else IN_TEXT))
    question = example.question
    if show_gold:
        question = GOLD.format(question=question, gold=example.answer)
    return Message("system", system), Message("user", question)
