"""Completions survive a kill between any two batches, and in the middle of a line."""

import json

import pytest

from bridge_jax.data.example import Example
from bridge_jax.generation.engine import Completion
from bridge_jax.methods.evaluation import STUDENT
from bridge_jax.pipeline.models import write_completions
from bridge_jax.pipeline.storage import Folder

EXAMPLES = [Example(f"e{i}", "q" * (1 + i * 5 % 7), "1", "numeric") for i in range(8)]
PROMPTS = [list(range(len(e.question))) for e in EXAMPLES]


class FakeEngine:
    """Batches of three, shortest first; the completion depends on the batch's number, as sampling
    does."""

    def __init__(self, stop_after=None):
        self.stop_after, self.skipped = stop_after, None

    def plan(self, prompts):
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        return [order[i : i + 3] for i in range(0, len(order), 3)]

    def complete(self, prompts, skip_batches=0):
        self.skipped = skip_batches
        for number, members in enumerate(self.plan(prompts)):
            if number < skip_batches:
                continue
            if number == self.stop_after:
                raise KeyboardInterrupt
            yield [(i, Completion([number, i], [-0.5, -0.25], 2)) for i in members]


def to_row(example, completion):
    return {"id": example.id, "ids": completion.ids, "text": "naïve\u2028line"}


def write(path, **kwargs):
    engine = FakeEngine(**kwargs)
    folder = Folder(path.parent, STUDENT)
    write_completions(folder, path.name, "test", engine, EXAMPLES, PROMPTS, to_row)
    return engine


@pytest.fixture
def undisturbed(tmp_path):
    write(tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_text()


def test_every_example_has_its_row(undisturbed):
    rows = [json.loads(line) for line in undisturbed.split("\n")[:-1]]
    assert sorted(row["id"] for row in rows) == [e.id for e in EXAMPLES]
    assert {row["id"]: row["ids"][1] for row in rows} == {f"e{i}": i for i in range(8)}


@pytest.mark.parametrize("batches", [0, 1, 2])
@pytest.mark.parametrize(
    "rest", ["", '{"id": "e', '{"id": "x"}', '{"id": "x"}\n', '{"id": "x"}\n{']
)
def test_an_interrupted_file_ends_as_an_undisturbed_one(tmp_path, undisturbed, batches, rest):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write(path, stop_after=batches)
    assert len(path.read_text().split("\n")) == batches * 3 + 1
    with path.open("a") as file:  # what a kill leaves of the next batch
        file.write(rest)
    assert write(path).skipped == batches
    assert path.read_text() == undisturbed


def test_a_whole_file_is_left_as_it_is(tmp_path, undisturbed):
    path = tmp_path / "rows.jsonl"
    path.write_text(undisturbed)
    assert write(path).skipped == 3
    assert path.read_text() == undisturbed
