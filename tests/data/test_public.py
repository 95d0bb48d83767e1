"""Public datasets in the formats of their publishers, with rows that were made up."""

import collections
import json

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data import public
from bridge_jax.data.rows import BadRowsError
from bridge_jax.data.sources import load
from bridge_jax.errors import UserError
from launch import convert as command
from tests.launch import commands


def abstract(number, decision="yes", **changes):
    return {
        "QUESTION": f"Does treatment {number} help?",
        "CONTEXTS": [f"Treatment {number} was new.", f"It helped {number} patients."],
        "LABELS": ["BACKGROUND", "RESULTS"],
        "MESHES": ["Humans"],
        "YEAR": "2011",
        "reasoning_required_pred": "yes",
        "reasoning_free_pred": "yes",
        "final_decision": decision,
        "LONG_ANSWER": f"Treatment {number} helps.",
        **changes,
    }


def write(path, value):
    path.write_text(json.dumps(value))
    return str(path)


def splits(rows):
    found = collections.defaultdict(list)
    for row in rows:
        found[row["split"]].append(row["id"])
    return found


def read(tmp_path, rows, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(DataConfig(source="jsonl", path=str(path), pool=0, dev=0, test=0, **settings), 0)


def test_pubmedqa_is_cut_by_the_ids_of_its_test(tmp_path):
    labeled = {str(n): abstract(n, ("yes", "no", "maybe")[n % 3]) for n in range(12)}
    # One of the artificial rows is in the test too, and one has the abstract of another.
    artificial = {str(n): abstract(n) for n in (3, *range(100, 140))}
    artificial["200"] = abstract(100)
    found = public.convert(
        "pubmedqa",
        {
            "path": [write(tmp_path / "ori_pqal.json", labeled)],
            "train": [write(tmp_path / "ori_pqaa.json", artificial)],
        },
        test_ids=write(tmp_path / "test_ground_truth.json", dict.fromkeys(list("0123"), "yes")),
        counts=public.SplitCounts(train=30, dev=5),
    )
    parts = splits(found.rows)
    assert sorted(parts["test"]) == [f"pubmedqa-{n}" for n in range(4)]
    assert (len(parts["dev"]), len(parts["train"])) == (5, 30)
    assert found.left_out == {
        "train row whose context is already in test": 1,
        "train row that repeats a question": 1,
        "above --train_count": 3 + 40 - 30,
    }
    examples = read(tmp_path, found.rows, kind="label", choices=("yes", "no", "maybe"))
    first = {example.id: example for example in examples.test}["pubmedqa-1"]
    assert first.question == (
        "Abstract:\nBackground: Treatment 1 was new.\nResults: It helped 1 patients.\n\n"
        "Question: Does treatment 1 help?"
    )
    assert first.answer == "no" and first.rationales == {"human": "Treatment 1 helps."}


def test_the_hub_has_the_same_rows_as_the_repository(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = {str(n): abstract(n) for n in range(9)}
    hub = [
        {
            "pubid": int(name),
            "question": row["QUESTION"],
            "context": {"contexts": row["CONTEXTS"], "labels": row["LABELS"], "meshes": []},
            "long_answer": row["LONG_ANSWER"],
            "final_decision": row["final_decision"],
        }
        for name, row in rows.items()
    ]
    parquet.write_table(arrow.Table.from_pylist(hub), tmp_path / "train.parquet")
    counts = public.SplitCounts(dev=2, test=3)
    files = write(tmp_path / "ori_pqal.json", rows), str(tmp_path / "train.parquet")
    one, other = (public.convert("pubmedqa", {"path": [f]}, counts=counts).rows for f in files)
    assert one == other and len(one) == 9


CLAUSES = [
    (f"we may change {name} at any time .", "Unilateral change") for name in "abcdefghijkl"
] + [("you agree by using  the site .", "Contract by using")]


def tsv(path, rows):
    lines = [f"{i}\t{text}\t{answer}" for i, (text, answer) in enumerate(rows)]
    path.write_text("\n".join(["index\ttext\tanswer", *lines]) + "\n")
    return str(path)


def test_clauses_that_differ_in_case_alone_are_of_one_split(tmp_path):
    twice = [*CLAUSES, (CLAUSES[0][0].upper(), CLAUSES[0][1])]
    files = {
        "train": [tsv(tmp_path / "train.tsv", CLAUSES[-2:])],
        "path": [tsv(tmp_path / "test.tsv", twice)],
    }
    counts = public.SplitCounts(dev=2, test=4)
    seen = []
    for seed in range(8):
        found = public.convert("legalbench", files, counts=counts, seed=seed)
        questions = [row["question"].casefold() for row in found.rows]
        assert len(set(questions)) == len(questions) == 13
        # Rows with one clause are drawn together, and one of them is kept.
        assert 3 <= len(splits(found.rows)["test"]) <= 4
        seen.append(tuple(splits(found.rows)["test"]))
    assert len(set(seen)) > 4
    assert (
        public.convert("legalbench", files, counts=counts).rows
        == public.convert("legalbench", files, counts=counts).rows
    )


def test_all_columns_of_a_task_are_its_question(tmp_path):
    path = tmp_path / "task.tsv"
    path.write_text(
        "index\tcontract\tsome_question\tanswer\n" + "".join(f"{i}\tC{i}\tQ?\tYes\n" for i in "123")
    )
    found = public.convert("legalbench", {"path": [str(path)]}, counts=public.SplitCounts(0, 1, 1))
    assert {row["question"] for row in found.rows} == {
        f"Contract: C{i}\nSome question: Q?" for i in "123"
    }


def report(number, questions):
    cells = [["", "2019", "2018"], [f"Sales {number}", "$ 12", "9"]]
    paragraphs = ("Figures are in millions.", f"Company {number} reports sales.")
    numbered = (
        {"uid": f"q{number}-{i}", "order": i, "derivation": "", "scale": "", **each}
        for i, each in enumerate(questions)
    )
    return {
        "table": {"uid": f"t{number}", "table": cells},
        "paragraphs": [
            {"uid": f"p{order}", "order": order, "text": text}
            for order, text in zip((2, 1), paragraphs)
        ],
        "questions": list(numbered),
    }


QUESTIONS = [
    {
        "question": "What is the change?",
        "answer": 33.30,
        "answer_type": "arithmetic",
        "derivation": "(12 - 9) / 9",
        "scale": "percent",
    },
    {"question": "How many years are shown?", "answer": "2", "answer_type": "count"},
    {"question": "What are the sales of 2019?", "answer": ["$ 12"], "answer_type": "span",
     "scale": "million"},
    {"question": "Which years are shown?", "answer": ["2019", "2018"],
     "answer_type": "multi-span"},
    {"question": "Who reports?", "answer": ["the company"], "answer_type": "span"},
]  # fmt: skip


@pytest.fixture
def tatqa(tmp_path):
    """Three files in the publishers' splits; a table of training is in the test too."""
    train = json.dumps([report(1, QUESTIONS), report(2, QUESTIONS)]).replace("33.3,", "33.30,")
    (tmp_path / "train.json").write_text(train)
    leak = report(2, [QUESTIONS[1]])
    leak["questions"][0]["uid"] = "other"
    return {
        "train": [str(tmp_path / "train.json")],
        "dev": [write(tmp_path / "dev.json", [report(3, QUESTIONS)])],
        "test": [write(tmp_path / "gold.json", [report(4, QUESTIONS), leak])],
    }


def test_numbers_of_tatqa(tmp_path, tatqa):
    found = public.convert("tatqa_numbers", tatqa)
    assert {part: sorted(ids) for part, ids in splits(found.rows).items()} == {
        "train": ["tatqa-q1-0", "tatqa-q1-1", "tatqa-q1-2"],
        "dev": ["tatqa-q3-0", "tatqa-q3-1", "tatqa-q3-2"],
        "test": ["tatqa-other", "tatqa-q4-0", "tatqa-q4-1", "tatqa-q4-2"],
    }
    assert found.left_out["train row whose context is already in test"] == 3
    assert found.left_out["answer of another kind"] == 8
    examples = read(tmp_path, found.rows, kind="numeric")
    by_id = {example.id: example for example in examples.pool}
    change = by_id["tatqa-q1-0"]
    assert change.question == (
        "Text:\nCompany 1 reports sales.\nFigures are in millions.\n\n"
        "Table:\n | 2019 | 2018\nSales 1 | $ 12 | 9\n\n"
        "Question: What is the change? Answer in percent."
    )
    # The digits of the file say how exact the answer is.
    assert change.answer == "33.30"
    assert change.rationales == {"human": "Derivation: (12 - 9) / 9"}
    assert by_id["tatqa-q1-2"].question.endswith("sales of 2019? Answer in millions.")


def test_spans_of_tatqa(tatqa):
    found = public.convert("tatqa_spans", tatqa)
    assert {row["answer"] for row in found.rows} == {"2019; 2018", "the company"}
    assert len(splits(found.rows)["train"]) == 4


def test_bad_rows_are_named_and_may_be_left_out(tmp_path):
    rows = {str(n): abstract(n) for n in range(6)}
    rows["1"] = abstract(1, "perhaps")
    rows["2"] = abstract(2, CONTEXTS="one text")
    rows["3"] = abstract(3, QUESTION=None)
    rows["4"] = ["no object"]
    files, counts = {"path": [write(tmp_path / "ori.json", rows)]}, public.SplitCounts(0, 0, 1)
    with pytest.raises(BadRowsError) as error:
        public.convert("pubmedqa", files, counts=counts)
    said = str(error.value).replace(str(tmp_path), "")
    assert "/ori.json, item 2: final_decision='perhaps' is not yes, no or maybe" in said
    assert "/ori.json, item 3: contexts is not a list of texts" in said
    assert "/ori.json, item 4: question has no value" in said
    assert "/ori.json, item 5: is a JSON list, not an object" in said
    assert said.endswith("leave them out with --on_bad_row=skip")
    found = public.convert("pubmedqa", files, counts=counts, on_bad_row="skip")
    assert len(found.rows) == 2 and len(found.bad.rows) == 4


WHY = {"question": "Why?", "answer": [], "answer_type": "span"}


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        ({"table": {"table": []}, "questions": []}, "item 1: has no table of cells"),
        (
            report(1, [WHY | {"answer": "so", "answer_type": "arithmetic"}]),
            "item 1, question 1: answer='so' of answer_type=arithmetic is not a number",
        ),
        (report(1, [WHY]), "item 1, question 1: answer=[] is not a text"),
        (report(1, [QUESTIONS[1] | {"uid": "u"}] * 2), "question 2: id='u' was used before"),
    ],
)
def test_faults_of_tatqa(tmp_path, item, fault):
    with pytest.raises(BadRowsError) as error:
        public.convert("tatqa_numbers", {"test": [write(tmp_path / "gold.json", [item])]})
    assert fault in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("gone.json", None, "no such file"),
        ("data.tar.gz", "", "give a json, jsonl, ndjson, csv, tsv, parquet file; unpack archives"),
        ("cut.json", '{"1": {', "is not JSON"),
        ("text.json", '"text"', "holds a str, not a list or an object"),
        ("broken.parquet", "PAR1", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, fault):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as error:
        public.convert("pubmedqa", {"path": [str(path)]})
    assert str(error.value).startswith(f"--path={path}") and fault in str(error.value)


def test_an_empty_split_and_an_unknown_id_are_errors(tmp_path):
    files = {"path": [write(tmp_path / "ori.json", {str(n): abstract(n) for n in range(6)})]}
    with pytest.raises(UserError, match="no rows for train: give files for it"):
        public.convert("pubmedqa", files)
    with pytest.raises(UserError, match="names 1 ids that no row of --path has, such as 77"):
        public.convert("pubmedqa", files, test_ids=write(tmp_path / "ids.json", ["1", "77"]))


def test_the_command_knows_all_sources():
    assert set(command.SOURCES) == set(public.SOURCES)


def test_the_command_writes_a_file_that_a_run_reads(tmp_path, tatqa):
    out = tmp_path / "new" / "tatqa.jsonl"
    flags = [f"--{part}={','.join(paths)}" for part, paths in tatqa.items()]
    process = commands.start("launch.convert", "--from=tatqa_numbers", *flags, f"--out={out}")
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"{out}: 3 train, 3 dev, 4 test" in said
    assert "left out: 3 x train row whose context is already in test" in said
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(read(tmp_path, rows, kind="numeric").pool) == 3
    process = commands.start(
        "launch.convert", "--from=pubmedqa", "--path=gone.json", f"--out={out}"
    )
    assert "error: --path=gone.json: no such file" in process.communicate()[1]
    assert process.returncode == 2
