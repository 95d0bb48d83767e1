import asyncio

import pytest

from bridge_jax.data.answers import answer_of, is_correct
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import Message, Request
from bridge_jax.teachers.recorded import oracle, recorded_llm

NUMERIC = Example(
    "dose-1",
    "A dose of 5 mg/kg for 8 kg?",
    "40",
    "numeric",
    rationales={
        "short": "5 * 8 = 40.",
        "long": "The weight is 8 kg. 5 * 8 = 40.",
        "wrong": "5 + 8 = 13. Therefore, the answer is 13.",
    },
)
CHOICE = Example(
    "law-1",
    "Is it void?",
    "yes",
    "choice",
    ("yes", "no"),
    rationales={"wrong": "It was signed. The answer is no.", "mute": "It is hard to say."},
)
EXAMPLES = (NUMERIC, CHOICE)


def words(text: str) -> int:
    return len(text.split())


def request(example: Example, limit: int = 50) -> Request:
    messages = (Message("system", "Think first."), Message("user", example.question))
    return Request(example.id, "m", messages, limit)


def test_oracle_says_the_rationale_and_the_gold_answer():
    teacher = oracle(EXAMPLES, "short", words)
    reply = asyncio.run(teacher.ask(request(NUMERIC)))
    assert reply.text == "5 * 8 = 40.\nAnswer: 40"
    assert (reply.input_tokens, reply.output_tokens) == (2 + 8, 7)
    assert teacher.estimate_input_tokens(request(NUMERIC)) == 10
    assert teacher.name == "oracle/short"


@pytest.mark.parametrize(
    ("example", "text"),
    [(NUMERIC, "5 + 8 = 13.\nAnswer: 13"), (CHOICE, "It was signed.\nAnswer: no")],
)
def test_replay_leaves_a_wrong_answer_wrong(example, text):
    reply = asyncio.run(recorded_llm(EXAMPLES, "wrong", words).ask(request(example)))
    assert reply.text == text
    assert not is_correct(answer_of(reply.text, example), example)


def test_replay_leaves_a_chain_without_an_answer_as_it_is():
    reply = asyncio.run(recorded_llm(EXAMPLES, "mute", words).ask(request(CHOICE)))
    assert reply.text == "It is hard to say."
    assert answer_of(reply.text, CHOICE) is None


def test_a_missing_variant_is_named_with_those_there_are():
    message = "replay/short.*'law-1' has no rationale 'short'; it has mute, wrong"
    with pytest.raises(UserError, match=message):
        asyncio.run(recorded_llm(EXAMPLES, "short", words).ask(request(CHOICE)))
    with pytest.raises(UserError, match="no example with id 'dose-1'"):
        asyncio.run(oracle([CHOICE], "short", words).ask(request(NUMERIC)))


def test_a_reply_above_the_limit_is_an_error():
    with pytest.raises(UserError, match=r"has 7 tokens, above teacher\.max_output_tokens=6"):
        asyncio.run(oracle(EXAMPLES, "short", words).ask(request(NUMERIC, limit=6)))
