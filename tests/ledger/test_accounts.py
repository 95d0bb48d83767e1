"""Runs that share a ledger: answers are free for all, caps are each run's own."""

import json
import shutil

import pytest
from fake_teacher import PRICES, USED_USD, FakeTeacher, ask

from bridge_jax.config import BudgetConfig
from bridge_jax.errors import UserError
from bridge_jax.ledger.accounts import Account, account_of, open_ledger
from bridge_jax.ledger.prices import BudgetExceeded, Spend
from bridge_jax.teachers.annotate import annotate


@pytest.fixture
def shared(tmp_path):
    return tmp_path / "shared.sqlite"


@pytest.fixture
def teacher(tmp_path):
    return FakeTeacher(tmp_path / "calls")


def open_run(workdir, ledger="", queries=10, usd=1.0):
    workdir.mkdir(exist_ok=True)
    return open_ledger(workdir, BudgetConfig(queries, usd, str(ledger)), PRICES, local=False)


def requests(*numbers):
    return [ask(number) for number in numbers]


def test_by_default_a_run_has_a_ledger_of_its_own(tmp_path):
    workdir = tmp_path / "a"
    with open_run(workdir) as ledger:
        assert ledger.path == workdir / "ledger.sqlite"
    assert not (workdir / "account.json").exists()
    assert account_of(workdir) == Account(workdir / "ledger.sqlite", "")
    with open_run(workdir, workdir / "ledger.sqlite") as ledger:  # the same, said aloud
        assert ledger.run == ""


def test_answers_of_another_run_are_free_and_count_nothing(tmp_path, shared, teacher):
    with open_run(tmp_path / "a", shared, queries=4) as ledger:
        first = annotate(teacher, ledger, requests(1, 2, 3, 4), 2)
        assert ledger.bill().keys() == {"queries", "input_tokens", "output_tokens", "usd"}
        of_a = ledger.spend()
    with open_run(tmp_path / "b", shared, queries=2, usd=2 * 0.001) as ledger:
        assert annotate(teacher, ledger, requests(1, 2, 3, 4), 2) == first
        assert ledger.spend() == Spend(0, 0, 0, 0)
        annotate(teacher, ledger, requests(3, 4, 5, 6), 1)
        with pytest.raises(BudgetExceeded, match=r"budget\.queries=2 .* on 2 answers"):
            ledger.reserve(ask(7), 100)
        bill = ledger.bill()
        assert (bill["queries"], bill["usd"]) == (2, pytest.approx(2 * USED_USD))
        paid = of_a.to_json()
        assert bill["of_others"] == paid | {"usd": pytest.approx(4 * USED_USD)}
        assert paid["queries"] == 4 and paid["input_tokens"] > 0 < paid["output_tokens"]
    assert sorted(teacher.asked()) == ["e1", "e2", "e3", "e4", "e5", "e6"]
    with open_run(tmp_path / "a", shared) as ledger:
        assert ledger.spend().queries == 4


def test_a_run_in_its_own_workdir_and_one_that_shares_that_ledger(tmp_path, teacher):
    with open_run(tmp_path / "a") as ledger:
        annotate(teacher, ledger, requests(1, 2), 2)
    with open_run(tmp_path / "b", tmp_path / "a" / "ledger.sqlite", queries=1) as ledger:
        annotate(teacher, ledger, requests(1, 2, 3), 2)
    with open_run(tmp_path / "a", queries=3) as ledger:
        assert ledger.spend().queries == 2
        assert ledger.reserve(ask(3), 100).text == "reply to question 3"
        assert ledger.reserve(ask(4), 100) is None


def test_a_run_that_is_moved_keeps_what_it_has_paid(tmp_path, shared, teacher):
    with open_run(tmp_path / "a", shared, queries=2) as ledger:
        annotate(teacher, ledger, requests(1, 2), 2)
    (tmp_path / "a").rename(tmp_path / "moved")
    shared.rename(tmp_path / "moved.sqlite")
    with open_run(tmp_path / "moved", tmp_path / "moved.sqlite", queries=2) as ledger:
        assert ledger.spend().queries == 2
        with pytest.raises(BudgetExceeded):
            ledger.reserve(ask(3), 100)
    assert account_of(tmp_path / "moved").ledger == tmp_path / "moved.sqlite"


def test_the_ledger_of_a_run_cannot_be_changed_to_begin_anew(tmp_path, shared):
    with open_run(tmp_path / "own"):
        pass
    with pytest.raises(UserError, match=r"has already paid from .*own/ledger\.sqlite, and"):
        open_run(tmp_path / "own", shared)
    with open_run(tmp_path / "a", shared):
        pass
    message = r"budget\.ledger=\(empty\): .*has already paid from .*shared\.sqlite, and"
    with pytest.raises(UserError, match=message):
        open_run(tmp_path / "a")
    other = tmp_path / "other.sqlite"
    for _ in range(2):
        with pytest.raises(UserError, match=rf"other\.sqlite: .*pass --budget.ledger={shared}"):
            open_run(tmp_path / "a", other)
        other.unlink()
    assert account_of(tmp_path / "a").ledger == shared


def test_caps_do_not_begin_anew_when_the_account_is_deleted(tmp_path, shared, teacher, caplog):
    with open_run(tmp_path / "a", shared, queries=2) as ledger:
        annotate(teacher, ledger, requests(1, 2), 2)
        before = ledger.run
    with open_run(tmp_path / "b", shared) as ledger:
        assert ledger.run != before  # another workdir is another account
    caplog.clear()
    for _ in range(2):
        (tmp_path / "a" / "account.json").unlink()
        with open_run(tmp_path / "a", shared, queries=2) as ledger:
            assert (ledger.run, ledger.spend().queries) == (before, 2)
            with pytest.raises(BudgetExceeded, match=r"budget\.queries=2 is reached"):
                ledger.reserve(ask(3), 100)
    assert account_of(tmp_path / "a") == Account(shared, before)
    assert [m.partition(" is missing, but ")[2] for m in caplog.messages] == [
        f"{shared} knows the run in this workdir: continuing with that account, and what it "
        "has paid counts towards its caps"
    ] * 2


def test_caps_do_not_begin_anew_when_the_whole_workdir_is_deleted(tmp_path, shared, teacher):
    with open_run(tmp_path / "a", shared, usd=2 * 0.001) as ledger:
        annotate(teacher, ledger, requests(1, 2), 1)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")  # the same place by another name
    (tmp_path / "a").mkdir()
    with open_run(tmp_path / "link", shared, usd=2 * 0.001) as ledger:
        assert ledger.spend().usd == pytest.approx(2 * USED_USD)
        with pytest.raises(BudgetExceeded, match=r"spent 0\.001200"):
            ledger.reserve(ask(3), 100)


def test_a_copy_of_a_workdir_goes_on_with_the_same_account(tmp_path, shared, teacher):
    with open_run(tmp_path / "a", shared, queries=2) as ledger:
        annotate(teacher, ledger, requests(1), 1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with open_run(tmp_path / "b", shared, queries=2) as ledger:
        ledger.reserve(ask(2), 100)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(ask(3), 100)


def test_a_damaged_account_is_no_new_one(tmp_path, shared):
    with open_run(tmp_path / "a", shared):
        pass
    account = tmp_path / "a" / "account.json"
    for text in (
        *("", "{}", "[]", "[1]", "null", json.dumps({"ledger": 3}), "[" * 100_000),
        *(json.dumps({"ledger": str(shared), "run": run}) for run in (3, None, "", ["a"])),
        json.dumps({"ledger": 3, "run": "a"}),
    ):
        account.write_text(text)
        with pytest.raises(UserError, match=r"account\.json: damaged"):
            open_run(tmp_path / "a", shared)
