"""The tables of docs/performance.md."""

import json
from pathlib import Path

import pytest

from benchmarks import page
from bridge_jax.errors import UserError

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
FOUND = {
    "name": "generate",
    "on_gpu": False,
    "machine": "Abacus, 2 CPUs",
    "ratios": {
        "30M-1: sdpa f32 / ours": {"median": 2.5, "low": 2.04, "high": 2.6},
        "30M-1: best torch / ours": {"median": 1.5, "low": 1.4, "high": 1.6},
        "busy: share of slots and steps": {"median": 0.93, "low": 0.93, "high": 0.93},
    },
    "absolute": {"30M-1: best torch": "sdpa bf16", "30M-1: share of the limit": 0.714},
    "peak": {
        "jax_flops_per_second": 151e9,
        "torch_flops_per_second": 210.4e9,
        "bytes_per_second": 15.44e9,
        "rss_mib": 2048,
    },
}


def test_a_table_has_what_was_measured():
    lines = page.table(FOUND).splitlines()
    assert lines[0] == (
        "Abacus, 2 CPUs: products of matrices at 151 GFLOP/s in JAX and 210 in torch, and 15.4 "
        "GB/s. The process took up to 2,048 MiB for both sides of all cases."
    )
    assert (
        "| 30M, batch 1 | 2.50 [2.04-2.60] | 1.50 [1.40-1.60] (sdpa bf16) | 2.5; limit 70% | 71% |"
    ) in lines
    assert "| busy slots | 0.93 | | 0.9 | |" in lines
    assert "| 30M, batch 16 | to be measured | to be measured | 1.8 |  |" in lines


def test_a_gpu_has_rows_and_a_place_of_its_own():
    lines = page.table(FOUND | {"on_gpu": True}).splitlines()
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| 1B, batch 1", "| 1B, batch 64"]
    text = "<!-- generate -->\n<!-- /generate --><!-- generate-gpu -->\n<!-- /generate-gpu -->"
    found = page.put(text, FOUND | {"on_gpu": True})
    assert found.startswith("<!-- generate -->\n<!-- /generate --><!-- generate-gpu -->\nAbacus")


def test_a_result_replaces_the_table_of_its_file_alone(tmp_path):
    text = PAGE.read_text()
    out, result = tmp_path / "page.md", tmp_path / "generate.json"
    out.write_text(text)
    result.write_text(json.dumps(FOUND))
    page.main(out, [result])
    before, _, after = out.read_text().partition("<!-- generate -->")
    assert before == text.partition("<!-- generate -->")[0]
    assert after.partition("<!-- /generate -->")[2] == text.partition("<!-- /generate -->")[2]
    assert page.table(FOUND) in after
    with pytest.raises(UserError, match="no <!-- h100 -->"):
        page.put(text, FOUND | {"name": "h100"})


@pytest.mark.parametrize(
    "text", ["[]", "{", json.dumps(FOUND | {"peak": {}}), '{"name": "ledger"}']
)
def test_a_file_that_is_no_result_is_named(tmp_path, text):
    out, result = tmp_path / "page.md", tmp_path / "result.json"
    out.write_text("as it was")
    result.write_text(text)
    with pytest.raises(UserError, match="not a result of benchmarks"):
        page.main(out, [result])
    assert out.read_text() == "as it was"
