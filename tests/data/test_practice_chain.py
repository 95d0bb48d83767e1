import random

import pytest

from bridge_jax.data.practice import CHAINS, generate
from bridge_jax.data.practice.chain import Chain, Link, draw, excerpts
from bridge_jax.errors import UserError


def test_a_chain_by_hand():
    """One possible outcome: 6 kg x 5 mg = 30 mg, 30 / 10 = 3 mL."""
    chain = Chain(
        "hand",
        ("the weight", "kg", (6,)),
        ("{p} weighs {n} kg.",),
        (
            Link(
                ("the dose", "x", (5,), "mg"), ("Give {n} mg/kg.",), "each kg needs {n} mg", ("?",)
            ),
            Link(
                ("the volume", "/", (10,), "mL"),
                ("It has {n} mg/mL.",),
                "each mL holds {n} mg",
                ("How many mL is that?",),
            ),
        ),
    )
    assert [excerpt.steps for excerpt in excerpts((chain,), 1)] == [
        1
    ]  # the second start is not told
    problem = draw(random.Random(0), excerpts((chain,), 2)[0], {"p": ("Ana",)})
    assert problem is not None
    assert (
        problem.question == "Ana weighs 6 kg. Give 5 mg/kg. It has 10 mg/mL. How many mL is that?"
    )
    assert problem.answer == "3"
    assert problem.values == (6, 30, 3)
    assert problem.rationales == {
        "short": "6 x 5 = 30. 30 / 10 = 3.",
        "medium": "The dose is 6 x 5 = 30 mg. The volume is 30 / 10 = 3 mL.",
        "long": "We start from the weight, 6 kg, and look for the volume. Each kg needs 5 mg, so "
        "the dose is 6 x 5 = 30 mg. Each mL holds 10 mg, so the volume is 30 / 10 = 3 mL.",
    }


def fixed(op, *operands):
    facts, asks = ("Take {n}.",), ("How many is that?",)
    return Link(("it", op, operands, ""), facts, "{n} are taken", asks)


@pytest.mark.parametrize(
    ("op", "operand", "equation"),
    [
        ("prev+", 0, "300 + 15 = 315"),
        ("prev-", 0, "300 - 15 = 285"),
        ("n-", 40, "40 - 15 = 25"),
        ("n/", 60, "60 / 15 = 4"),
        ("-", 5, "15 - 5 = 10"),
    ],
)
def test_what_each_operation_computes(op, operand, equation):
    chain = Chain("hand", ("it", "", (300,)), ("{n}.",), (fixed("%", 5), fixed(op, operand)))
    problem = draw(random.Random(0), excerpts((chain,), 2)[0], {})
    assert problem is not None
    assert problem.rationales["short"] == f"5% of 300 = 15. {equation}."


def test_no_question_is_asked_twice_and_running_out_is_an_error(monkeypatch):
    chain = Chain("hand", ("it", "", (4,)), ("There are {n}.",), (fixed("x", 2, 3, 5),))
    monkeypatch.setitem(CHAINS, "dosing", (chain,))
    splits = generate(0, 2, 0, 1, ("dosing",), 1, 1)
    assert {row.answer for row in (*splits.pool, *splits.test)} == {"8", "12", "20"}
    with pytest.raises(UserError, match="no unseen dosing question with 1 steps after 3 examples"):
        generate(0, 3, 0, 1, ("dosing",), 1, 1)
