"""A run with an API teacher: the real SDK, and a vendor on loopback."""

import json

import pytest
from fake_vendor import KEY, FakeVendor

from bridge_jax.config import io as config_io
from bridge_jax.data import sources
from tests.launch import tiny_run

FLAGS = [
    *("--phase=apprenticeship", "--config.method=direct", "--selection.strategy=random"),
    *("--selection.size=6", "--teacher.model=big-1", "--yes"),
]


@pytest.fixture(scope="module")
def gold(tiny_config):
    run = config_io.load(tiny_config)
    return {e.question: e.answer for e in sources.load(run.data, run.seed).pool}


def rows(workdir):
    lines = (workdir / "apprenticeship/annotations/annotations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gemini", "openai"])
def test_a_run_asks_pays_and_keeps_what_is_good(kind, tiny_config, gold, tmp_path, monkeypatch):
    pytest.importorskip({"openai": "openai", "gemini": "google.genai"}[kind])
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    workdir = tmp_path / "run"
    with FakeVendor() as vendor:
        url = vendor.url + "/v1" * (kind == "openai")
        flags = [*FLAGS, f"--teacher.kind={kind}", f"--teacher.base_url={url}"]
        flags += ["--teacher.retries=1", "--teacher.timeout=5"]
        order: list[str] = []

        def answer(prompt):
            if prompt not in order:
                order.append(prompt)
            return "no idea" if order.index(prompt) == 2 else gold[prompt]

        vendor.answer = answer
        vendor.faults, vendor.fault_share = ("429", "500", "drop"), 0.2
        code, out, err = tiny_run.run(tiny_config, workdir, *flags)
        assert code == 0, err
        annotations = rows(workdir)
        bills = list(vendor.bills)
        # The same command again is free and asks nobody.
        assert tiny_run.finish(tiny_config, workdir, *flags) == []
        assert len(vendor.bills) == len(bills)
    assert len(annotations) == 6
    kept = [row for row in annotations if row["kept"]]
    rejected = [row for row in annotations if not row["kept"]]
    assert len(kept) == 5
    assert all(row["answer"] == row["gold"] and row["reason"] is None for row in kept)
    assert "no answer that parses" in rejected[0]["reason"]
    assert rejected[0]["asked"] == 2
    spend = json.loads((workdir / "apprenticeship/annotations/spend.json").read_text())
    lost = sum(bill.fault == "drop" for bill in bills)
    assert spend["queries"] == len(bills) - lost == 7
    assert spend.get("unknown", {"queries": 0})["queries"] == lost
    # No trace of the key, whatever was written and wherever.
    written = [path.read_bytes() for path in workdir.rglob("*") if path.is_file()]
    assert len(written) >= 8
    for text in (*written, out.encode(), err.encode()):
        assert KEY.encode() not in text


@pytest.mark.slow
def test_without_a_key_the_run_stops_before_it_trains_anything(tiny_config, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, _, err = tiny_run.run(tiny_config, tmp_path / "run", *FLAGS, "--teacher.kind=openai")
    assert code == 2
    assert err.splitlines()[-1].startswith(
        "error: teacher openai/big-1 needs a key: set the environment variable OPENAI_API_KEY"
    )
    assert not (tmp_path / "run/apprenticeship").exists()
