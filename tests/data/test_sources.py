import json
import sys
import types

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data.answers import is_correct, parse_answer
from bridge_jax.data.sources import load
from bridge_jax.errors import UserError


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


def test_practice_has_sizes_of_its_own():
    splits = load(DataConfig(max_steps=1), seed=0)
    assert (len(splits.pool), len(splits.dev), len(splits.test)) == (500, 50, 200)


def test_jsonl_splits(tmp_path):
    splits = read(tmp_path, GOOD)
    assert (ids(splits.pool), ids(splits.dev), ids(splits.test)) == (["a", "d"], ["b"], ["c"])
    assert splits.pool[0].answer == "12" and splits.pool[0].rationales == {}
    assert splits.bad.rows == [] and splits.replaced == 0


def test_caps_keep_a_sample_drawn_by_the_seed(tmp_path):
    rows = [*GOOD, *(row(f"x{i}") for i in range(98)), row("f", "test")]
    splits = read(tmp_path, rows, pool=40, test=1)
    assert splits.cut == {"pool": 100, "test": 2} and len(splits.dev) == 1
    kept = ids(splits.pool)
    assert len(kept) == 40 and kept == [r["id"] for r in rows if r["id"] in kept]
    assert sum(rows.index(row(name)) < 50 for name in kept) in range(12, 29)  # not the first
    # A smaller sample is part of it, and so is that of the file in another order.
    assert set(ids(read(tmp_path, rows, pool=10).pool)) < set(kept)
    assert set(ids(read(tmp_path, rows[::-1], pool=40).pool)) == set(kept)
    data = DataConfig("jsonl", str(tmp_path / "rows.jsonl"), pool=40)
    assert len(set(kept) & set(ids(load(data, seed=1).pool))) < 30


def test_options_in_columns_of_their_own_are_mixed(tmp_path):
    rows = [
        {"Question": f"Which of them, {n}?", "Right": f"right {n}", "Wrong 1": f"one {n}",
         "Wrong 2": f"two {n}", "split": "train" if n else "test"}
        for n in range(30)
    ]  # fmt: skip
    columns = {"question": "Question", "answer": "Right", "choices": "Right|Wrong 1|Wrong 2"}
    splits = read(tmp_path, rows, columns=columns, kind="choice")
    places = [example.choices.index(example.answer) for example in splits.pool]
    assert set(places) == {0, 1, 2}
    assert all(set(e.choices) == {f"right {n}", f"one {n}", f"two {n}"}
               for n, e in enumerate(splits.pool, start=1))  # fmt: skip
    with pytest.raises(UserError, match=r"choices:Right\|Wrong 9 maps columns that no row has"):
        read(tmp_path, rows, columns=columns | {"choices": "Right|Wrong 9"}, kind="choice")


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
    ('{"id": "x", ', "is not valid JSON"),
    ("[1, 2]", "is a JSON list, not an object"),
    ({"id": "x", "question": "?", "answer": "1"}, "has no key 'split'"),
    ({"id": "x", "question": "?", "split": "dev"}, "has no key 'answer'"),
    (row("x", question="  "), "question is empty"),
    (row("x", question=["?"]), "question=['?'] is of type list, not a text or a number"),
    (row("x", answer=None), "answer has no value; expected a text or a number"),
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
    assert len(splits.bad.rows) == 1 and message in splits.bad.rows[0].reason
    assert (ids(splits.pool), ids(splits.dev), ids(splits.test)) == (["a", "d", "z"], ["b"], ["c"])


@pytest.mark.parametrize(
    ("config", "bad", "message"),
    [
        ({"kind": "label", "choices": ("12", "13")}, row("x", answer="14"), "none of the choices"),
        ({"kind": "choice", "choices": ("12", "13")}, row("x", answer="E"), "choices 12, 13"),
        ({"kind": "choice"}, row("x"), "has no choices: set data.choices"),
        ({"kind": "choice"}, row("x", choices=[1]), "choices=[1] is not two options or more"),
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


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train", "training", "Train", "TRAINING", " pool "), "pool"),
        (("dev", "validation", "valid", "val", "eval", "Development", "VALIDATION"), "dev"),
        (("test", "testing", "Test"), "test"),
    ],
)
def test_common_names_of_splits(tmp_path, names, split):
    rows = [row(f"x{i}", name) for i, name in enumerate(names)]
    splits = read(tmp_path, [row("a"), row("b", "test"), *rows])
    found = [name for name in ids(getattr(splits, split)) if name.startswith("x")]
    assert found == [f"x{i}" for i in range(len(names))]


def test_named_splits_and_no_others_are_read(tmp_path):
    rows = [row("a", "train_sft"), row("b", "Validation"), row("c", "test"), row("d", "train")]
    splits = read(tmp_path, rows, splits={"train_sft": "train", "validation": "test"})
    assert (ids(splits.pool), ids(splits.dev), ids(splits.test)) == (["a"], [], ["b"])
    assert splits.bad.rows == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"splits": {"x": "holdout"}}, "data.splits=x:holdout: map it to train, dev"),
        ({"config": "main"}, "data.config=main requires data.source=hf, not jsonl"),
        ({"revision": "v1"}, "data.revision=v1 requires data.source=hf, not jsonl"),
        ({"answer_is": "index"}, "data.answer_is=index names an option, but data.kind=numeric has"),
    ],
)
def test_settings_that_do_nothing_are_errors(tmp_path, config, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, GOOD, **config)
    assert message in str(error.value)


def bare(question, split="train", **extra):
    return {"question": question, "answer": "12", "split": split, **extra}


def test_ids_are_made_from_the_content(tmp_path):
    rows = [bare("One?"), bare("Two?"), bare("One?", answer="13"), bare("Three?", "test")]
    first = ids(read(tmp_path, rows).pool)
    assert first[0] == "1799e987a849b0c4" and len(set(first)) == 3
    # They stay when rows are moved or added, and when the file has other columns.
    more = [bare("Zero?"), *({**each, "note": 1} for each in reversed(rows))]
    assert ids(read(tmp_path, more).pool)[1:] == first[::-1]


def test_what_is_said_twice_has_numbered_ids_and_own_ids_are_kept(tmp_path):
    rows = [bare("One?"), bare("One?"), bare("One?", id="mine"), bare("One?", id=None)]
    first, second, mine, third = ids(read(tmp_path, [*rows, bare("Two?", "test")]).pool)
    assert (second, mine, third) == (f"{first}-2", "mine", f"{first}-3")


def test_ids_tell_options_apart(tmp_path):
    rows = [bare("Which?", choices=[x, "y"], answer="y") for x in ("a", "b")]
    rows.append(bare("Which?", "test", choices=["c", "y"], answer="y"))
    splits = read(tmp_path, rows, kind="choice")
    assert len({*ids(splits.pool), *ids(splits.test)}) == 3


def test_rows_without_ids_are_still_not_shared_by_splits(tmp_path):
    rows = [bare("One?"), bare("Two?", "test"), bare("One?", "test")]
    with pytest.raises(UserError, match=r"line 3: asks the same question as .*line 1, which is in"):
        read(tmp_path, rows)


def test_an_id_column_that_is_named_must_be_there(tmp_path):
    with pytest.raises(UserError, match="line 2: has no key 'uid'"):
        read(tmp_path, [bare("One?", uid=1), bare("Two?", "test")], columns={"id": "uid"})


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
    assert (ids(splits.pool), ids(splits.test), len(splits.bad.rows)) == (["a"], ["b"], 1)
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


def folder_of(tmp_path, **splits):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, rows in splits.items():
        text = "".join(json.dumps(each) + "\n" for each in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return str(folder)


def test_hub_reads_a_folder_in_common_names_without_ids(tmp_path, hub):
    rows = {
        name: [{"question": f"{name} {i}?", "answer": i} for i in (1, 2)]
        for name in ("train", "validation", "test")
    }
    folder = folder_of(tmp_path, **rows)
    splits = load(DataConfig(source="hf", path=folder), seed=0)
    found = [[example.question for example in part] for part in (splits.pool, splits.dev)]
    assert found == [["train 1?", "train 2?"], ["validation 1?", "validation 2?"]]
    assert [example.answer for example in splits.test] == ["1", "2"]
    assert len({*ids(splits.pool), *ids(splits.dev), *ids(splits.test)}) == 6
    # Questions of a test without answers are left out by name.
    only = {"train": "train", "validation": "test"}
    splits = load(DataConfig(source="hf", path=folder, splits=only), seed=0)
    assert [example.question for example in splits.test] == ["validation 1?", "validation 2?"]


def test_hub_says_which_splits_there_are(tmp_path, hub):
    row = {"question": "?", "answer": "1"}
    folder = folder_of(tmp_path, train=[row], validation=[{**row, "question": "??"}])
    with pytest.raises(UserError) as error:
        load(DataConfig(source="hf", path=folder), seed=0)
    assert "the splits are train (1), validation (1): give some rows split=test" in str(error.value)
    assert "data.splits=NAME:test" in str(error.value)


def test_hub_config_and_revision_are_passed_on(hub, monkeypatch):
    asked = []

    def load_dataset(path, **options):
        asked.append((path, options))
        row = {"question": "?", "answer": "1"}
        parts = {"train": [row], "test": [{**row, "question": "??"}]}
        return {name: hub.Dataset.from_list(rows) for name, rows in parts.items()}

    def load_dataset_builder(path, **options):
        return types.SimpleNamespace(config=types.SimpleNamespace())

    monkeypatch.setattr(hub, "load_dataset_builder", load_dataset_builder)
    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    data = DataConfig(source="hf", path="openai/gsm8k", config="main", revision="v1.1")
    assert len(load(data, seed=0).pool) == 1
    load(DataConfig(source="hf", path="openai/gsm8k"), seed=0)
    assert asked == [
        ("openai/gsm8k", {"name": "main", "revision": "v1.1"}),
        ("openai/gsm8k", {"name": None, "revision": None}),
    ]


def test_hub_reads_a_config_of_a_folder_and_names_those_there_are(tmp_path, hub):
    folder = tmp_path / "folder"
    folder.mkdir()
    entries = ""
    for name in ("main", "other"):
        entries += f"- config_name: {name}\n  data_files:\n"
        for split in ("train", "test"):
            row = {"question": f"{name} {split}?", "answer": "1"}
            (folder / f"{name}_{split}.jsonl").write_text(json.dumps(row))
            entries += f"  - {{split: {split}, path: {name}_{split}.jsonl}}\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
    data = DataConfig(source="hf", path=str(folder), config="other")
    assert load(data, seed=0).pool[0].question == "other train?"
    with pytest.raises(UserError, match=r"'main', 'other'.*data\.config selects one of several"):
        load(DataConfig(source="hf", path=str(folder)), seed=0)


@pytest.mark.parametrize("setting", ["config", "revision"])
def test_hub_config_and_revision_are_not_of_a_file(tmp_path, hub, setting):
    data = DataConfig(source="hf", path=write(tmp_path, GOOD), **{setting: "main"})
    with pytest.raises(UserError, match=f"data.{setting}=main requires a "):
        load(data, seed=0)


def classes(hub, folder, names, answers, **columns):
    features = {
        "question": hub.Value("string"),
        "answer": hub.ClassLabel(names=names),
        **{name: feature for name, (feature, _) in columns.items()},
    }
    for split in ("train", "test"):
        rows = {
            "question": [f"{split} {i}?" for i in range(len(answers))],
            "answer": answers,
            **{name: values for name, (_, values) in columns.items()},
        }
        found = hub.Dataset.from_dict(rows, features=hub.Features(features))
        found.to_parquet(folder / f"{split}.parquet")
    return str(folder)


def test_hub_classes_are_the_labels_of_the_task(tmp_path, hub):
    path = classes(hub, tmp_path, ["World", "Sports"], [1, 0])
    splits = load(DataConfig(source="hf", path=path, kind="label"), seed=0)
    assert [example.answer for example in splits.pool] == ["Sports", "World"]
    assert splits.pool[0].choices == ("World", "Sports")
    assert splits.pool[0].question == "train 0?"


@pytest.mark.parametrize("names", [["A", "B", "C", "D"], ["0", "1", "2", "3"]])
def test_hub_classes_that_name_an_option_of_the_row(tmp_path, hub, names):
    column = (hub.Sequence(hub.Value("string")), [["1", "2", "4", "3"]] * 2)
    path = classes(hub, tmp_path, names, [2, 0], choices=column)
    splits = load(DataConfig(source="hf", path=path, kind="choice"), seed=0)
    assert [example.answer for example in splits.pool] == ["4", "1"]
    assert splits.pool[0].question == "train 0?\nA) 1\nB) 2\nC) 4\nD) 3"


def test_hub_rows_without_a_class_are_bad(tmp_path, hub):
    path = classes(hub, tmp_path, ["no", "yes"], [1, -1])
    splits = load(DataConfig(source="hf", path=path, kind="label", on_bad_row="skip"), seed=0)
    assert len(splits.pool) == 1 and splits.bad.counts() == "2 x answer is not a class"
    assert splits.bad.rows[0].reason == "answer=-1 is not a class"


def test_hub_numbers_of_32_bits_are_as_short_as_they_were_written(tmp_path, hub):
    small = hub.Features({"question": hub.Value("string"), "answer": hub.Value("float32")})
    for split in ("train", "test"):
        rows = {"question": [f"{split} {i}?" for i in range(3)], "answer": [0.1, 0.0, 1234.5]}
        hub.Dataset.from_dict(rows, features=small).to_parquet(tmp_path / f"{split}.parquet")
    splits = load(DataConfig(source="hf", path=str(tmp_path)), seed=0)
    assert [example.answer for example in splits.pool] == ["0.1", "0.0", "1234.5"]


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_hub_reads_csv(tmp_path, hub, suffix, separator):
    path = tmp_path / f"rows.{suffix}"
    table = [["question", "answer", "split"], ["One?", "1", "train"], ["Two?", "2", "test"]]
    path.write_text("\n".join(separator.join(line) for line in table))
    splits = load(DataConfig(source="hf", path=str(path)), seed=0)
    assert [(e.question, e.answer) for e in (*splits.pool, *splits.test)] == [
        ("One?", "1"),
        ("Two?", "2"),
    ]


@pytest.mark.parametrize("other", ["7", '"1.234,5"', "", "x"])
@pytest.mark.parametrize(
    ("cell", "config", "answer"),
    [
        ("1.234", {"decimal": ","}, "1.234"),
        ("1.10", {"kind": "text"}, "1.10"),
        ("007", {"kind": "text"}, "007"),
        ("123456789012345678", {}, "123456789012345678"),
        ("True", {"kind": "text"}, "True"),
        ("None", {"kind": "label", "choices": ("None", "NA", "7", "1.234,5", "x")}, "None"),
        ("NA", {"kind": "label", "choices": ("None", "NA", "7", "1.234,5", "x")}, "NA"),
    ],
)
def test_a_cell_of_a_csv_file_is_the_text_that_is_there(tmp_path, hub, cell, config, answer, other):
    path = tmp_path / "rows.csv"
    lines = ["question,answer,split", f"One?,{cell},train", f"Two?,{cell},test", f"3?,{other},dev"]
    path.write_text("\n".join(lines))
    splits = load(DataConfig(source="hf", path=str(path), on_bad_row="skip", **config), seed=0)
    assert [example.answer for example in (*splits.pool, *splits.test)] == [answer, answer]
    if not other:
        assert splits.bad.rows[0].reason == "answer has no value; expected a text or a number"


def test_the_cells_of_a_folder_of_tsv_files_are_texts(tmp_path, hub):
    (tmp_path / "train.tsv").write_text("question\tanswer\tsplit\n1?\t007\t\n2?\t2.50\ttest\n")
    (tmp_path / "test.tsv").write_text("answer\tsplit\tquestion\nnull\t\t3?\n")
    splits = load(DataConfig(source="hf", path=str(tmp_path), kind="text"), seed=0)
    assert [example.answer for example in splits.pool] == ["007"]  # An empty cell is no split.
    assert [example.answer for example in splits.test] == ["null", "2.50"] or [
        example.answer for example in splits.test
    ] == ["2.50", "null"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("question,answer\n1?,2,3\n", "question,answer\n2?,2\n", "line 2 has more cells than"),
        ("question,answer\n1?,2\n", "question,gold\n2?,2\n", "has the columns question, gold"),
    ],
)
def test_csv_files_whose_columns_are_unclear(tmp_path, hub, train, test, message):
    (tmp_path / "train.csv").write_text(train)
    (tmp_path / "test.csv").write_text(test)
    with pytest.raises(UserError) as error:
        load(DataConfig(source="hf", path=str(tmp_path)), seed=0)
    if message not in str(error.value):  # The files come in any order.
        assert "has the columns question, answer" in str(error.value)


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
    assert f"line 5: answer={answer!r} is not a number{ways}\n" in str(caught.value)


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


AIME = [  # As the hub has them: no split of ours, and other columns than the pool.
    {"id": 60, "problem": "Find m+n.", "solution": "As shown.", "answer": "073", "split": "train"},
    {"id": 61, "problem": "Find k.", "solution": "As shown.", "answer": "204", "split": "train"},
]
POOL = [
    {"id": "a", "problem": "What is 1+1?", "answer": "2", "level": 1},
    {"id": "b", "problem": "What is 1+2?", "answer": "3", "level": 1, "split": "test"},
    {"id": "c", "problem": "What is 1+3?", "answer": "4", "level": 2, "split": "dev"},
]


def read_two(tmp_path, pool=POOL, test=AIME, **config):
    (tmp_path / "other").mkdir(exist_ok=True)
    path, other = write(tmp_path, pool), write(tmp_path / "other", test)
    settings = {"source": "jsonl", "pool": 0, "dev": 0, "test": 0} | config
    return load(
        DataConfig(path=path, test_path=other, columns={"question": "problem"}, **settings), 0
    )


@pytest.mark.parametrize("splits", [{}, {"train": "train", "dev": "dev"}])
def test_the_test_may_be_another_file(tmp_path, splits):
    found = read_two(tmp_path, splits=splits)
    assert [ids(part) for part in (found.pool, found.dev, found.test)] == [
        ["a"], ["c"], ["60", "61"]
    ]  # fmt: skip
    assert is_correct(parse_answer("Answer: 73", found.test[0]), found.test[0])


def test_the_test_may_be_another_dataset(tmp_path):
    pytest.importorskip("datasets")
    pool = [{key: value for key, value in row.items() if key != "split"} for row in POOL]
    found = read_two(tmp_path, pool, source="hf")
    assert [ids(part) for part in (found.pool, found.test)] == [["a", "b", "c"], ["60", "61"]]


@pytest.mark.parametrize("ours", ["train", "pool", "Train"])
def test_rows_without_a_split_are_of_the_pool_whatever_it_is_called(tmp_path, ours):
    pool = [POOL[0], POOL[2] | {"split": "mine"}, {"id": "d", "problem": "Two?", "answer": "2"}]
    found = read_two(tmp_path, pool, splits={"mine": ours})
    assert ids(found.pool) == ["a", "c", "d"]


def test_a_column_of_splits_that_the_config_names_must_be_there(tmp_path):
    config = DataConfig(
        "jsonl",
        write(tmp_path, POOL),
        str(tmp_path / "other.jsonl"),
        columns={"question": "problem", "split": "splitt"},
    )
    (tmp_path / "other.jsonl").write_text(json.dumps(AIME[0]) + "\n")
    with pytest.raises(UserError, match="no key 'splitt'"):
        load(config, 0)


def test_an_empty_test_file_and_one_that_is_the_pool_too(tmp_path):
    with pytest.raises(UserError, match=r"data\.test_path=.*rows\.jsonl: there are no rows"):
        read_two(tmp_path, test=[])
    path = write(tmp_path, POOL)
    with pytest.raises(UserError, match=r"is also data\.path"):
        load(DataConfig("jsonl", path, path, columns={"question": "problem"}), 0)


def test_faults_of_the_other_file_name_it(tmp_path):
    with pytest.raises(UserError, match=r"other/rows\.jsonl, line 2: has no key 'problem'"):
        read_two(tmp_path, test=[AIME[0], {"answer": "7"}])
    with pytest.raises(UserError, match=r"other/rows\.jsonl, line 1: asks the same question as"):
        read_two(tmp_path, test=[{"problem": "What is 1+1?", "answer": "2"}])
    config = DataConfig(
        "jsonl", write(tmp_path, POOL), "none.jsonl", columns={"question": "problem"}
    )
    with pytest.raises(UserError, match=r"data\.test_path=none\.jsonl: no such file"):
        load(config, 0)
