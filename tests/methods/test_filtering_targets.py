"""The student's targets: bought and kept rationales, and labels where one was rejected."""

from types import SimpleNamespace
from typing import Any

import pytest

from bridge_jax.config import RunConfig
from bridge_jax.config.io import override
from bridge_jax.data.example import Example
from bridge_jax.methods import filtering
from bridge_jax.methods.filtering import SFTTarget, SFTTargets
from bridge_jax.methods.inputs import Examples

POOL = Examples([Example(name, f"{name}?", f"gold {name}", "text") for name in "abcd"], "")
JUDGED: Any = SimpleNamespace(
    rows=lambda _: [
        {"id": "a", "kept": True, "rationale": "As is.", "answer": "A"},
        {"id": "b", "kept": False, "rationale": "No.", "answer": "B"},
        {"id": "c", "kept": True, "rationale": "Own.", "answer": "C"},
        {"id": "d", "kept": False, "rationale": "No.", "answer": "D"},
    ]
)
A, B, C, D = POOL
BOUGHT = [(C, "Paid for.", "gold c")]
KEPT = [SFTTarget(A, "As is.", "gold a"), SFTTarget(*BOUGHT[0])]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), [KEPT[0], SFTTarget(B, None, "gold b"), KEPT[1], SFTTarget(D, None, "gold d")]),
        (("rationales.rejected=nothing",), KEPT),
        (("rationales.filter=none",), [SFTTarget(A, "As is.", "A"), KEPT[1]]),
    ],
)
def test_targets_of_a_pool(changes, expected, monkeypatch):
    monkeypatch.setattr(filtering, "kept_annotations", lambda *_: BOUGHT)
    targets = SFTTargets.of(override(RunConfig(), changes))
    annotated: Any = object()
    assert targets.of_pool(POOL, JUDGED, annotated) == expected
    assert targets.of_pool(POOL, None, annotated) == [KEPT[1]]
