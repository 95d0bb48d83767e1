"""Teachers whose replies are in the data: the program behind practice tasks, and recorded LLMs.

Nothing is sent anywhere. Tokens are counted, so that budgets and prices are those of a real run.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from bridge_jax.data.answers import answer_in_recorded_text, format_completion
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.teachers.protocol import Reply, Request


@dataclasses.dataclass(frozen=True)
class RecordedTeacher:
    """A teacher that looks its reply up by `Request.example_id`.

    The variant is not in a request's key: put it into `Request.model`, or the ledger takes two
    variants of one question for the same request.

    Attributes:
      name: kind and variant.
      examples: by id.
      variant: which of `Example.rationales` it says.
      reply_text: from an example and its recorded text to the reply.
      count_tokens: stands in for the vendor's tokenizer.
    """

    name: str
    examples: Mapping[str, Example]
    variant: str
    reply_text: Callable[[Example, str], str]
    count_tokens: Callable[[str], int]

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns the exact count: what `ask` bills."""
        return sum(self.count_tokens(message.content) for message in request.messages)

    async def ask(self, request: Request) -> Reply:
        """Returns what is recorded.

        Raises:
          UserError: nothing is recorded, or it is longer than `max_output_tokens`.
        """
        example = self.examples.get(request.example_id)
        if example is None:
            raise UserError(f"teacher {self.name}: no example with id {request.example_id!r}")
        if self.variant not in example.rationales:
            raise UserError(
                f"teacher {self.name}: example {example.id!r} has no rationale "
                f"{self.variant!r}; it has {', '.join(sorted(example.rationales)) or 'none'}"
            )
        text = self.reply_text(example, example.rationales[self.variant])
        output_tokens = self.count_tokens(text)
        if output_tokens > request.max_output_tokens:
            raise UserError(
                f"teacher {self.name}: the reply about example {example.id!r} has {output_tokens} "
                f"tokens, above teacher.max_output_tokens={request.max_output_tokens}; raise it"
            )
        return Reply(text, self.estimate_input_tokens(request), output_tokens)

    async def aclose(self) -> None:
        """Does nothing: there are no connections."""


def oracle(
    examples: Iterable[Example], variant: str, count_tokens: Callable[[str], int]
) -> RecordedTeacher:
    """Returns the program behind practice tasks: always right, in the variant's words."""

    def reply_text(example: Example, rationale: str) -> str:
        return "".join(format_completion(rationale, example.answer))

    by_id = {example.id: example for example in examples}
    return RecordedTeacher(f"oracle/{variant}", by_id, variant, reply_text, count_tokens)


def recorded_llm(
    examples: Iterable[Example], variant: str, count_tokens: Callable[[str], int]
) -> RecordedTeacher:
    """Returns a teacher that says what an LLM once said, its mistakes included.

    The chain's own final answer is put into our format; a chain without one is left as it is.
    """

    def reply_text(example: Example, recorded: str) -> str:
        rationale, answer = answer_in_recorded_text(recorded, example)
        return recorded if answer is None else "".join(format_completion(rationale, answer))

    by_id = {example.id: example for example in examples}
    return RecordedTeacher(f"replay/{variant}", by_id, variant, reply_text, count_tokens)
