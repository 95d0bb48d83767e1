import re

import pytest

from bridge_jax.data import answers, options
from bridge_jax.data.practice import CHAINS, generate
from bridge_jax.data.practice.chain import WEEKDAYS, excerpts
from bridge_jax.errors import UserError

DOMAINS = ("dosing", "deadlines", "fees")
LENGTHS = ("short", "medium", "long")
EQUATION = re.compile(r"(\d+) ([-+x/]) (\d+) = (\d+)|(\d+)% of (\d+) = (\d+)")
COMPARISON = re.compile(r"(\d+) (>|<|=|is more than|is less than|equals) (\d+)(?:,| and)")
WEEKDAY = re.compile(rf"(\d) days after ({'|'.join(WEEKDAYS)}) is (\w+)")


def everything(splits):
    return (*splits.pool, *splits.dev, *splits.test)


@pytest.fixture(scope="module", params=[0, 1, 2])
def splits(request):
    return generate(request.param, 600, 30, 150, DOMAINS, 1, 5)


def steps_of(example):
    """Counts the arithmetic of the short rationale without looking at how it was made."""
    return sum(example.rationales["short"].count(sign) for sign in (" = ", " > ", " < ", " after "))


def test_gold_answers_are_canonical_and_right(splits):
    for example in everything(splits):
        assert answers.parse_answer(example.answer, example) == example.answer
        assert answers.is_correct(example.answer, example)


def test_every_rationale_ends_in_the_answer(splits):
    for example in everything(splits):
        for length in LENGTHS:
            text = example.rationales[length]
            if example.kind == "label":
                last = re.split(r"(?<=\.) ", text)[-1]
                named = [label for label in example.choices if f"is {label}" in last]
                assert named == [example.answer] or last.endswith(f", {example.answer}.")
            else:
                assert re.findall(r"= (\d+)", text)[-1] == example.answer
            if example.kind == "numeric":
                assert answers.answer_in_recorded_text(text, example) == (text, example.answer)


def test_the_arithmetic_holds(splits):
    compute = {
        "x": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
    }
    signs = {">": ">", "is more than": ">", "<": "<", "is less than": "<"}
    checked = 0
    for example in everything(splits):
        for length in LENGTHS:
            text = example.rationales[length]
            for a, sign, b, c, rate, base, share in EQUATION.findall(text):
                checked += 1
                if rate:
                    assert int(rate) * int(base) == 100 * int(share)
                else:
                    assert compute[sign](int(a), int(b)) == int(c)
            for a, sign, b in COMPARISON.findall(text):
                checked += 1
                a, b = int(a), int(b)
                assert signs.get(sign, "=") == (">" if a > b else "<" if a < b else "=")
            for days, first, last in WEEKDAY.findall(text):
                checked += 1
                assert (WEEKDAYS.index(first) + int(days)) % 7 == WEEKDAYS.index(last)
    assert checked >= 3 * 2 * len(everything(splits))


def test_every_operand_is_in_the_question_or_computed(splits):
    common = {"7", "12", "5", "2"}  # days of a week, months, business days, eyes
    for example in everything(splits):
        text = example.rationales["short"]
        if "days after" in text:
            continue  # whole weeks are neither told nor computed
        known = set(re.findall(r"\d+", example.question.partition("\nA)")[0])) | common
        for equation in text.split(". "):
            left, _, right = equation.rstrip(".").partition(" = ")
            if not re.search(r" [<>] |, ", equation):
                if not re.search(r" - (7|14|21|28|35) = [1-6]$", equation.rstrip(".")):
                    assert set(re.findall(r"\d+", left)) <= known, (example.question, text)
                known.add(right)


def test_labels_agree_with_the_days_compared(splits):
    late = {"late", "too late", "expired", "rejected", "justified"}
    compared = 0
    for example in everything(splits):
        found = re.search(r"(\d+) ([<>=]) (\d+), (.+)\.$", example.rationales["short"])
        if found:
            compared += 1
            assert (found[2] == ">") == (found[4] in late)
    assert compared > 20


def test_rationales_differ_in_length(splits):
    means = {}
    for length in LENGTHS:
        counts = [len(example.rationales[length].split()) for example in everything(splits)]
        means[length] = sum(counts) / len(counts)
    assert 8 <= means["short"] <= 15
    assert 15 <= means["medium"] <= 40
    assert 40 <= means["long"] <= 90
    for example in everything(splits):
        short, medium, long = (len(example.rationales[length].split()) for length in LENGTHS)
        assert short < medium < long <= 100


def test_questions_are_short(splits):
    counts = [len(example.question.split()) for example in everything(splits)]
    assert 25 <= sum(counts) / len(counts) <= 45
    assert max(counts) <= 70


def test_splits_share_nothing_and_have_the_sizes_asked_for(splits):
    rows = everything(splits)
    assert (len(splits.pool), len(splits.dev), len(splits.test)) == (600, 30, 150)
    assert len({row.id for row in rows}) == len(rows)
    assert len({row.question for row in rows}) == len(rows)
    assert all(re.fullmatch(rf"practice-{row.domain}-\d{{5}}", row.id) for row in rows)


def test_steps_and_domains_are_uniform(splits):
    counts = {}
    for example in splits.test:
        key = (example.domain, steps_of(example))
        counts[key] = counts.get(key, 0) + 1
    assert counts == {(domain, steps): 10 for domain in DOMAINS for steps in range(1, 6)}


def test_kinds_make_guessing_hard(splits):
    rows = {domain: [row for row in splits.pool if row.domain == domain] for domain in DOMAINS}
    kinds = {domain: {row.kind for row in rows[domain]} for domain in DOMAINS}
    assert kinds["dosing"] == {"numeric"}
    assert kinds["deadlines"] == {"numeric", "label"}
    assert kinds["fees"] == {"numeric", "choice"}
    labels = sum(row.kind == "label" for row in rows["deadlines"])
    assert 0.25 <= labels / len(rows["deadlines"]) <= 0.55
    assert sum(row.kind == "numeric" for row in splits.pool) >= 0.6 * len(splits.pool)


def test_choices_are_four_and_listed(splits):
    chosen = [row for row in everything(splits) if row.kind == "choice"]
    assert {row.choices.index(row.answer) for row in chosen} == {0, 1, 2, 3}
    for row in chosen:
        assert len(set(row.choices)) == 4
        assert options.options_in(row.question) == row.choices


def test_wording_varies(splits):
    for domain in DOMAINS:
        links = [link for chain in CHAINS[domain] for link in chain.links]
        asks = {ask for link in links for ask in link.asks}
        assert len(asks) >= 30
        assert sum(len(excerpts(CHAINS[domain], steps)) for steps in range(1, 6)) >= 100
        masks = {re.sub(r"\d+", "#", row.question) for row in splits.pool if row.domain == domain}
        assert len(masks) >= 150


def test_chains_have_different_names():
    for chains in CHAINS.values():
        assert len({chain.name for chain in chains}) == len(chains)


def test_same_seed_same_examples():
    first, again = (generate(7, 40, 5, 10, DOMAINS, 1, 3) for _ in range(2))
    assert first == again
    assert generate(8, 40, 5, 10, DOMAINS, 1, 3).pool != first.pool


def test_test_does_not_change_with_the_pool():
    small, large = (generate(3, size, 5, 20, DOMAINS, 1, 5) for size in (10, 80))
    assert small.test == large.test
    assert [row.question for row in small.pool] == [row.question for row in large.pool[:10]]


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_step_knob(steps):
    rows = everything(generate(0, 60, 0, 30, DOMAINS, steps, steps))
    assert {steps_of(row) for row in rows} == {steps}


def test_one_domain():
    assert {row.domain for row in generate(0, 20, 0, 5, ("fees",), 1, 2).pool} == {"fees"}


@pytest.mark.parametrize(
    ("domains", "low", "high", "message"),
    [
        (("cooking",), 1, 5, "data.domains=cooking"),
        ((), 1, 5, "data.domains="),
        (DOMAINS, 0, 5, "data.min_steps=0"),
        (DOMAINS, 3, 2, "data.max_steps=2"),
        (DOMAINS, 1, 6, "data.max_steps=6"),
        (("fees", "triage"), 1, 4, "1 <= min <= max <= 3 for data.domains=fees,triage"),
    ],
)
def test_wrong_arguments(domains, low, high, message):
    with pytest.raises(UserError, match=re.escape(message)):
        generate(0, 5, 0, 5, domains, low, high)


def test_kinds_of_problem_that_all_take_fewer_steps_are_an_error():
    with pytest.raises(UserError, match="families=2: none of these kinds of deadlines takes 5"):
        generate(0, 5, 1, 1, ("deadlines",), 1, 5, families=2)
    assert len(generate(0, 5, 1, 1, ("deadlines",), 1, 4, families=2).pool) == 5
