"""Hosts that would not run the same are found before anything is trained or paid."""

import pytest

from bridge_jax.errors import UserError
from bridge_jax.methods import input_checks, inputs
from bridge_jax.parallel import hosts
from bridge_jax.pipeline.stages import Input
from tests.pipeline.toy_stages import Calls


class Inputs:
    """Inputs of two files."""

    def __init__(self):
        found = {"rows.jsonl": "aa", "same": "bb"}
        self.table = {inputs.POOL: Input(str, lambda: "x", lambda: found)}


@pytest.fixture
def stages(tmp_path):
    return [Calls(tmp_path).stage("p/first", "a", [inputs.POOL])]


def others(monkeypatch, *answers):
    """Lets `hosts.all_gather` find what the other hosts have, call by call."""
    left = list(answers)
    monkeypatch.setattr(hosts, "all_gather", lambda value: [value, *left.pop(0)])


ROWS, SAME = "rows.jsonl (data/pool)", "same (data/pool)"
DEEP = {"p/first": "1", "p/left": "2"}


def test_equal_hosts_may_run(stages, monkeypatch):
    others(monkeypatch, [DEEP, dict(DEEP)])
    input_checks.compare_hosts(stages, Inputs(), DEEP)


def test_another_file_is_named_with_its_host(stages, monkeypatch):
    differs = DEEP | {"p/first": "9", "p/left": "9"}
    others(monkeypatch, [DEEP, differs], [{ROWS: "aa", SAME: "bb"}, {SAME: "bb"}])
    with pytest.raises(
        UserError, match=r"host 2 and host 0 have different versions of rows\.jsonl \(data/pool\); "
    ):
        input_checks.compare_hosts(stages, Inputs(), DEEP)


def test_several_files_are_counted(stages, monkeypatch):
    others(monkeypatch, [DEEP | {"p/first": "9"}], [{ROWS: "cc", SAME: "dd"}])
    with pytest.raises(
        UserError, match=r"different versions of rows\.jsonl \(data/pool\) and 1 more; give all"
    ):
        input_checks.compare_hosts(stages, Inputs(), DEEP)


def test_another_config_is_told_by_the_first_stage_that_differs(stages, monkeypatch):
    others(monkeypatch, [DEEP | {"p/left": "9"}], [{ROWS: "aa", SAME: "bb"}])
    with pytest.raises(UserError, match=r"host 1 would run a different p/left than host 0; start"):
        input_checks.compare_hosts(stages, Inputs(), DEEP)
