"""The annotations that are learned from, and the message where none is kept."""

import pytest

from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.methods.annotations import ANNOTATIONS, kept_annotations
from bridge_jax.methods.inputs import Examples
from bridge_jax.pipeline.storage import Folder
from tests.methods import one_stage

POOL = Examples([Example(f"e{i}", f"How many? {i}", f"{i}", "numeric") for i in range(4)], "x")


def annotated(tmp_path, *changes):
    folder = Folder(tmp_path, ANNOTATIONS)
    rows = [one_stage.annotation(e, **change) for e, change in zip(POOL, changes)]
    folder.write_rows("annotations.jsonl", rows)
    return folder


def test_kept_answers_are_learned_with_gold_where_it_is_known(tmp_path):
    rejected = {"kept": False, "reason": "no rationale"}
    folder = annotated(tmp_path, {"answer": "7"}, rejected, {"answer": None}, {})
    assert kept_annotations(folder, POOL, labelled=True) == [
        (POOL[0], "As taught.", "0"),
        (POOL[2], "As taught.", "2"),
        (POOL[3], "As taught.", "3"),
    ]
    assert [(e.id, answer) for e, _, answer in kept_annotations(folder, POOL, labelled=False)] == [
        ("e0", "7"),
        ("e3", "3"),
    ]


def test_where_none_is_kept_the_reasons_are_counted(tmp_path):
    rejected = {"kept": False, "reason": "no answer that parses"}
    folder = annotated(tmp_path, rejected, rejected, rejected | {"reason": "no rationale"})
    message = (
        r"none of its 3 answers was kept \(2 x no answer that parses; 1 x no rationale\)\. "
        rf"They are in {tmp_path}/annotations\.jsonl, and their cost is already spent; relax"
    )
    with pytest.raises(UserError, match=message):
        kept_annotations(folder, POOL, labelled=True)
