"""The failure signatures that a report names."""

from fake_run import change, evaluation_of, finish, read, remove, write_predictions

from bridge_jax.methods import budget_tests
from bridge_jax.methods.annotations import ANNOTATIONS, Annotation
from bridge_jax.methods.apprenticeship import SCORES, SELECTION, SelectionRecord
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.methods.filtering import RATIONALES, Judged
from bridge_jax.pipeline import files
from bridge_jax.report import page


def test_semantic_collapse(workdir):
    chosen = read(workdir, SELECTION, SelectionRecord) | {"ids": ["p1", "p5"], "size": 2}
    change(workdir, SELECTION, SelectionRecord, chosen)
    change(workdir, ANNOTATIONS, Annotation, read(workdir, ANNOTATIONS, Annotation)[:2])
    rows = read(workdir, RATIONALES, Judged)
    kept = [{**row, "kept": row["domain"] == "samples"} for row in rows]
    change(workdir, RATIONALES, Judged, kept)
    assert page.write(workdir)["warnings"] == [
        "Semantic collapse: the selection leaves out samples (40% of the pool).",
        "Semantic collapse: the kept rationales leave out fees (60% of the pool).",
    ]


def test_semantic_collapse_of_a_selection_without_scores(workdir):
    remove(workdir, SCORES.name)
    chosen = read(workdir, SELECTION, SelectionRecord) | {"ids": ["p1", "p5"], "size": 2}
    change(workdir, SELECTION, SelectionRecord, chosen)
    change(workdir, ANNOTATIONS, Annotation, read(workdir, ANNOTATIONS, Annotation)[:2])
    assert page.write(workdir)["warnings"] == [
        "Semantic collapse: the selection leaves out samples (40% of the pool).",
    ]


def test_instruction_blindness_and_budget_waste(workdir):
    write_predictions(workdir, "student", "rrrrrrrrnn")
    write_predictions(workdir, "assistant", "rrwwwwwwww")
    warnings = page.write(workdir)["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == [
        "Instruction blindness",
        "Budget waste",
    ]
    assert "80%" in warnings[0]
    html = (workdir / "report.html").read_text()
    assert "2 warnings" in html
    assert warnings[1].split(":")[0] in html


def test_nine_tenths_that_parse_are_enough(workdir):
    write_predictions(workdir, "student", "rrrrrrrrrn")
    assert page.write(workdir)["warnings"] == []


def test_answer_collapse(workdir):
    test = evaluation_of("student")
    gold = ["yes"] * 30 + ["no"] * 20
    said = ["no"] * 46 + [None] * 4

    def warnings(said):
        write_predictions(workdir, "student", "r" * 50)
        rows = read(workdir, test, Prediction)
        change(
            workdir,
            test,
            Prediction,
            [
                {**row, "gold": g, "answer": a, "correct": a == g}
                for row, g, a in zip(rows, gold, said, strict=True)
            ],
        )
        found = page.write(workdir)["warnings"]
        return [w for w in found if "answer" in w.split(":")[0].lower()]

    assert warnings(said) == [
        "Answer collapse: 'no' is 100% of the student's answers, "
        "and right for 40% of the questions.",
        "Below the commonest answer: 'yes' to every question would be right 60% of the time, "
        "the student is right 32%.",
    ]
    assert warnings(gold) == []
    assert len(warnings(["yes"] * 50)) == 1  # collapsed, though not below


def at_budgets(workdir, thinking, control="stated"):
    """Writes a test at budgets of 16 and 256: the thinking of its two replies at each."""
    config = files.read_json(workdir / "config.json") or {}
    files.write_json(workdir / "config.json", config | {"method": "budgeted"})
    rows = [
        budget_tests.Tested(
            id=f"t{number}",
            domain="",
            budget=budget,
            repeat=0,
            sample=0,
            completion="Thus.\nAnswer: 7",
            answer="7",
            gold="7",
            correct=True,
            thinking=tokens,
            tokens=tokens + 4,
        )
        for budget, both in zip((16, 256), thinking)
        for number, tokens in enumerate(both)
    ]
    finish(workdir, budget_tests.OF_CONTROL[control], {budget_tests.Tested: rows})


def test_budgets_that_are_ignored(workdir):
    write_predictions(workdir, "student", "rrrrrrrrrr")
    at_budgets(workdir, ((40, 60), (50, 62)))  # means of 50 and 56
    report = page.write(workdir)
    assert report["failures"] == ["Thinking budget ignored"]
    assert "at most 1.12 times" in report["warnings"][0]
    levels = report["budgets"]["stated"]["levels"]
    assert (levels["16"]["over"], levels["256"]["over"]) == (1.0, 0.0)
    assert levels["16"]["tokens"] == 54
    at_budgets(workdir, ((40, 60), (60, 70)))  # 1.3 times
    assert page.write(workdir)["failures"] == []
    # It is of the trained student alone.
    at_budgets(workdir, ((50, 50), (50, 50)), "truncated")
    assert page.write(workdir)["failures"] == []


def test_budgets_that_are_all_below_the_natural_length(workdir):
    write_predictions(workdir, "student", "rrrrrrrrrr")
    rows = read(workdir, evaluation_of("student"), Prediction)
    at_budgets(workdir, ((8, 16), (90, 110)))
    for tokens, failures in ((256, []), (257, ["All budgets below the natural length"])):
        longer = [{**row, "tokens": tokens} for row in rows]
        change(workdir, evaluation_of("student"), Prediction, longer)
        assert page.write(workdir)["failures"] == failures
