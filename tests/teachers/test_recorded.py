"""Replies that are recorded: in the examples, in a ledger, in a JSONL file."""

import asyncio
import dataclasses
import hashlib
import json

import pytest
from fake_teacher import PRICES, FakeTeacher, ask

from bridge_jax.data.answers import answer_of, is_correct, parse_answer, split_completion
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.requests import Failure, Message, TeacherReply, TeacherRequest
from bridge_jax.teachers.annotate import annotate
from bridge_jax.teachers.protocol import TeacherError
from bridge_jax.teachers.recorded import digest, from_examples, open_replay, recorded_model

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


def request(example: Example, limit: int = 50) -> TeacherRequest:
    messages = (Message("system", "Think first."), Message("user", example.question))
    return TeacherRequest(example.id, "m", messages, limit)


def test_oracle_says_the_rationale_and_the_gold_answer():
    teacher = from_examples("oracle", EXAMPLES, "short", words)
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
    reply = asyncio.run(from_examples("replay", EXAMPLES, "wrong", words).ask(request(example)))
    assert reply.text == text
    assert not is_correct(answer_of(reply.text, example), example)


def test_replay_leaves_a_chain_without_an_answer_as_it_is():
    reply = asyncio.run(from_examples("replay", EXAMPLES, "mute", words).ask(request(CHOICE)))
    assert reply.text == "It is hard to say."
    assert answer_of(reply.text, CHOICE) is None


def test_a_missing_variant_is_named_with_those_there_are():
    message = "replay/short.*'law-1' has no rationale 'short'; it has mute, wrong"
    with pytest.raises(UserError, match=message):
        asyncio.run(from_examples("replay", EXAMPLES, "short", words).ask(request(CHOICE)))
    with pytest.raises(UserError, match="no example with id 'dose-1'"):
        asyncio.run(from_examples("oracle", [CHOICE], "short", words).ask(request(NUMERIC)))


def test_a_reply_above_the_limit_is_an_error():
    with pytest.raises(UserError, match=r"has 7 tokens, above teacher\.max_output_tokens=6"):
        asyncio.run(
            from_examples("oracle", EXAMPLES, "short", words).ask(request(NUMERIC, limit=6))
        )


@pytest.fixture
def recorded(tmp_path):
    """Eight answers, a refusal, and one that was cut off."""
    path = tmp_path / "recorded.sqlite"
    with Ledger(path, 99, 1.0, PRICES) as ledger:
        annotate(FakeTeacher(tmp_path / "calls"), ledger, [ask(n) for n in range(8)], 4)
        ledger.reserve(ask(8), 100)
        ledger.settle(ask(8), TeacherReply("", 77, 3, "refused"))
        ledger.reserve(ask(9), 100)
        ledger.abandon(ask(9))
    return path


def rows_file(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_a_ledger_says_again_what_was_said_at_the_same_cost(recorded, tmp_path):
    teacher = open_replay(recorded, words)
    requests = [ask(n) for n in (3, 8, 9, 0, 11)]
    with Ledger(tmp_path / "again.sqlite", 99, 1.0, PRICES, local=True) as ledger:
        replies = annotate(teacher, ledger, requests, 3)
        assert ledger.bill() == {
            "queries": 3,
            "input_tokens": 277,
            "output_tokens": 103,
            "usd": 0.001307,
            "no_answer": {"refused": 1},
        }
    assert replies[0] == TeacherReply("reply to question 3", 100, 50)
    assert replies[1] == TeacherReply("", 77, 3, "refused")
    assert isinstance(replies[2], Failure) and "was cut off" in replies[2].reason
    assert replies[3] == TeacherReply("reply to question 0", 100, 50)
    assert isinstance(replies[4], Failure) and "had none either" in replies[4].reason
    assert recorded_model(recorded, "fake-1") == "fake-1"


def test_another_model_or_other_words_are_a_mistake(recorded):
    teacher = open_replay(recorded, words)
    with pytest.raises(TeacherError, match=r"'e1' by gpt; the ledger has fake-1: set teacher\."):
        asyncio.run(teacher.ask(dataclasses.replace(ask(1), model="gpt")))
    with pytest.raises(TeacherError, match="use the config of the recorded run") as caught:
        asyncio.run(teacher.ask(dataclasses.replace(ask(1), max_output_tokens=91)))
    assert caught.value.trouble == "fatal"


@pytest.mark.parametrize(
    ("said", "row"),
    [
        ("5 * 8 = 40.\nAnswer: 40", {"rationale": "5 * 8 = 40.", "answer": "40"}),
        ("It is hard to say.", {"rationale": "It is hard to say.", "answer": None}),
        (
            "Answer: 3? No.\nAnswer: who knows",
            {"rationale": "Answer: 3? No.", "answer": None},
        ),
        (
            "**Final answer:** 3? No.\nANSWER: who knows",
            {"rationale": "**Final answer:** 3? No.", "answer": None},
        ),
    ],
)
def test_rows_of_annotations_are_read_as_they_were(tmp_path, said, row):
    example = Example("e1", "How much?", "40", "numeric")
    path = rows_file(tmp_path / "annotations.jsonl", {"id": "e1", "gold": "40"} | row)
    text = asyncio.run(open_replay(path, words).ask(ask(1))).text
    for completion in (said, text):
        rationale, written = split_completion(completion)
        assert rationale == row["rationale"]
        assert parse_answer(written, example) == row["answer"]


def test_rows_say_their_tokens_or_they_are_counted(tmp_path):
    path = rows_file(
        tmp_path / "replies.jsonl",
        {"id": "e1", "reply": "one two\u2028three"},
        {"id": "e2", "reply": "", "input_tokens": 9, "output_tokens": 4, "finish": "empty"},
        {"id": "e1", "reply": "the second sample"},
    )
    teacher = open_replay(path, words)
    assert asyncio.run(teacher.ask(ask(1))) == TeacherReply("one two\u2028three", 2, 3)
    assert teacher.estimate_input_tokens(ask(1)) == 2
    assert asyncio.run(teacher.ask(ask(2))) == TeacherReply("", 9, 4, "empty")
    assert (
        asyncio.run(teacher.ask(dataclasses.replace(ask(1), sample=1))).text == "the second sample"
    )
    with pytest.raises(TeacherError, match="no answer 3 about example 'e1'") as caught:
        asyncio.run(teacher.ask(dataclasses.replace(ask(1), sample=2)))
    assert caught.value.trouble == "rejected"
    with pytest.raises(TeacherError, match=r"has 3 tokens, above teacher\.max_output_tokens=2"):
        asyncio.run(teacher.ask(dataclasses.replace(ask(1), max_output_tokens=2)))


def test_a_file_of_rows_is_another_model_to_the_ledger(tmp_path):
    one = rows_file(tmp_path / "one.jsonl", {"id": "e1", "reply": "a"})
    two = rows_file(tmp_path / "two.jsonl", {"id": "e1", "reply": "b"})
    copy = rows_file(tmp_path / "copy.jsonl", {"id": "e1", "reply": "a"})
    names = [recorded_model(path, "gpt") for path in (one, two, copy)]
    assert names[0].startswith("gpt@") and names[0] == names[2] != names[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not JSON", r"rows\.jsonl: row 1: neither a ledger nor JSONL"),
        ('{"reply": "x"}', "row 1: has no id"),
        ('{"id": "e1"}', "row 1: has neither reply nor rationale"),
        ('{"id": "e1", "reply": "x", "finish": "done"}', "finish=done: must be one of stop"),
        ('{"id": "e1", "reply": "x", "output_tokens": -5}', "row 1: output_tokens=-5: must"),
        ('{"id": "e1", "reply": "x", "input_tokens": 2.5}', "row 1: input_tokens=2.5: must"),
        (
            '{"id": "e1", "reply": "x", "input_tokens": "7"}',
            "row 1: input_tokens=7: must be a whole",
        ),
        ('{"id": "e1", "x": ' + "1" * 5000 + "}", "row 1: has neither reply nor rationale"),
        ("[" * 100_000, "row 1: neither a ledger nor JSONL .*100 levels"),
    ],
)
def test_bad_rows_are_named(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        open_replay(path, words)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"teacher\.replay_from=.*none: No such file"):
        open_replay(tmp_path / "none", words)


def test_the_digest_of_a_ledger_is_that_of_its_answers(recorded, tmp_path):
    before, written = digest(recorded), recorded.read_bytes()
    with Ledger(recorded, 99, 1.0, PRICES) as ledger:
        ledger.register("opened once more")  # another page, the same answers
    assert recorded.read_bytes() != written
    assert digest(recorded) == before
    with Ledger(recorded, 99, 1.0, PRICES) as ledger:
        annotate(FakeTeacher(tmp_path / "calls"), ledger, [ask(20)], 1)
    assert digest(recorded) != before


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    file = rows_file(tmp_path / "a.jsonl", {"id": "e0", "reply": "4"})
    assert digest(file) == hashlib.sha256(file.read_bytes()).hexdigest()
