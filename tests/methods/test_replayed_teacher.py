"""An API's run repeated from its ledger: no key, no SDK, the same answers at the same bill."""

import dataclasses
import sys

import pytest

from bridge_jax.config import BudgetConfig, RunConfig, TeacherConfig
from bridge_jax.data.example import Example
from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.methods import teacher as asks
from bridge_jax.teachers.protocol import TeacherError
from bridge_jax.teachers.replies import annotation

EXAMPLES = [Example(f"e{n}", f"{n} + {n}?", str(2 * n), "numeric") for n in range(6)]
BUDGET = BudgetConfig(20, 1.0)
TEACHER = TeacherConfig(
    kind="openai", model="gpt-x", retries=1, attempts=2, usd_per_million_input=1.0
)


class Scripted:
    """Right, but: e1 only when asked again, e2 refuses, e3 is rejected, e4 is lost once."""

    name = "scripted"
    lost = False

    def estimate_input_tokens(self, request):
        return 40

    async def ask(self, request):
        number = int(request.example_id[1:])
        if number == 2:
            return TeacherReply("", 30, 2, "refused")
        if number == 3:
            raise TeacherError("400: too long", "rejected")
        if number == 4 and not self.lost:
            self.lost = True
            raise TeacherError("connection lost", "unknown")
        answer = 2 * number + (number == 1 and request.sample == 0)
        return TeacherReply(f"They add up.\nAnswer: {answer}", 30 + number, 9)

    async def aclose(self):
        pass


def count(text):
    return len(text.split())


def params(budget=BUDGET, **teacher):
    return asks.asking(RunConfig(budget=budget, teacher=dataclasses.replace(TEACHER, **teacher)))


def rows(outcomes):
    rules = asks.rules_of(TEACHER, count)
    return [annotation(e, said, rules) for e, said in zip(EXAMPLES, outcomes)]


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(asks, "make_teacher", lambda *_: Scripted())
        return asks.ask(params(), EXAMPLES, count, tmp_path)


def test_it_is_repeated_without_a_key(recorded, tmp_path, monkeypatch):
    outcomes, bill = recorded
    assert [row["kept"] for row in rows(outcomes)] == [True, True, False, False, True, True]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "openai", None)  # importing it is an error
    again = params(replay_from=str(tmp_path / "ledger.sqlite"))
    asks.check_key(again.teacher)
    replayed, its_bill = asks.ask(again, EXAMPLES, count, tmp_path / "again")
    for left, right in zip(rows(outcomes), rows(replayed)):
        if left["id"] == "e3":  # why it was rejected is not on the ledger
            left, right = (row | {"reason": None} for row in (left, right))
        assert left == right
    assert bill.pop("unknown")["queries"] == 1  # nobody bills a replay
    assert its_bill == bill
    assert [len(said) for said in replayed] == [len(said) for said in outcomes]


def test_the_answers_of_a_file_are_not_taken_for_those_of_the_model(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"id": "e0", "rationale": "They add up.", "answer": "0"}\n')
    shared = BudgetConfig(20, 1.0, str(tmp_path / "shared.sqlite"))
    replayed = params(shared, replay_from=str(file), retries=0)
    ((reply,),), _ = asks.ask(replayed, EXAMPLES[:1], count, tmp_path / "a")
    assert reply.text == "They add up.\nAnswer: 0"
    assert asks.make_request(replayed, EXAMPLES[0]).model.startswith("gpt-x@")
    assert asks.make_request(params(), EXAMPLES[0]).model == "gpt-x"
