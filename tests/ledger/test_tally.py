from bridge_jax.ledger.tally import Tally, alike
from bridge_jax.teachers.protocol import Failure, Reply


def test_answered_failed_and_refused_are_counted_apart():
    tally = Tally()
    tally.add(Reply("4", 1, 1), 2)
    tally.add(Reply("", 1, 1, "length"))
    tally.add(Failure("given up: 503"))
    tally.add(Failure("400: 8193 tokens are too many", "refused"), 2)
    tally.add(Failure("400: 9001 tokens are too many", "refused"))
    tally.add(Failure("not asked: budget", "not_asked"))
    assert tally.info() == {
        **{"answered": 2, "no_answer": 1, "failed": 1, "refused": 3, "not_asked": 1}
    }
    assert tally.replies == 3
    assert tally.failures() == (
        "1 no answer, 1 failed, 3 refused, 1 not asked; the commonest reason (3x): "
        "400: 8193 tokens are too many"
    )


def test_nothing_is_said_where_all_is_answered():
    tally = Tally()
    assert (tally.info(), tally.failures()) == ({"answered": 0}, "")
    tally.add(Reply("4", 1, 1))
    assert (tally.info(), tally.failures()) == ({"answered": 1}, "")


def test_reasons_that_differ_in_numbers_are_alike():
    assert alike("400: 8193 tokens in e17") == alike("400: 12 tokens in e5")
    assert alike("400: too long") != alike("400: too short")
