"""The failure signatures that a report names."""

import json

from fake_run import write_json, write_predictions, write_rows

from bridge_jax.studies import report


def test_semantic_collapse(workdir):
    path = workdir / "apprenticeship" / "selection" / "selection.json"
    write_json(path, {**json.loads(path.read_text()), "ids": ["p1", "p5"], "size": 2})
    path = workdir / "apprenticeship" / "annotations" / "annotations.jsonl"
    write_rows(path, [json.loads(line) for line in path.read_text().splitlines()[:2]])
    path = workdir / "tutoring" / "rationales" / "rationales.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_rows(path, [{**row, "kept": row["domain"] == "dosing"} for row in rows])
    assert report.write(workdir)["warnings"] == [
        "Semantic collapse: the selection leaves out dosing (40% of the pool).",
        "Semantic collapse: the kept rationales leave out fees (60% of the pool).",
    ]


def test_instruction_blindness_and_budget_waste(workdir):
    write_predictions(workdir, "student", "rrrrrrrrnn")
    write_predictions(workdir, "assistant", "rrwwwwwwww")
    warnings = report.write(workdir)["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == [
        "Instruction blindness",
        "Budget waste",
    ]
    assert "80%" in warnings[0]
    page = (workdir / "report.html").read_text()
    assert "2 warnings" in page
    assert warnings[1].split(":")[0] in page


def test_nine_tenths_that_parse_are_enough(workdir):
    write_predictions(workdir, "student", "rrrrrrrrrn")
    assert report.write(workdir)["warnings"] == []


def test_answer_collapse(workdir):
    path = workdir / "evaluation" / "student" / "predictions.jsonl"
    gold = ["yes"] * 30 + ["no"] * 20
    said = ["no"] * 46 + [None] * 4

    def warnings(said):
        write_predictions(workdir, "student", "r" * 50)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_rows(
            path,
            [
                {**row, "gold": g, "answer": a, "correct": a == g}
                for row, g, a in zip(rows, gold, said, strict=True)
            ],
        )
        found = report.write(workdir)["warnings"]
        return [w for w in found if "answer" in w.split(":")[0].lower()]

    assert warnings(said) == [
        "Answer collapse: 'no' is 100% of the student's answers, "
        "and right for 40% of the questions.",
        "Below the commonest answer: 'yes' to every question would be right 60% of the time, "
        "the student is 32%.",
    ]
    assert warnings(gold) == []
    assert len(warnings(["yes"] * 50)) == 1  # collapsed, though not below
