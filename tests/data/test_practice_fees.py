import collections
import re

import pytest

from bridge_jax.data.practice import fees, generate
from bridge_jax.errors import UserError

QUESTION = re.compile(r"What is the fee of (\d x \w+(?:, \d x \w+)*)\?")
STEP = re.compile(r"A (\w+) is (\d) and (\d): (\d)\*(\d)=(\d+), (\d+)\+(\d)=(\d+)\.")
SUM = re.compile(r"(?<=\. )(\d+)\+(\d+)=(\d+)\.")


@pytest.fixture(scope="module")
def pool():
    return generate(0, 300, 1, 1, ("fees",), 1, 4).pool


def test_each_step_of_a_rationale_holds_and_the_last_one_is_the_answer(pool):
    tariff = {}
    for example in pool:
        found = QUESTION.fullmatch(example.question)
        assert found, example.question
        asked = [each.split(" x ") for each in found[1].split(", ")]
        text, total = example.rationales["medium"], 0
        steps, sums = STEP.findall(text), SUM.findall(text)
        assert len(sums) == len(steps) - 1
        for i, (kind, price, surcharge, pieces, again, product, left, right, sum_) in enumerate(
            steps
        ):
            assert [pieces, kind] == asked[i]
            assert (again, left, right) == (price, product, surcharge)
            assert int(product) == int(pieces) * int(price)
            assert int(sum_) == int(product) + int(surcharge)
            assert tariff.setdefault(kind, (price, surcharge)) == (price, surcharge)
            if i:
                assert sums[i - 1] == (str(total), sum_, str(total + int(sum_)))
            total += int(sum_)
        assert example.answer == str(total)
    assert set(tariff) == set(fees.KINDS)


def test_a_question_of_two_services_by_hand():
    rules = {"loan": fees.Fee(4, 2), "card": fees.Fee(5, 1)}

    class Rng:
        drawn = iter(["loan", "card", 3, 2])

        def random(self):
            return 1.0

        def choice(self, _):
            return next(self.drawn)

    problem = fees.draw(Rng(), 2, rules)
    assert problem.question == "What is the fee of 3 x loan, 2 x card?"
    assert problem.answer == "25"
    assert problem.rationales["short"] == "Loan 4 and 2, 14; card 5 and 1, 11, 14+11=25."
    assert problem.rationales["medium"] == (
        "A loan is 4 and 2: 3*4=12, 12+2=14. A card is 5 and 1: 2*5=10, 10+1=11. 14+11=25."
    )


def test_fees_are_drawn_by_seed_about_as_often_each():
    first, other = fees.tariff(0), fees.tariff(1)
    assert first != other == fees.tariff(1)
    counts = collections.Counter(first.values())
    assert len(counts) == 25 and set(counts.values()) <= {1, 2}
    assert list(fees.tariff(0, families=5)) == list(fees.KINDS[:5])


def test_no_kind_is_named_twice():
    with pytest.raises(UserError, match="families=3: no question names a kind of item twice"):
        generate(0, 5, 1, 1, ("fees",), 1, 4, families=3)
