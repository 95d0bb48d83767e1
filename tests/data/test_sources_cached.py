"""Examples that were converted before are read from disk, equal to what was converted."""

import dataclasses
import json

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data import sources
from bridge_jax.data.example import Example, Splits, Task
from bridge_jax.errors import UserError

ROWS = [
    {"id": "a", "question": "Naïve 東京 🙂 costs 1\u2028?", "answer": "bug", "split": "train"},
    {"id": "b\ud83d", "question": "Two?", "answer": "login", "split": "train", "domain": "x"},
    {"id": "c", "question": "Three?", "answer": "bug", "split": "dev", "rationale": "As\nis."},
    {"id": "d", "question": "Four?", "answer": "login", "split": "test"},
    {"id": "e", "question": "Five?", "answer": "other", "split": "train"},  # no label: skipped
    {"id": "f", "question": "Six \x01\ud83d?", "answer": "bug", "split": "train"},
]
NAMES = ("pool", "dev", "test")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\nno JSON\n")
    return path


@pytest.fixture
def loads(monkeypatch):
    """The configs that were loaded from the rows themselves."""
    seen, original = [], sources.load

    def load(config, seed):
        seen.append(config)
        return original(config, seed)

    monkeypatch.setattr(sources, "load", load)
    return seen


def config(path, **more):
    settings = {"kind": "label", "choices": ("login", "bug"), "on_bad_row": "skip"}
    settings |= {"pool": 2, "dev": 0, "test": 0, "label_descriptions": {"login": "L", "bug": "B"}}
    return DataConfig(source="jsonl", path=str(path), **(settings | more))


def twice(settings, folder, content="1"):
    return [sources.load_cached(settings, 0, folder, content) for _ in range(2)]


def test_what_was_loaded_before_comes_back_exactly(data, tmp_path, loads):
    first, second = twice(config(data), tmp_path / "cache")
    assert len(loads) == 1
    assert first == second == sources.load(config(data), 0)
    assert (len(second.pool), second.cut, second.replaced) == (2, {"pool": 3}, 2)
    assert [row.row for row in second.bad.rows] == ["line 5", "line 7"]
    assert second.bad.rows == first.bad.rows and second.bad.rows[0].file == str(data)
    assert second.bad.summary() == first.bad.summary()
    assert second.pool[0].task.label_descriptions == {"login": "L", "bug": "B"}
    assert list(second.pool[0].task.label_descriptions) == ["login", "bug"]
    assert second.pool[0].question == ROWS[0]["question"]
    assert isinstance(second.pool[0].choices, tuple)
    assert second.dev[0].rationales == {"rationale": "As\nis."}


def test_bad_rows_of_the_test_file_come_back_with_its_name(data, tmp_path):
    other = tmp_path / "test.jsonl"
    other.write_text(json.dumps(ROWS[3] | {"question": "Another?", "id": "t"}) + "\nno JSON\n")
    first, second = twice(config(data, test_path=str(other)), tmp_path / "cache")
    assert second == first and [example.id for example in second.test] == ["t"]
    assert second.bad.rows[-1][:2] == (str(other), "line 2")


def test_every_field_comes_back(tmp_path, monkeypatch):
    """The fields of Example and Splits by their names, so that a new one is not forgotten."""
    text = Example("1", "q", "a", "text", ("x", "y"), "law", {"0": "r"}, 0.25, Task("Do."), ",")
    number = Example("2", "p", "7", "numeric", task=Task("Do.", {"x": "y"}))
    for field in dataclasses.fields(Example):
        if field.name == "budget":  # Set by what asks a model, and never by a source.
            continue
        assert getattr(text, field.name) != getattr(number, field.name)
    counts = {"replaced": 3, "cut": {"dev": 9}, "divided": True, "groups": 2}
    splits = Splits((text, number, number), (number,), (text,), **counts)
    splits.bad.total = 5
    monkeypatch.setattr(sources, "load", lambda config, seed: splits)
    _, second = twice(config("x"), tmp_path)
    assert second == splits and second is not splits
    assert second.pool[1].task is second.pool[2].task


def test_another_place_is_the_same_data(data, tmp_path, loads):
    sources.load_cached(config(data), 0, tmp_path / "cache", "1")
    moved = data.rename(tmp_path / "moved.jsonl")
    again = sources.load_cached(config(moved, rationale="0"), 0, tmp_path / "cache", "1")
    assert len(loads) == 1
    assert again.bad.rows[0].file == str(moved)


@pytest.mark.parametrize(
    ("settings", "loaded"),
    [
        ({"pool": 0, "columns": {"split": "split"}}, 1),  # Nothing is drawn.
        ({"pool": 0}, 2),  # Rows without a split would be divided.
        ({"columns": {"split": "split"}}, 2),  # The pool is a sample.
    ],
)
def test_another_seed_is_loaded_again_where_it_draws(data, tmp_path, loads, settings, loaded):
    for seed in (0, 1):
        found = sources.load_cached(config(data, **settings), seed, tmp_path / "cache", "1")
        assert found == sources.load(config(data, **settings), seed)
    assert len(loads) == loaded + 2


@pytest.mark.parametrize(
    "change",
    [
        {"pool": 1},
        {"choices": ("login", "bug", "other")},
        {"min_rouge": 0.9},
        {"instruction": "Which?"},
        {"label_descriptions": {"login": "M", "bug": "B"}},
        {"columns": {"domain": "split"}},
        {"splits": {"train": "train", "test": "test"}},
    ],
)
def test_other_settings_are_loaded_again(data, tmp_path, loads, change):
    first = sources.load_cached(config(data), 0, tmp_path / "cache", "1")
    other = sources.load_cached(config(data, **change), 0, tmp_path / "cache", "1")
    assert len(loads) == 2 and other != first
    assert sources.load_cached(config(data), 0, tmp_path / "cache", "1") == first
    assert len(loads) == 2


def test_other_content_or_a_new_task_file_is_loaded_again(data, tmp_path, loads):
    sources.load_cached(config(data), 0, tmp_path / "cache", "1")
    sources.load_cached(config(data), 0, tmp_path / "cache", "2")
    assert len(loads) == 2
    file = tmp_path / "task.toml"
    for text in ("One?", "Two?"):
        file.write_text(f'instruction = "{text}"')
        settings = config(data, label_descriptions={}, task_file=str(file))
        assert (
            sources.load_cached(settings, 0, tmp_path / "cache", "1").pool[0].task.instruction
            == text
        )
    assert len(loads) == 4


def test_without_content_or_folder_or_for_practice_nothing_is_kept(data, tmp_path, loads):
    folder = tmp_path / "cache"
    twice(config(data), folder, content="")
    twice(config(data), None)
    practice = DataConfig(pool=3, dev=1, test=2)
    assert sources.load_cached(practice, 4, folder, "1") == sources.load(practice, 4)
    assert len(loads) == 6 and not folder.exists()


def test_of_an_error_nothing_is_kept(data, tmp_path):
    for _ in range(2):
        with pytest.raises(UserError, match="2 of 7 rows are bad"):
            sources.load_cached(config(data, on_bad_row="error"), 0, tmp_path / "cache", "1")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no facts", "empty facts"])
def test_a_damaged_entry_is_made_again(data, tmp_path, loads, damage):
    folder = tmp_path / "cache"
    first = sources.load_cached(config(data), 0, folder, "1")
    (rows,), (facts,) = folder.glob("*.examples.jsonl"), folder.glob("*.json")
    before = rows.read_bytes()
    match damage:
        case "cut":
            rows.write_bytes(before[:-9])
        case "changed":
            rows.write_bytes(before.replace(b"Two?", b"Ten?"))
        case "gone":
            rows.unlink()
        case "no facts":
            facts.unlink()
        case "empty facts":
            facts.write_text("{}")
    assert sources.load_cached(config(data), 0, folder, "1") == first
    assert len(loads) == 2 and rows.read_bytes() == before
    assert sources.load_cached(config(data), 0, folder, "1") == first
    assert len(loads) == 2


def test_only_the_first_process_writes(data, tmp_path, monkeypatch):
    monkeypatch.setattr("bridge_jax.parallel.hosts.is_first", lambda: False)
    sources.load_cached(config(data), 0, tmp_path / "cache", "1")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_stops_nothing(data, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert twice(config(data), tmp_path / "file")[1] == sources.load(config(data), 0)
    assert "nothing can be cached there" in capsys.readouterr().err


def splits(**change):
    example = Example("1", "q", "x", "label", ("x", "y"), "law", {"0": "r"}, task=Task("Do."))
    return Splits((example, dataclasses.replace(example, **change)), (example,), (example,))


@pytest.mark.parametrize(
    "change",
    [
        {"id": "2"},
        {"question": "p"},
        {"answer": "y"},
        {"kind": "choice"},
        {"choices": ("y", "x")},
        {"domain": ""},
        {"min_rouge": 0.7},
        {"task": Task("Do it.")},
        {"task": Task("Do.", {"x": "the first"})},
        {"decimal": ","},
    ],
)
def test_a_digest_is_of_all_that_models_read(change):
    before, after = sources.digests(splits()), sources.digests(splits(**change))
    assert {name for name in before if before[name] != after[name]} == {"pool"}
    assert sources.digests(splits()) == before


def test_recorded_rationales_have_a_digest_of_their_own():
    before, after = sources.digests(splits()), sources.digests(splits(rationales={"0": "s"}))
    assert {name for name in before if before[name] != after[name]} == {"pool_recorded"}


def test_the_order_of_examples_counts():
    one, other = splits().pool[0], splits(id="2").pool[1]
    rest = (one,)
    found = [sources.digests(Splits(p, rest, rest))["pool"] for p in ((one, other), (other, one))]
    assert found[0] != found[1]


def test_digests_are_kept_with_the_examples(data, tmp_path, monkeypatch):
    sources.load_cached(config(data), 0, tmp_path / "cache", "1")
    expected = sources.digests(sources.load(config(data), 0))
    second = sources.load_cached(config(data), 0, tmp_path / "cache", "1")
    with monkeypatch.context() as patch:
        patch.setattr("bridge_jax.data.sources._texts", None)
        assert sources.digests(second) == expected
    # They are of these examples alone.
    fewer = dataclasses.replace(second, pool=second.pool[:1])
    assert sources.digests(fewer)["pool"] != expected["pool"]
