"""A recorded run repeated from its ledger, and from its annotations."""

import pytest

from tests.launch import tiny_run

ANNOTATIONS = "apprenticeship/annotations"


@pytest.mark.slow
def test_a_recorded_run_is_repeated_bit_for_bit(tiny_config, undisturbed, tmp_path):
    def run(source):
        flags = ("--phase=apprenticeship", f"--teacher.replay_from={source}")
        code, _, error = tiny_run.run(tiny_config, tmp_path, *flags)
        assert code == 0, error
        return [
            (tmp_path / ANNOTATIONS / name).read_bytes()
            for name in ("annotations.jsonl", "spend.json")
        ]

    recorded = [
        (undisturbed / ANNOTATIONS / name).read_bytes()
        for name in ("annotations.jsonl", "spend.json")
    ]
    assert run(undisturbed / "ledger.sqlite") == recorded
    (tmp_path / "ledger.sqlite").unlink()  # they would count beside
    # The rows say no tokens: they are counted as the oracle counts, so the bill is the same too.
    assert run(undisturbed / ANNOTATIONS / "annotations.jsonl") == recorded
