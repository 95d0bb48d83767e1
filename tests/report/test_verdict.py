"""The verdict at the top of a report: every case, from predictions that are counted by hand."""

import io

import fake_run
import pytest
from rich.console import Console

from bridge_jax.methods.annotations import ANNOTATIONS, Annotation
from bridge_jax.methods.baselines import LABELS
from bridge_jax.methods.on_policy import ON_POLICY, StudentReply
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.pipeline import files
from bridge_jax.report import formatting, page

FIVE = ["billing"] * 40 + ["login"] * 20 + ["shipping"] * 20 + ["returns"] * 15 + ["account"] * 5
DIGITS = [str(i % 10) for i in range(100)]


@pytest.fixture
def bare(workdir):
    """The small run without its tests; its teacher was right about three of four questions."""
    for role in fake_run.OUTCOMES:
        fake_run.remove(workdir, f"evaluation/{role}")
    return workdir


def said(gold, right, wrong="none of them"):
    """Returns answers of which the first `right` are right, and the others wrong."""
    return [*gold[:right], *[wrong] * (len(gold) - right)]


def verdict(workdir, gold, method=None, **models):
    """Writes the tests of models, each as the answers it gave, and returns the verdict."""
    for role, answers in models.items():
        fake_run.write_answers(workdir, role, gold, answers, method)
    return page.write(workdir)["verdict"]


def fact(found, code):
    """Returns the fact of a verdict with this code."""
    return next(fact for fact in found["facts"] if fact["code"] == code)


def with_config(workdir, **changes):
    config = files.read_json(workdir / "config.json") or {}
    files.write_json(workdir / "config.json", config | changes)


def as_long(workdir, labels=3):
    """Writes the trainings of the student and of the one on labels, of three steps and `labels`."""
    steps = [fake_run.step(s, 1.0, 1.0, 9.0) for s in range(labels)]
    fake_run.train(workdir, STUDENT, 1.0)
    fake_run.finish(workdir, LABELS, fake_run.trained(steps))


def test_tickets_that_labels_tell_all_about(bare):
    """Truth: labels tell all. 65 and 97 of 100 right; 32 only by labels, none only by rationales.

    Padded: m = 102, centre -32/102, half 1.96 sqrt(32 + 1 - 32²/102) / 102 = 0.092074.
    """
    as_long(bare)
    student = [*FIVE[:65], *["billing"] * 35]
    found = verdict(bare, FIVE, student=student, student_labels=said(FIVE, 97))
    assert found["code"] == "labels_enough"
    assert found["line"] == (
        "Labels alone are better for this task, and cost no teacher: trained on them in as many "
        "steps the student answers 97%, with rationales 65%."
    )
    labels = fact(found, "student_labels")
    assert labels["difference"] == pytest.approx(-0.32)
    assert (labels["low"], labels["high"]) == pytest.approx((-0.405800, -0.221651), abs=1e-5)
    assert (
        "alone in as many steps: 97%. The student is 32 points below (22.2 to 40.6)."
        in labels["text"]
    )
    # 65 billing, login and 5 of shipping; the others are all called billing.
    assert found["facts"][:2] == [
        {"code": "class", "class": "returns",
         "text": "Never answers “returns”: 0 of 15, mostly taken for “billing” (15)."},
        {"code": "class", "class": "account",
         "text": "Never answers “account”: 0 of 5, mostly taken for “billing” (5)."},
    ]  # fmt: skip
    assert "--config.method=labels" in fact(found, "advice")["text"]


def test_digits_that_reasoning_is_needed_for(bare):
    """Truth: labels tell nothing. 80 and 12 of 100 right.

    m = 102, centre 68/102, half 1.96 sqrt(68 + 1 - 68²/102) / 102 = 0.0934.
    """
    as_long(bare)
    found = verdict(bare, DIGITS, student=said(DIGITS, 80), student_labels=said(DIGITS, 12))
    assert found["code"] == "rationales_add"
    assert found["line"] == (
        "The rationales add 68 points (57.3 to 76): the student answers 80%, trained on labels "
        "alone in as many steps 12%."
    )
    constant = fact(found, "constant")
    assert constant["other"] == 0.1 and constant["difference"] == pytest.approx(0.7)


def test_random_labels_that_nothing_can_be_learned_from(bare):
    """Truth: nothing is learnable. Always "billing" is right about 40 of 100, the student about 43.

    It alone is right about 5, the constant alone about 2: m = 102, centre 3/102, half
    1.96 sqrt(8 - 9/102) / 102 = 0.054048.
    """
    student, labels = ["billing"] * 38 + ["account"] * 62, ["login"] * 100
    found = verdict(bare, FIVE, student=student, student_labels=labels)
    assert found["code"] == "nothing_learned"
    assert found["line"] == (
        "Nothing was learned that can be distinguished from chance: the student answers 43%, "
        "always answering “billing” is right for 40% (−2.5 to +8.3 points); trained on labels "
        "alone it answers 20%."
    )
    # Labels that did teach something are more worth telling.
    found = verdict(bare, FIVE, student_labels=said(FIVE, 80))
    assert found["code"] == "labels_enough"


def test_the_constant_answer_is_the_commonest_of_the_pool(bare):
    fake_run.write_data(bare, commonest=["login", 30, 100])
    found = verdict(bare, FIVE, student=["login"] * 100)
    assert found["code"] == "nothing_learned"
    assert found["line"] == (
        "Nothing was learned: the student answers 20%, always answering “login” is right for 20%."
    )
    report = page.write(bare)
    assert report["constant"] == {"answer": "login", "accuracy": 0.2, "commonest_of": "pool"}


def test_labels_are_enough_if_rationales_can_add_little(bare):
    """99 and 99 of 200, one only by each: m = 202, half 1.96 sqrt(3) / 202 = 0.0168."""
    gold = FIVE * 2
    one, other = said(gold, 150), said(gold, 150)
    one[0], other[1] = "none of them", "none of them"
    found = verdict(bare, gold, student=one, student_labels=other)
    assert found["code"] == "labels_enough"
    assert found["line"].startswith("Labels alone are enough for this task")
    assert fact(found, "student_labels")["high"] == pytest.approx(0.016806, abs=1e-6)


def test_what_cannot_be_told(bare):
    """60 and 55 of 100: the first only about 15, the second only about 10.

    m = 102, centre 5/102, half 1.96 sqrt(26 - 25/102) / 102 = 0.0975. They disagree on
    26/102; for 5 points (1.96 sqrt(.2549) + .8416 sqrt(.2549 - .0025))² / .0025 = 797.9.
    """
    as_long(bare, labels=4)
    one = [*FIVE[:60], *["none of them"] * 40]
    other = [*["none of them"] * 15, *FIVE[15:70], *["none of them"] * 30]
    found = verdict(bare, FIVE, student=one, student_labels=other)
    assert found["code"] == "undecided"
    assert found["line"] == (
        "100 questions are too few to tell whether the rationales add anything: the student "
        "answers 60%, trained on labels alone 1.3 times as long 55%."
    )
    labels = fact(found, "student_labels")
    assert (labels["low"], labels["high"]) == pytest.approx((-0.04850, 0.14654), abs=1e-5)
    assert labels["needed"] == 798
    assert labels["text"] == (
        "Trained on labels alone 1.3 times as long (4 steps, the student 3): 55%. The student is "
        "5 points above (−4.8 to +14.7), which may be chance: about 800 test questions would be "
        "needed to show it."
    )


def test_an_equal_share_is_not_called_chance(bare):
    as_long(bare, labels=3)
    half, other = ([*FIVE[:50], *["none of them"] * 50], [*["none of them"] * 50, *FIVE[50:]])
    text = fact(verdict(bare, FIVE, student=half, student_labels=other), "student_labels")["text"]
    assert "50%, as the student (−" in text and "would be needed to show" in text
    assert "points): about" in text and "chance" not in text


def own_length(workdir, patience=0):
    """Has the config set the length of the training on labels itself, or the dev split."""
    labels = {"epochs": 0 if patience else 2, "patience": patience}
    with_config(workdir, labels_training=labels)


UNFAIR = (
    "Rationales and labels were not compared fairly: the student answers {} after 3 steps, the one "
    "trained on labels alone {} after only 2. Run again with labels_training.epochs=0, and it is "
    "trained for as many."
)


@pytest.mark.parametrize("labels", [32, 70, 85])
def test_labels_that_were_learned_for_fewer_steps_prove_nothing(bare, labels):
    """Far below the student, about as good, and above it: more steps might change each."""
    own_length(bare)
    as_long(bare, labels=2)
    direct = said(DIGITS, 95)
    answers = {"student": said(DIGITS, 75), "student_labels": said(DIGITS, labels)}
    found = verdict(bare, DIGITS, student_direct=direct, **answers)
    if labels == 85:  # The interval ends below 0: they are better all the same.
        assert found["code"] == "labels_enough"
        assert "trained on them in only 2 steps of 3 the student answers 85%" in found["line"]
        assert fact(found, "advice")["text"].endswith("no teacher: --config.method=labels.")
        return
    assert (found["code"], found["line"]) == ("unfair", UNFAIR.format("75%", f"{labels}%"))
    assert "labels alone in only 2 steps of 3: " in fact(found, "student_labels")["text"]
    advice = "To compare them fairly: --config.labels_training.epochs=0."
    assert fact(found, "advice")["text"] == advice
    as_long(bare)
    assert page.write(bare)["verdict"]["code"] == "direct_better" if labels == 32 else "undecided"


def test_labels_that_the_dev_split_stopped_had_their_chance(bare):
    own_length(bare, patience=2)
    as_long(bare, labels=2)
    answers = {"student": said(DIGITS, 75), "student_labels": said(DIGITS, 32)}
    found = verdict(bare, DIGITS, **answers)
    assert found["code"] == "rationales_add"
    assert found["line"].endswith(
        "labels alone for 2 steps of 3, where the dev split stopped it, 32%."
    )


@pytest.mark.parametrize(
    ("losses", "code"),
    [
        ([1.2, 0.5, 0.45, 0.4, 0.25], "unfair"),  # As in triage: labels would tell all.
        ([0.54, 0.49, 0.48, 0.47, 0.46], "rationales_add"),  # As in check digits.
        ([0.8, 0.04, 0.01, 0.006, 0.001], "rationales_add"),  # Known by heart.
    ],
)
def test_labels_that_are_still_being_learned_are_given_more_time(bare, losses, code):
    student = {"epochs": 3, "steps": 0, "learning_rate": 1e-3, "batch_rows": 1, "row_tokens": 256}
    labels = {"epochs": 0, "steps": 0, "learning_rate": 3e-4, "batch_rows": 8, "row_tokens": 256}
    with_config(bare, student_training=student, labels_training=labels)
    steps = [fake_run.step(s, loss, 1.0, 9.0) for s, loss in enumerate(losses)]
    fake_run.finish(bare, STUDENT, fake_run.trained(steps))
    fake_run.finish(bare, LABELS, fake_run.trained(steps))
    answers = {"student": said(DIGITS, 75), "student_labels": said(DIGITS, 50)}
    found = verdict(bare, DIGITS, **answers)
    assert found["code"] == code
    if code == "unfair":
        assert found["line"] == (
            "It is too early to tell what the rationales add: the student answers 75%, the one "
            "trained on labels alone in as many steps 50%, and that one was still learning. Train "
            "it for longer, such as 10 steps."
        )
        assert fact(found, "advice")["text"] == (
            "To compare them fairly: --config.labels_training.learning_rate=0.001 "
            "--config.labels_training.batch_rows=1 --config.labels_training.steps=10."
        )
    # Labels that are enough already need no more.
    found = verdict(bare, DIGITS, student_labels=said(DIGITS, 95))
    assert found["code"] == "labels_enough"


def test_labels_that_were_learned_for_longer_are_told(bare):
    own_length(bare)
    as_long(bare, labels=12)
    found = verdict(bare, DIGITS, student=said(DIGITS, 75), student_labels=said(DIGITS, 12))
    assert found["code"] == "rationales_add"
    assert found["line"].endswith("trained on labels alone 4 times as long 12%.")
    told = fact(found, "student_labels")["text"]
    assert told.startswith("Trained on labels alone 4 times as long (12 steps, the student 3): 12%")


def test_all_trainings_of_the_student_count(bare):
    """On-policy distillation follows its tutoring: four steps on labels are fewer than six."""
    with_config(bare, method="on_policy", labels_training={"steps": 4})
    as_long(bare, labels=4)
    left = fake_run.trained([fake_run.step(s, 1.0, 1.0, 9.0) for s in range(3)])
    fake_run.finish(bare, ON_POLICY, left | {StudentReply: []})
    answers = {"student": said(DIGITS, 75), "student_labels": said(DIGITS, 32)}
    found = verdict(bare, DIGITS, "on_policy", **answers)
    assert found["code"] == "unfair" and "75% after 6 steps" in found["line"]


def test_the_advice_trains_for_as_many_steps(bare):
    """An epoch of labels is shorter than one of rationales: method labels would stop too early."""
    with_config(bare, labels_training={"epochs": 0}, student_training={"epochs": 2, "steps": 0})
    as_long(bare)
    answers = {"student": said(DIGITS, 75), "student_labels": said(DIGITS, 95)}
    found = verdict(bare, DIGITS, **answers)
    assert fact(found, "advice")["text"] == (
        "The next run needs no teacher: --config.method=labels --config.student_training.steps=3."
    )
    with_config(bare, student_training={"steps": 3})
    advice = fact(page.write(bare)["verdict"], "advice")
    assert advice["text"] == "The next run needs no teacher: --config.method=labels."


def test_an_assistant_that_does_not_pay_off(bare):
    answers = {"student": 70, "student_labels": 40, "student_direct": 95}
    found = verdict(bare, DIGITS, **{role: said(DIGITS, n) for role, n in answers.items()})
    assert found["code"] == "direct_better"
    assert "answers 95%, by way of the assistant 70%, on labels alone 40%." in found["line"]


def test_no_labels_to_compare_with(bare):
    found = verdict(bare, DIGITS, student=said(DIGITS, 62), student_direct=said(DIGITS, 12))
    assert found["code"] == "without_labels"
    assert found["line"] == (
        "The student answers 62% of 100 test questions; nothing was trained on labels alone to "
        "compare with; trained directly on the teacher’s answers it answers 12%; always answering "
        "“0” is right for 10%."
    )


def test_a_student_below_its_assistant(bare):
    """62 and 90 of 100: m = 102, centre 28/102, half 1.96 sqrt(29 - 784/102) / 102 = 0.0887."""
    found = verdict(bare, DIGITS, student=said(DIGITS, 62), assistant=said(DIGITS, 90))
    assert found["code"] == "below_assistant"
    assert "falls 28 points below its assistant (18.6 to 36.3): it answers 62%" in found["line"]
    # With labels to compare with, that is a fact, and not the verdict.
    found = verdict(bare, DIGITS, student_labels=said(DIGITS, 20))
    assert found["code"] == "rationales_add"
    assert "The student is 28 points below" in fact(found, "assistant")["text"]


def test_a_poor_teacher(bare):
    """Right about 1 of 20: Wilson's interval ends at 0.2361."""
    rows = [fake_run.annotation(f"p{i}", "Why?", correct=i == 0) for i in range(20)]
    fake_run.change(bare, ANNOTATIONS, Annotation, rows)
    found = verdict(bare, DIGITS, student=said(DIGITS, 30))
    assert found["code"] == "teacher_poor"
    assert found["line"] == (
        "The teacher itself is poor: it answers 5% of the 20 questions that it was paid for, and "
        "the student 30% of the test."
    )
    # What labels do matters more.
    found = verdict(bare, DIGITS, student_labels=said(DIGITS, 90))
    assert found["code"] == "labels_enough"
    assert "which is poor" in fact(found, "teacher")["text"]


def test_the_method_that_learns_labels(bare):
    with_config(bare, method="labels")
    found = verdict(bare, DIGITS, "labels", student=said(DIGITS, 95))
    assert found["code"] == "labels_alone"
    assert found["line"] == (
        "Trained on labels alone, which costs no teacher, the student answers 95%; always "
        "answering “0” is right for 10%."
    )


def test_before_the_student_is_tested(bare):
    found = verdict(bare, DIGITS, assistant_base=said(DIGITS, 20))
    assert (found["code"], found["facts"]) == ("untested", [])
    assert found["line"] == (
        "The teacher gave 3 answers worth keeping; Assistant before (as downloaded) answers 20% of "
        "100 test questions correctly; no trained model has been tested yet."
    )
    found = verdict(bare, DIGITS, assistant=said(DIGITS, 40))
    assert found["line"] == (
        "The assistant, trained on 3 teacher answers, answers 40% of 100 test questions correctly; "
        "no student has been tested yet."
    )


@pytest.mark.parametrize("missing", [None, ""])
def test_questions_without_a_gold_answer_are_in_no_number(bare, missing):
    gold = [*DIGITS, *[missing] * 50]
    found = verdict(bare, gold, student=[*said(DIGITS, 80), *["1"] * 50])
    report = page.write(bare)
    assert report["accuracy"]["student"] == 0.8 and report["questions"]["student"] == 100
    assert [row["n"] for row in report["classes"]["classes"]] == [10] * 10
    assert found["line"].startswith("The student answers 80% of 100 test questions")
    for row in (bare / "evaluation").iterdir():
        assert row.name == "student"
    fake_run.write_answers(bare, "student", [missing] * 5, ["1"] * 5)
    assert page.write(bare)["verdict"]["code"] == "untested"


def test_data_that_were_left_out_or_cut_are_told(bare):
    """A share of 5% or more is among the facts; the others are further down."""
    fake_run.write_data(
        bare,
        rows=2000,
        bad={"no answer": 60, "label is <b>unknown</b>": 52, "a": 2, "b": 1, "c": 1},
        cut={"student": {"cut": 4, "of": 100}},
        replaced=3,
    )
    found = verdict(bare, DIGITS, student=said(DIGITS, 62))
    told = [fact["text"] for fact in found["facts"] if fact["code"] == "data"]
    assert told == [
        "Of the pool, 400 of 1,000 examples are used; data.pool=0 uses all.",
        "116 of 2,000 rows are bad and left out: 60 × no answer, 52 × label is <b>unknown</b>, "
        "2 × a, and 2 more kinds.",
    ]
    html = (bare / "report.html").read_text()
    assert "4 of 100 prompts of the student were too long and are cut." in html
    assert "<b>unknown" not in html and "&lt;b&gt;unknown" in html
    assert page.write(bare)["data"]["bad"]["no answer"] == 60


HOSTILE = [f"<script>{i}</script> & 水\x1b[2J {'long ' * (40 if i % 3 else 1)}" for i in range(500)]


def test_many_hostile_classes_break_neither_page_nor_terminal(bare):
    with_config(bare, data={"kind": "label", "labelled": True})
    gold = [HOSTILE[i % 500] for i in range(1000)] + [HOSTILE[0]] * 8
    found = verdict(bare, gold, student=[*gold[:600], *[HOSTILE[1]] * 408])
    report = page.write(bare)
    assert len(report["classes"]["classes"]) == 500 and "matrix" not in report["classes"]
    html = (bare / "report.html").read_text()
    assert "<script" not in html and "\x1b" not in html
    assert "480 more classes, with fewer questions each" in html
    out = io.StringIO()
    formatting.print_summary(
        report, Console(file=out, width=80, force_terminal=True, color_system=None)
    )
    text = out.getvalue()
    assert "\x1b" not in text.replace("\x1b[2K", "")
    assert all(len(line) <= 80 for line in text.splitlines() if str(bare) not in line)
    assert "and 492 more" in text
    assert found["facts"][0]["code"] == "constant"  # No class has five questions and no answer.


def test_the_summary_in_a_terminal_begins_with_the_verdict(bare):
    student = [*FIVE[:65], *["billing"] * 35]
    verdict(bare, FIVE, student=student, student_labels=said(FIVE, 97))
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    formatting.print_summary(page.write(bare), console)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[1:5] == [
        "Labels alone are better for this task, and cost no teacher: trained on them the",
        "student answers 97%, with rationales 65%.",
        "- Never answers “returns”: 0 of 15, mostly taken for “billing” (15).",
        "- Never answers “account”: 0 of 5, mostly taken for “billing” (5).",
    ]
    assert "class      n  precision  recall  answered  confused with" in lines
    assert "returns   15                 0%      100%  billing (15)" in lines


@pytest.mark.parametrize(
    ("difference", "said"),
    [(0.01, "1 point"), (-0.01, "−1 point"), (0.0104, "1 point"), (0.011, "1.1 points")],
)
def test_one_point_is_singular(difference, said):
    assert formatting.in_points(difference) == said
