import json
import sys

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.errors import UserError
from bridge_jax.tasks.answers import is_correct, parse_answer
from bridge_jax.tasks.sources import load


def row(name, split="train", **extra):
    base = {"id": name, "question": f"What is {name}?", "answer": "12", "split": split}
    return {**base, **extra}


GOOD = [row("a"), row("b", "dev"), row("c", "test"), row("d")]


def write(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def read(tmp_path, rows, **config):
    defaults = {"source": "jsonl", "pool": 0, "dev": 0, "test": 0}
    return load(DataConfig(path=write(tmp_path, rows), **{**defaults, **config}), seed=0)


def ids(examples):
    return [example.id for example in examples]


def test_practice_uses_the_config():
    config = DataConfig(pool=12, dev=2, test=6, domains=("fees",), min_steps=2, max_steps=2)
    splits = load(config, seed=3)
    assert (len(splits.pool), len(splits.dev), len(splits.test)) == (12, 2, 6)
    assert {example.domain for example in splits.pool} == {"fees"}
    assert load(config, seed=3) == splits != load(config, seed=4)


def test_open_practice_wants_the_explanation_and_has_a_shorter_rationale():
    closed = load(DataConfig(pool=6, dev=2, test=3), seed=1)
    opened = load(DataConfig(pool=6, dev=2, test=3, kind="text", min_rouge=0.8), seed=1)
    for was, now in zip((*closed.pool, *closed.test), (*opened.pool, *opened.test)):
        assert (now.id, now.question, now.kind, now.choices) == (was.id, was.question, "text", ())
        assert now.answer == was.rationales["medium"]
        assert set(now.rationales.values()) == {was.rationales["short"]}
        assert now.min_rouge == 0.8


def test_practice_without_test_is_an_error():
    with pytest.raises(UserError, match=r"no examples for test; set data\.test above 0"):
        load(DataConfig(pool=3, test=0), seed=0)


def test_jsonl_splits(tmp_path):
    splits = read(tmp_path, GOOD)
    assert (ids(splits.pool), ids(splits.dev), ids(splits.test)) == (["a", "d"], ["b"], ["c"])
    assert splits.pool[0].answer == "12" and splits.pool[0].rationales == {}
    assert splits.skipped == 0


def test_caps_keep_the_first_rows(tmp_path):
    splits = read(tmp_path, [*GOOD, row("e"), row("f", "test")], pool=2, test=1)
    assert (ids(splits.pool), ids(splits.test)) == (["a", "d"], ["c"])


def test_columns_are_mapped(tmp_path):
    rows = [
        {"uid": name, "q": f"Is {name} ok?", "gold": "YES", "part": split, "area": "law"}
        for name, split in (("a", "train"), ("b", "test"))
    ]
    columns = {"id": "uid", "question": "q", "answer": "gold", "split": "part", "domain": "area"}
    splits = read(tmp_path, rows, columns=columns, kind="label", choices=("yes", "no"))
    example = splits.pool[0]
    assert (example.id, example.question, example.answer) == ("a", "Is a ok?", "yes")
    assert (example.domain, example.choices) == ("law", ("yes", "no"))


def test_rationales(tmp_path):
    variants = [{"prompt": "x", "text": "First."}, {"teacher": "y", "text": None}, "Third."]
    rows = [
        row("a", rationale="Main.", rationales=variants, human_rationale="By hand."),
        row("b", rationale=None, human_rationale=""),
        row("c", "test", rationale="Unused."),
    ]
    pool = read(tmp_path, rows).pool
    assert pool[0].rationales == {
        "rationale": "Main.",
        "human": "By hand.",
        "0": "First.",
        "2": "Third.",
    }
    assert pool[1].rationales == {}


def test_a_mapped_teacher_answer_completes_the_rationale(tmp_path):
    rows = [row("a", rationale="So 13.", teacher_answer="13"), row("c", "test")]
    mapped = read(tmp_path, rows, columns={"teacher_answer": "teacher_answer"})
    assert mapped.pool[0].rationales == {"rationale": "So 13.\nAnswer: 13"}
    assert read(tmp_path, rows).pool[0].rationales == {"rationale": "So 13."}


def test_options_come_from_the_question_or_the_row(tmp_path):
    listed = row("a", question="Which?\n(a) old\n(b) new", answer="b")
    own = row("b", "test", answer="Left", choices=["left", "right"])
    splits = read(tmp_path, [listed, own], kind="choice")
    assert (splits.pool[0].choices, splits.pool[0].answer) == (("old", "new"), "new")
    assert (splits.test[0].choices, splits.test[0].answer) == (("left", "right"), "left")


def test_unusual_line_separators_inside_a_string(tmp_path):
    rows = [json.dumps(row("a", domain="x\u2028y"), ensure_ascii=False), row("c", "test")]
    assert read(tmp_path, rows).pool[0].domain == "x\u2028y"


BAD = [
    ("", "is empty"),
    ('{"id": "x", ', "is not valid JSON"),
    ("[1, 2]", "is a JSON list, not an object"),
    ({"id": "x", "question": "?", "answer": "1"}, "has no key 'split'"),
    ({"id": "x", "question": "?", "split": "dev"}, "has no key 'answer'"),
    (row("x", question="  "), "question is empty"),
    (row("x", question=["?"]), "question=['?'] is of type list, not a string"),
    (row("x", answer=None), "answer=None is of type NoneType"),
    (row("x", answer=True), "answer=True is of type bool"),
    (row("x", answer="twelve"), "answer='twelve' is not a number"),
    (row("x", rationale=3 * [1]), "rationale=[1, 1, 1] is of type list"),
    (row("x", rationales="no list"), "rationales is of type str, not a list"),
    (row("x", rationales=[{"text": 1}]), "rationales[0] has no string 'text'"),
    (row("a", question="Another?"), "id 'a' was used before"),
    (row("x", "holdout"), "split='holdout' is not train, dev or test"),
    (row("x", "test", question="What is a?"), "asks the same question as"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_rows_are_errors_with_file_and_line(tmp_path, bad, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, [*GOOD, bad, row("z")])
    assert f"{tmp_path}/rows.jsonl, line 5: " in str(error.value)
    assert message in str(error.value)
    assert "data.on_bad_row=skip" in str(error.value)


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_rows_are_skipped_and_counted_on_request(tmp_path, bad, message):
    splits = read(tmp_path, [*GOOD, bad, row("z")], on_bad_row="skip")
    assert splits.skipped == 1
    assert (ids(splits.pool), ids(splits.dev), ids(splits.test)) == (["a", "d", "z"], ["b"], ["c"])


@pytest.mark.parametrize(
    ("config", "bad", "message"),
    [
        ({"kind": "label", "choices": ("12", "13")}, row("x", answer="14"), "none of the choices"),
        ({"kind": "choice", "choices": ("12", "13")}, row("x", answer="E"), "choices 12, 13"),
        ({"kind": "choice"}, row("x"), "has no choices: set data.choices"),
        ({"kind": "choice"}, row("x", choices=[1]), "choices=[1] is not a list of strings"),
    ],
)
def test_answers_must_be_among_the_choices(tmp_path, config, bad, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, [bad, *GOOD], **config)
    assert "line 1: " in str(error.value) and message in str(error.value)


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(json.dumps(row("a")).encode() + b'\n{"id": "\xe9"}\n')
    with pytest.raises(UserError, match="line 2: is not UTF-8"):
        load(DataConfig(source="jsonl", path=str(path)), seed=0)


def test_missing_file_is_an_error_even_when_skipping(tmp_path):
    path = str(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"none\.jsonl: no such file"):
        load(DataConfig(source="jsonl", path=path, on_bad_row="skip"), seed=0)


@pytest.mark.parametrize(("missing", "advice"), [("pool", "train"), ("test", "test")])
def test_empty_pool_or_test(tmp_path, missing, advice):
    kept = row("a", "test" if missing == "pool" else "train")
    with pytest.raises(UserError, match=f"no examples for {missing}.*split={advice}"):
        read(tmp_path, [kept])


def test_everything_skipped_says_how_many(tmp_path):
    with pytest.raises(UserError, match="2 bad rows were skipped"):
        read(tmp_path, ["", "", row("a")], on_bad_row="skip")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def test_hub_reads_a_folder_of_parquet(tmp_path, hub):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "test"):
        rows = [{"id": f"{name}{i}", "question": f"{name} {i}?", "answer": str(i)} for i in (1, 2)]
        rows = [{**each, "rationales": [{"text": "Why."}]} for each in rows]
        hub.Dataset.from_list(rows).to_parquet(folder / f"{name}.parquet")
    splits = load(DataConfig(source="hf", path=str(folder), pool=1), seed=0)
    assert (ids(splits.pool), ids(splits.test)) == (["train1"], ["test1", "test2"])
    assert splits.pool[0].rationales == {"0": "Why."}


def test_hub_reads_one_json_file_by_its_split_column(tmp_path, hub):
    rows = [row("a", rationale=None), row("b", "test", rationale="So."), row("bad", "huh")]
    config = DataConfig(source="hf", path=write(tmp_path, rows), on_bad_row="skip")
    splits = load(config, seed=0)
    assert (ids(splits.pool), ids(splits.test), splits.skipped) == (["a"], ["b"], 1)
    with pytest.raises(UserError, match=r"rows\.jsonl, train row 2: split='huh'"):
        load(DataConfig(source="hf", path=write(tmp_path, rows)), seed=0)


def test_hub_cannot_load(tmp_path, hub):
    path = tmp_path / "rows.xyz"
    path.write_text("?")
    with pytest.raises(UserError, match=r"rows\.xyz: datasets cannot load it"):
        load(DataConfig(source="hf", path=str(path)), seed=0)


def test_hub_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'bridge-jax\[datasets\]'"):
        load(DataConfig(source="hf", path="someone/something"), seed=0)


@pytest.mark.parametrize(
    ("answer", "decimal", "ways"),
    [
        ("1,5", "", "; data.decimal=, reads it as 1.5"),
        ("1.234,50", "", "; data.decimal=, reads it as 1234.5"),
        ("1 234", "", "; data.decimal=. reads it as 1234, data.decimal=, reads it as 1234"),
        ("1 234.5", ",", "; data.decimal=. reads it as 1234.5"),
        ("2√3", "", ""),
        ("12-15", "", ""),
    ],
)
def test_a_number_by_another_decimal_mark_names_the_way_out(tmp_path, answer, decimal, ways):
    rows = [*GOOD, row("x", answer=answer)]
    with pytest.raises(UserError) as caught:
        read(tmp_path, rows, decimal=decimal)
    assert f"line 5: answer={answer!r} is not a number{ways} (" in str(caught.value)


@pytest.mark.parametrize(
    ("decimal", "answers", "values"),
    [
        ("", [1e-05, 2.5, 1234, "1e3", "2½", "(1,234)"], "0.00001 2.5 1234 1000 2.5 -1234"),
        (".", ["1 234", "1 234.5", 1.234], "1234 1234.5 1.234"),
        (",", ["1.234,50", "1 234,5", "1,5", 1.234, 1234], "1234,5 1234,5 1,5 1,234 1234"),
    ],
)  # fmt: skip
def test_gold_numbers_are_read_by_the_decimal_mark(tmp_path, decimal, answers, values):
    rows = [row(f"x{i}", answer=answer) for i, answer in enumerate(answers)]
    pool = read(tmp_path, [*rows, row("t", "test")], decimal=decimal).pool
    assert [parse_answer(example.answer, example) for example in pool] == values.split()
    assert all(is_correct(value, example) for value, example in zip(values.split(), pool))
    assert {example.decimal for example in pool} == {decimal}


def test_a_number_of_json_is_trained_in_digits(tmp_path):
    rows = [row("a", answer=1e-05), row("b", answer=2.50), row("t", "test")]
    assert [e.answer for e in read(tmp_path, rows).pool] == ["0.00001", "2.5"]
