"""Rows without a split are divided by what they say, label by label; near-duplicates stay together.

`tests/tickets.py` writes what a person might have.
"""

import collections
import csv
import json
import random

import pytest
import tickets

from bridge_jax.config import DataConfig
from bridge_jax.data.dividing import group_alike
from bridge_jax.data.sources import load
from bridge_jax.errors import UserError

PARTS = ("pool", "dev", "test")
COLUMNS = {"question": "text", "answer": "team"}


def ids(splits):
    return [{example.id for example in getattr(splits, part)} for part in PARTS]


def read(path, seed=0, **more):
    settings = {"kind": "label", "choices": tickets.TEAMS, "on_bad_row": "skip"} | more
    source = "csv" if str(path).endswith("csv") else "jsonl"
    return load(DataConfig(source, str(path), columns=COLUMNS, **settings), seed)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tickets") / "tickets.csv"
    tickets.write(path)
    return path


def test_tickets_are_as_they_are_described(file):
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    assert rows[0] == ["id", "text", "team"] and len(rows) == 2_001
    good = [row for row in rows[1:] if row[2] in tickets.TEAMS and row[1] and len(row) == 3]
    assert len(good) == 1_993 and all(tickets.team_of(row[1]) == row[2] for row in good)
    long = sum(len(row[1].split()) > 60 for row in good)
    assert tickets.LONG <= long <= tickets.LONG + 5


def test_each_label_gives_its_share_and_repeats_stay_together(file):
    splits = read(file)
    assert splits.divided and len(splits.bad.rows) == 10
    sizes = [len(getattr(splits, part)) for part in PARTS]
    assert sum(sizes) == 1_990 and sizes[1:] == [199, 398]
    for part, low, high in (("dev", 38, 42), ("test", 77, 83)):
        counts = collections.Counter(example.answer for example in getattr(splits, part))
        assert set(counts) == set(tickets.TEAMS) and low <= min(counts.values())
        assert max(counts.values()) <= high
    # The script repeats 120 tickets with some words at the end.
    assert 110 <= splits.groups <= 125
    endings = (" Please!", " (sent again)", "!!", " Any news?")
    where = {example.question: part for part in PARTS for example in getattr(splits, part)}
    pairs = [
        (part, where[question.removesuffix(ending)])
        for question, part in where.items()
        for ending in endings
        if question.endswith(ending) and question.removesuffix(ending) in where
    ]
    assert len(pairs) > 110 and all(first == second for first, second in pairs)


def test_the_seed_draws_and_the_order_of_the_file_does_not_matter(file, tmp_path):
    with file.open(encoding="utf-8", newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row["team"] in tickets.TEAMS][:300]
    rows = [{"id": row["id"], "text": row["text"], "team": row["team"]} for row in rows]
    found = []
    for seed, name in ((0, "one"), (0, "other"), (1, "one")):
        path = tmp_path / f"{name}.jsonl"
        mixed = rows if name == "one" else random.Random(5).sample(rows, len(rows))
        path.write_text("\n".join(map(json.dumps, mixed)))
        found.append(ids(read(path, seed)))
    assert found[0] == found[1] != found[2]
    assert len(found[0][2] & found[2][2]) < 30  # Of 60; by chance they would share 12.


def test_a_test_file_of_its_own_leaves_dev_and_pool(file, tmp_path):
    other = tmp_path / "test.csv"
    other.write_text("id,text,team\nx,I wait for my lamp,delivery\n")
    splits = read(file, test_path=str(other))
    assert ids(splits)[2] == {"x"} and len(splits.dev) == 199 and len(splits.pool) == 1_791


def write(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def some(count, **more):
    return [{"text": f"{i} {i} is {i * i}", "team": "billing", **more} for i in range(count)]


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (some(4), {}, r"data\.dev_share=0\.1 of 4 .* selects none; add rows or raise it, or set"),
        (some(2), {"dev_share": 0.0}, r"data\.test_share=0\.2 of 2 distinct .* or name a file"),
        (some(9), {"test_share": 0.0}, r"data\.test_share=0 selects none for the test; raise it"),
        (some(9), {"test_share": 0.9, "dev_share": 0.1}, "leave nothing for the pool"),
        (
            [{"text": "The same, once more. " * 9 + "?" * i, "team": "billing"} for i in range(20)],
            {},
            r"data\.dev_share=0\.1 of 20 distinct rows",
        ),
    ],
)
def test_an_empty_split_is_an_error(tmp_path, rows, settings, said):
    with pytest.raises(UserError, match=said):
        read(write(tmp_path, rows), **settings)


def test_rows_are_not_divided_where_a_split_is_named(tmp_path):
    path = write(tmp_path, [*some(20), {"text": "x", "team": "billing", "split": "test"}])
    with pytest.raises(UserError, match="20 of 21 rows fail the same way: no key 'split'"):
        read(path, on_bad_row="error")
    with pytest.raises(UserError, match="all 20 rows fail the same way: no key 'split'"):
        read(write(tmp_path, some(20)), splits={"mine": "test"})


def test_a_label_of_few_rows_stays_in_the_pool(tmp_path):
    rows = [*some(60), {"text": "A bird sang in the tree.", "team": "account"}]
    splits = read(write(tmp_path, rows))
    assert [e.answer for part in (splits.dev, splits.test) for e in part] == ["billing"] * 18
    assert "account" in {e.answer for e in splits.pool}


def test_what_is_alike():
    texts = [
        "My lamp does not turn on any more, although I followed all of the manual.",
        "Something else altogether.",
        "MY LAMP does not  turn on\nany more, although I followed all of the manual. Please!",
        "你好，我的灯坏了，请帮我换一个新的，谢谢你们的帮助。",
        "你好，我的灯坏了，请帮我换一个新的，谢谢你们的帮助！",
        "Something else altogether.",
        "",
        "x",
    ]
    assert group_alike(texts) == [[0, 2], [1, 5], [3, 4], [6], [7]]


def test_many_that_are_alike_do_not_take_the_square_of_their_number():
    texts = [
        f"{'The monthly report of the office in the north is ready. ' * 4}{i}" for i in range(900)
    ]
    assert len(group_alike(texts)) == 1
