"""Completions survive a kill between any two of them, and in the middle of a line."""

import json

import pytest

from bridge_jax.data.example import Example
from bridge_jax.generation.engine import Completion
from bridge_jax.methods.evaluation import STUDENT
from bridge_jax.pipeline.models import write_completions
from bridge_jax.pipeline.storage import Folder

EXAMPLES = [Example(f"e{i}", "q" * (1 + i * 5 % 7), "1", "numeric") for i in range(8)]
PROMPTS = [list(range(len(e.question))) for e in EXAMPLES]
ENDED = [[3, 0], [7], [1, 2, 6], [5, 4]]  # in this order


class FakeEngine:
    """Completions end in another order than they are asked for, and depend on their request."""

    def __init__(self, stop_after=None):
        self.stop_after, self.written = stop_after, []

    def complete(self, prompts, done=()):
        for number, members in enumerate(ENDED):
            if number == self.stop_after:
                raise KeyboardInterrupt
            new = [i for i in members if i not in done]
            self.written += new
            if new:
                yield [(i, Completion([len(prompts[i]), i], [-0.5], 2, [-0.5])) for i in new]


def to_row(example, completion):
    return {"id": example.id, "ids": completion.ids, "text": "naïve\u2028line"}


def write(path, **kwargs):
    engine = FakeEngine(**kwargs)
    folder = Folder(path.parent, STUDENT)
    write_completions(folder, path.name, "test", engine, EXAMPLES, PROMPTS, to_row)
    return engine.written


@pytest.fixture
def undisturbed(tmp_path):
    write(tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_text()


def test_every_example_has_its_row_in_the_order_of_examples(undisturbed):
    rows = [json.loads(line) for line in undisturbed.split("\n")[:-1]]
    assert [row["id"] for row in rows] == [e.id for e in EXAMPLES]
    assert [row["ids"][1] for row in rows] == list(range(8))
    assert list(rows[0]) == ["id", "ids", "text"]


@pytest.mark.parametrize("calls", [0, 1, 3])
@pytest.mark.parametrize("rest", ["", '{"id": "e', '{"request": 6, "id": "x"'])
def test_an_interrupted_file_ends_as_an_undisturbed_one(tmp_path, undisturbed, calls, rest):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write(path, stop_after=calls)
    done = [i for members in ENDED[:calls] for i in members]
    assert len(path.read_text().split("\n")) == len(done) + 1
    with path.open("a") as file:  # what a kill leaves of the next row
        file.write(rest)
    assert write(path) == [i for members in ENDED[calls:] for i in members]
    assert path.read_text() == undisturbed


def test_a_whole_file_is_left_as_it_is(tmp_path, undisturbed):
    path = tmp_path / "rows.jsonl"
    path.write_text(undisturbed)
    assert write(path) == []
    assert path.read_text() == undisturbed
