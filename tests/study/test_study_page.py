"""The page, the figures and the tables of a study."""

import csv
import dataclasses
import io
import json
import re
from xml.etree import ElementTree

import fake_study
import pytest
from fake_study import run
from rich.console import Console

from bridge_jax.evaluation.intervals import mean_over_seeds
from bridge_jax.report import figures
from bridge_jax.report.figures import PAPER, Drawing
from bridge_jax.study import study_figures, study_page

OKABE_ITO = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"}


@pytest.fixture(scope="module")
def scaling(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling") / "study"
    fake_study.scaling(folder, questions=60, seeds=2)
    return folder, study_page.write(folder)


def test_the_page_is_whole_and_needs_nothing_else(scaling):
    folder, result = scaling
    page = (folder / "study.html").read_text()
    assert result["question"] in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    for words in ("30 of 30 runs", "Paid: $0.0640", "Budget advice", "runs/random-5-seed1/"):
        assert words in page, words
    assert page.count("<svg") == page.count("</svg>") >= 2 + 2 + 2 + 1 + len(result["advice"]) // 2
    ids = re.findall(r'\bid="([^"]+)"', page.replace('class="narrow"', ""))
    assert len(ids) > 10


def test_drawings_on_the_page_take_their_colours_from_it(scaling):
    for drawing in study_figures.figures(scaling[1], 720):
        svg = drawing.svg()
        assert not re.search(r"#[0-9a-f]{6}", svg), drawing.name
        assert "mathdefault" not in svg, drawing.name
        assert drawing.svg() == svg, "the same input gives the same bytes"


@pytest.mark.parametrize("xs", [[1, 2, 3, 5, 8, 13, 21, 34, 55, 100], list(range(10, 20))])
def test_an_axis_with_many_numbers_has_no_formulas(xs):
    def draw(axes, _):
        figures.log_scale(axes, xs)
        figures.plain_ticks(axes, xs)
        axes.plot(xs, xs)

    svg = Drawing("many", 300, 200, draw).svg()
    assert "mathdefault" not in svg and ">10<" in svg


@pytest.mark.parametrize("width", [360, 720])
def test_long_names_of_variants_are_not_cut(scaling, width):
    text = json.dumps(scaling[1])
    for name in ("random", "coverage", "difficulty"):
        text = text.replace(f'"{name}"', f'"{name} questions, filtered by gold"')
    result = json.loads(text)
    checked = 0
    for drawing in study_figures.figures(result, width):
        if drawing.name not in ("accuracy", "gaps"):
            continue
        with drawing.drawn(PAPER, "path") as figure:
            figure.draw_without_rendering()
            (axes,) = figure.axes
            assert axes.get_legend().get_window_extent().x1 <= drawing.width
            assert axes.get_window_extent().width >= drawing.width / 3
        checked += 1
    assert checked == 2


def test_names_on_the_frontier_leave_each_other_room(scaling):
    points = scaling[1]["points"]
    crowded = {cost: list(range(len(points))) for cost in study_figures.COST_NAMES}
    result = scaling[1] | {"frontier": crowded}
    best = max(points, key=lambda p: (p["cost"]["usd"], p["accuracy"]["student"]["mean"]))
    (drawing,) = [d for d in study_figures.figures(result, 720) if d.name == "frontier-usd"]
    with drawing.drawn(PAPER, "path") as figure:
        figure.draw_without_rendering()
        texts = figure.axes[0].texts
        boxes = [text.get_window_extent() for text in texts]
        beginning = figure.axes[0].get_window_extent().x0
        dots = [figure.axes[0].transData.transform(text.xy) for text in texts]
    # Above and to the left of its dot, where the line does not go, and within the axes.
    assert all(beginning <= b.x0 and b.x1 < x and y < b.y0 for b, (x, y) in zip(boxes, dots))
    assert 1 < len(texts) < len(points)
    assert texts[0].get_text() == study_figures.label(best)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_files_are_vectors_in_colours_that_all_can_tell_apart(scaling):
    folder, _ = scaling
    assert set(PAPER.series) == OKABE_ITO
    names = {path.name for path in (folder / "figures").iterdir()}
    kinds = ("accuracy", "differences", "gaps", "frontier-usd", "frontier-tokens")
    assert {f"{kind}.{end}" for kind in kinds for end in ("svg", "pdf")} <= names
    svg = (folder / "figures" / "accuracy.svg").read_text()
    assert "<image" not in svg
    used = set(re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})", svg))
    neutral = {PAPER.ink, PAPER.muted, PAPER.rule, "#ffffff"}
    assert used & OKABE_ITO and used <= OKABE_ITO | neutral
    assert (folder / "figures" / "accuracy.pdf").read_bytes().startswith(b"%PDF")


def test_the_csv_has_every_number(scaling):
    folder, result = scaling
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert len(rows) == len(result["points"]) == 15
    for row, point in zip(rows, result["points"]):
        assert (row["variant"], float(row["x"])) == (point["variant"], point["x"])
        student = point["accuracy"]["student"]
        assert float(row["accuracy_student"]) == student["mean"]
        assert float(row["accuracy_student_low"]) == student["low"]
        assert float(row["usd"]) == point["cost"]["usd"]
        assert (row["difference"] == "") == (point["variant"] == "random")


def test_the_latex_is_a_booktabs_table(scaling):
    lines = (scaling[0] / "table.tex").read_text().splitlines()
    assert lines[1] == r"\begin{tabular}{lrrrrrrrrr}"
    assert lines[2] == r"\toprule" and lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert r"teacher queries, \% of the pool" in lines[3]
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 16
    assert all(line.count(" & ") == 9 for line in body)
    assert body[0].endswith(r"Constant & US dollars & Teacher tokens & n & Seeds \\")
    assert all(line.endswith(r" & 60 & 2 \\") for line in body[1:])
    words = "\n".join(body)
    assert "$-$" in words and "−" not in words
    assert not re.search(r"(?<!\\)[%$#_]", words.replace("$-$", ""))


@pytest.mark.slow
def test_a_variant_may_be_called_anything(tmp_path):
    nasty = "50% & <b>_$x$"
    runs = [run("plain", 0), dataclasses.replace(run("other", 0), variant=nasty)]
    right = {(v, None, 0): {"student": [True] * 5 + [False] * 5} for v in ("plain", nasty)}
    fake_study.write(tmp_path / "study", fake_study.study(runs, "plain"), right)
    result = study_page.write(tmp_path / "study")
    page = (tmp_path / "study" / "study.html").read_text()
    assert "<b>" not in page and "50% &amp; &lt;b&gt;_$x$" in page
    latex = study_page.to_latex(result)
    assert r"50\% \& <b>\_\$x\$" in latex
    console = Console(file=io.StringIO(), width=160)
    study_page.print_study(result, console)
    assert nasty in console.file.getvalue()


@pytest.mark.parametrize(
    "names",  # What a variant is called, in the terminal, and in the CSV.
    [
        [
            ("[/INST] a", "[/INST] a", "[/INST] a"),
            ("[/b]:bug:", "[/b]:bug:", "[/b]:bug:"),
            ("=1+1", "=1+1", "'=1+1"),
        ],
        [
            (r"$\undefined{x$ --", r"$\undefined{x$ --", r"$\undefined{x$ --"),
            ("\x1b[2Ja\rb", r"\x1b[2Ja\rb", r"\x1b[2Ja\rb"),
            ("two\nlines", r"two\nlines", "two\nlines"),
        ],
    ],
    ids=["markup", "control"],
)
def test_hostile_names_of_variants_are_only_names(tmp_path, names):
    called, shown, in_csv = zip(*names)
    runs = [dataclasses.replace(run(f"other {i}", 0), variant=v) for i, v in enumerate(called)]
    runs.insert(0, run("plain", 0))
    right = {(v, None, 0): {"student": [True] * 5 + [False] * 5} for v in ("plain", *called)}
    folder = tmp_path / "study"
    fake_study.write(folder, fake_study.study(runs, "plain"), right)
    result = study_page.write(folder)
    console = Console(file=io.StringIO(), width=160)
    study_page.print_study(result, console)
    said = console.file.getvalue()
    for name in shown:
        assert any(line.startswith(name + " ") for line in said.splitlines())
    assert not re.search("[\x1b\r]", said)
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert [row["variant"] for row in rows] == ["plain", *in_csv]
    assert {float(row["accuracy_student"]) for row in rows} == {0.5}
    body = [line for line in (folder / "table.tex").read_text().splitlines() if " & " in line]
    assert [line.count(" & ") for line in body] == [7] * 5
    assert all(line.endswith(r"\\") for line in body)
    for file in (folder / "figures").glob("*.svg"):
        ElementTree.fromstring(file.read_text())  # well-formed


def level(mean, low, high, **seeds):
    return {"mean": mean, "low": low, "high": high, "seeds": seeds or {"0": mean}}


def test_a_difference_is_said_with_its_verdict():
    def said(low, high, *seeds):
        mean, t_low, t_high = mean_over_seeds(seeds)
        found = level(mean, low, high, **{str(i): seed for i, seed in enumerate(seeds)})
        return study_page.verdict(found | {"t_low": t_low, "t_high": t_high})

    assert said(0.02, 0.3, 0.1, 0.12, 0.11) == "ahead; better for 3 of 3 seeds"
    assert said(-0.3, -0.02, -0.1, -0.12, -0.11) == "behind; better for 0 of 3 seeds"
    one = "inconclusive; better for 1 of 1 seed, and one seed says nothing about others"
    assert said(0.02, 0.2, 0.1) == one
    # Student's interval of two seeds is 12.7 times their standard error. 7.85 x .005 / .0225 = 1.7.
    assert said(0.02, 0.2, 0.1, 0.2) == (
        "inconclusive; better for 2 of 2 seeds; about 3 would be needed to tell"
    )
    # Mean .02, variance .01: 7.849 x .01 / .0004 = 196.
    assert said(-0.1, 0.2, -0.08, 0.02, 0.12) == (
        "inconclusive; better for 2 of 3 seeds, and more than 100 would be needed"
    )
    point = {"difference": level(0.0412, -0.002, 0.08)}
    assert study_page.difference(point) == "+4.1 (−0.2 to +8.0)"


def test_the_terminal_has_the_table_the_bill_and_the_signs(scaling):
    console = Console(file=io.StringIO(), width=160)
    study_page.print_study(scaling[1], console)
    said = console.file.getvalue()
    assert "Paid     $0.0640 for 64 queries in all" in said
    assert "all 30 are done" in said
    assert "Instruction blindness in 4 of 30 runs: difficulty at 0.1, 1 (4)." in said
    (row,) = (line for line in said.splitlines() if line.startswith("coverage") and " 20 " in line)
    assert "$0.0640" in row


def test_a_narrow_terminal_has_fewer_columns_and_no_broken_words(scaling):
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    study_page.print_study(scaling[1], console)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert all(len(line) <= 80 for line in lines if str(scaling[0]) not in line)
    assert "inconclusive" in out.getvalue() and not any("parse" in line for line in lines)


def test_what_students_are_seen_against_is_in_page_figures_and_tables(scaling):
    """Nine answers take turns in 60 questions: the first of them is right for 7."""
    folder, result = scaling
    assert result["levels"] == {"constant": pytest.approx(7 / 60)}
    assert all(point["constant"] == pytest.approx(7 / 60) for point in result["points"])
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert {(row["seeds"], row["questions"]) for row in rows} == {("2", "60")}
    page = (folder / "study.html").read_text()
    assert "Baselines: the constant answer is right for 12%." in page
    assert "Made with jax 0.9.1" in page and result["made_with"]["jax"] == ["0.9.1"]
    drawn = study_figures.figures(result, 720)[0].svg()
    assert "constant answer" in drawn
    beside = result | {"levels": {"constant": 0.1, "labels": 0.9}}
    assert "labels alone" in study_figures.figures(beside, 720)[0].svg()


def test_answers_are_honest():
    fitted = {
        "status": "fitted", "budgets": [1.0, 4.0, 20.0, 80.0], "accuracy": [0.3, 0.4, 0.6, 0.7],
        "held_out": None, "curves": {"a": [0.8] * 3, "b": [0.6] * 3, "c": [0.5] * 3},
    }  # fmt: skip
    flat = {"status": "flat", "budgets": [1.0, 4.0, 20.0, 80.0], "accuracy": [0.5] * 4}
    few = {"status": "few", "budgets": [1.0, 4.0], "accuracy": [0.5] * 2}

    def said(advice, accuracy=None, queries=None):
        return study_page.answers({"advice": {"v": advice}}, accuracy, queries)

    # 0.8 - 0.6 (B + 1)^-0.5: 0.7 at B = 35, 0.75 at B = 143.
    assert said(fitted, 0.7) == ["v: 70% takes about 35 queries (90%: 35 to 35)."]
    (beyond,) = said(fitted, 0.75)
    assert "not reached within what was measured (up to 80 queries)" in beyond
    assert "about 143 queries" in beyond
    assert said(fitted, 0.9) == ["v: 90% is not reachable: the curve levels off below it."]
    assert said(fitted, queries=35) == ["v: 35 queries buy about 70% (90%: 70–70%)."]
    assert said(fitted, queries=99)[0].endswith("beyond what was measured.")
    assert "no gain with the budget can be distinguished from chance" in said(flat, 0.6)[0]
    assert said(few, 0.6) == ["v: 2 budgets measured, a curve needs 4."]


def test_a_figure_of_an_earlier_state_does_not_stay(tmp_path):
    runs = [run(v, 0, x, int(x)) for v in ("a", "b") for x in (1.0, 2.0)]
    right = {(c.variant, c.x, 0): {"student": [True, False] * 5} for c in runs}
    folder = tmp_path / "study"
    fake_study.write(folder, fake_study.study(runs, "a", "queries"), right)
    study_page.write(folder)
    assert (folder / "figures" / "frontier-usd.svg").exists()
    same = [run(v, 0, x, 5) for v in ("a", "b") for x in (1.0, 2.0)]
    fake_study.write(folder, fake_study.study(same, "a", "queries"), right)
    study_page.write(folder)
    assert not (folder / "figures" / "frontier-usd.svg").exists()
    assert "All points cost about the same." in (folder / "study.html").read_text()
