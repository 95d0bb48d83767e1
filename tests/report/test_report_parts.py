"""What is left of the report when parts of the run are missing, unfinished or damaged."""

import io
import shutil

import fake_run
import pytest
from rich.console import Console

from bridge_jax.config import RunConfig
from bridge_jax.config.io import to_json
from bridge_jax.errors import UserError
from bridge_jax.methods import evaluation
from bridge_jax.methods.budget_rollouts import Rollout
from bridge_jax.methods.filtering import RATIONALES, Judged
from bridge_jax.methods.reinforcement import REINFORCED
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.pipeline import files, storage
from bridge_jax.pipeline.content import Hashes
from bridge_jax.report import figures, formatting, page
from bridge_jax.report.workdir import load


def test_only_the_apprenticeship(workdir):
    shutil.rmtree(workdir / "tutoring")
    shutil.rmtree(workdir / "evaluation")
    result = page.write(workdir)
    assert result["accuracy"] == {"teacher": 0.75}
    assert result["n_test"] == 0
    assert "rationales" not in result
    assert result["gaps"] == {}
    html = (workdir / "report.html").read_text()
    assert "The teacher gave 3 teacher answers" not in html
    assert "The teacher gave 3 answers worth keeping; no model has been tested yet." in html
    assert "<h2>Selection</h2>" in html


GOLD = ["7"] * 10
SAID = [*GOLD[:7], "8", "8", None]  # Right when it is sure: of the last three none is right.
SURE = [0.99, 0.98, 0.97, 0.96, 0.95, 0.9, 0.8, 0.7, 0.6, None]


def test_what_can_be_trusted_is_counted_by_confidence(workdir):
    fake_run.write_answers(workdir, "student", GOLD, SAID, sure=SURE)
    found = page.write(workdir)["confidence"]
    assert found["least_confidence"] == 0.0
    counts = [(row["least"], row["test"]["trusted"], row["test"]["right"]) for row in
              found["thresholds"]]  # fmt: skip
    # 95% of ten are ten answers, which are not there; 90, 80, 70 and 50% are.
    assert counts == [(0.0, 9, 7), (0.6, 9, 7), (0.7, 8, 7), (0.8, 7, 7), (0.95, 5, 5)]
    html = (workdir / "report.html").read_text()
    assert "<h2>Which answers to trust</h2>" in html and "evaluation.least_confidence is 0." in html
    assert "a threshold chosen on them looks better than it is" in html


def test_a_stated_threshold_is_measured_on_dev_and_test(workdir):
    """Thresholds are those of dev; on the test eight answers have that confidence, seven right."""
    config = files.read_json(workdir / "config.json") or {}
    config["evaluation"]["least_confidence"] = 0.65
    files.write_json(workdir / "config.json", config)
    fake_run.write_answers(workdir, "student", GOLD, SAID, sure=SURE)
    dev = GOLD[:4], [*GOLD[:3], "8"]
    fake_run.write_answers(workdir, evaluation.STUDENT_DEV.name, *dev, sure=[0.9, 0.8, 0.7, 0.6])
    report = page.write(workdir)
    rows = {row["least"]: row for row in report["confidence"]["thresholds"]}
    assert list(rows) == [0.0, 0.6, 0.65, 0.7, 0.8]
    assert (rows[0.65]["dev"]["trusted"], rows[0.65]["dev"]["right"]) == (3, 3)
    # The dev split is in no other number.
    assert report["n_test"] == 10 and "student_dev" not in report["accuracy"]
    said = (
        "Trusted at a confidence of at least 0.65: 80% of the 10 test questions, of which 88% are "
        "right (53–98%); 75% of the 4 dev questions, of which 100% are right (44–100%)."
    )
    assert formatting.trusted(report) == said
    html = (workdir / "report.html").read_text()
    assert said in html and "Choose a threshold on the dev questions" in html
    out = io.StringIO()
    formatting.print_summary(report, Console(file=out, width=200))
    assert f"Trust    {said}" in out.getvalue()


def test_tests_of_earlier_versions_know_no_confidence(workdir):
    assert "confidence" not in page.write(workdir)
    assert "Which answers to trust" not in (workdir / "report.html").read_text()


@pytest.mark.parametrize("shown", [False, True])
def test_an_answer_that_the_assistant_was_shown_is_not_called_right(workdir, shown):
    rows = [row | {"shown_gold": shown} for row in fake_run.read(workdir, RATIONALES, Judged)]
    rows[1] |= {"answer": "8", "correct": False}  # Of p1, which the teacher was asked about.
    fake_run.change(workdir, RATIONALES, Judged, rows)
    assert page.write(workdir)["rationales"]["shown_gold"] == shown
    html = (workdir / "report.html").read_text()
    assert ("“Shown” is an answer that the assistant was given" in html) == shown
    assert ("rationales for given answers kept" in html) == shown
    found = page.examples(load(workdir))
    texts = {e["id"]: e["texts"][1]["verdict"] for e in found if e["split"] == "pool"}
    assert texts == {"p1": "wrong", "p5": "shown" if shown else "right"}


def only_the_direct_student(workdir, role):
    """Removes what is not of a student that learned from the teacher's answers alone."""
    shutil.rmtree(workdir / "tutoring")
    for other in fake_run.OUTCOMES:
        if other not in ("student_base", role):
            fake_run.remove(workdir, f"evaluation/{other}")
    for part in ("scores", "warmup"):
        fake_run.remove(workdir, f"apprenticeship/{part}")


def test_the_direct_student_is_tested_before_the_other(workdir):
    only_the_direct_student(workdir, "student_direct")
    result = page.write(workdir)
    assert result["accuracy"] == {"teacher": 0.75, "student_base": 0.0, "student_direct": 0.2}
    assert result["gaps"] == pytest.approx({"teacher_student_direct": 0.55})
    assert result["pool"]["size"] == 20
    html = (workdir / "report.html").read_text()
    assert (
        "Trained directly on 3 teacher answers, the student answers 20% of 10 test questions "
        "correctly; before training it answered 0%."
    ) in html
    assert "Trained directly on 3" in formatting.headline(result)


def test_a_student_beside_that_learned_the_labels_alone(workdir):
    """Eight of ten questions right, of which the student had five."""
    rows = fake_run.read(workdir, evaluation.STUDENT, evaluation.Prediction)
    for i, row in enumerate(rows):
        row["correct"] = i < 8
    fake_run.finish(workdir, evaluation.STUDENT_LABELS, {evaluation.Prediction: rows})
    result = page.write(workdir)
    assert result["accuracy"]["student_labels"] == 0.8
    assert result["gaps"]["student_student_labels"] == pytest.approx(-0.3)
    told = {fact["code"]: fact["text"] for fact in result["verdict"]["facts"]}
    assert "20%. The student is 30 points above" in told["student_direct"]
    assert "80%. The student is 30 points below" in told["student_labels"]


def test_the_direct_method(workdir):
    files.write_json(workdir / "config.json", to_json(RunConfig(name="tiny", method="direct")))
    only_the_direct_student(workdir, "student")
    result = page.write(workdir)
    assert result["accuracy"] == {"teacher": 0.75, "student_base": 0.0, "student": 0.5}
    assert result["pool"]["size"] == 20
    html = (workdir / "report.html").read_text()
    assert "Student <small>trained on the teacher&#39;s answers alone</small>" in html


@pytest.mark.parametrize(
    "path",
    [
        "config.json",
        "apprenticeship/scores",
        "apprenticeship/selection",
        "apprenticeship/annotations",
        "evaluation/assistant",
        "evaluation/student",
        "tutoring/rationales",
    ],
)
def test_any_part_may_be_missing(workdir, path):
    (workdir / path).unlink()
    result = page.write(workdir)
    formatting.print_summary(result, Console(file=io.StringIO()))


def test_the_domains_of_a_run_of_an_earlier_version_are_unknown(workdir):
    data = files.read_json(workdir / "data.json")
    del data["domains"]
    files.write_json(workdir / "data.json", data)
    assert page.write(workdir)["pool"] == {"size": 20, "domains": {}}


def test_stages_of_another_config_are_left_out(workdir):
    before = page.write(workdir)
    assert "selection" in before and "student" in before["accuracy"]
    # The config changed: the student's training and the selection are of the one before.
    changed = {"tutoring/student", "apprenticeship/selection"}
    fake_run.plan(workdir, storage.current(workdir) | dict.fromkeys(changed, "another"))
    # The direct student's test is made again.
    (workdir / "evaluation/student_direct" / storage.MANIFEST).unlink()
    after = page.write(workdir)
    assert "selection" not in after and "student" in after["accuracy"]
    assert "student_direct" not in after["accuracy"]
    gone = set(before["seconds"]) - set(after["seconds"])
    assert gone == changed | {"evaluation/student_direct"}


def test_a_config_alone(workdir):
    for part in ("apprenticeship", "tutoring", "evaluation"):
        shutil.rmtree(workdir / part)
    assert page.write(workdir)["accuracy"] == {}
    assert "No model has been tested yet." in (workdir / "report.html").read_text()


def test_a_stage_that_is_still_being_made_is_left_for_later(workdir):
    place = (workdir / "tutoring/student").resolve()
    fake_run.remove(workdir, "tutoring/student")
    (place / storage.MANIFEST).unlink()
    rows = place / "metrics.jsonl"
    rows.write_text(rows.read_text() + '{"step": 4, "lo')
    assert "tutoring/student" not in page.write(workdir)["training"]


@pytest.mark.parametrize("file", ["config.json", "stages.json", "tutoring/student/manifest.json"])
@pytest.mark.parametrize("content", ["[1]", "3", '{"a": ', "[" * 100_000], ids=range(4))
def test_a_damaged_file_is_named(workdir, file, content):
    (workdir / file).write_text(content)
    with pytest.raises(UserError, match=rf"{file}: (damaged|not JSON).*; run the command"):
        page.write(workdir)


def test_a_manifest_that_says_too_little_is_damaged(workdir):
    (workdir / "tutoring/student/manifest.json").write_text('{"seconds": 1.0}')
    with pytest.raises(UserError, match=r"student/manifest\.json: damaged; run the command"):
        page.write(workdir)


FILES = [
    "apprenticeship/scores/scores.jsonl",
    "apprenticeship/scores/embeddings.npy",
    "apprenticeship/selection/selection.json",
    "apprenticeship/annotations/annotations.jsonl",
    "apprenticeship/annotations/spend.json",
    "tutoring/rationales/rationales.jsonl",
    "tutoring/student/metrics.jsonl",
    "evaluation/student/predictions.jsonl",
]


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_what_was_written_is_named(workdir, file):
    path = workdir / file
    path.write_bytes(path.read_bytes().replace(b"7", b"8") + b"\n")
    stage, name = file.rsplit("/", 1)
    with pytest.raises(
        UserError,
        match=rf"{stage}: {name} does not match its checksum; run the command of this "
        "workdir again, which repairs or rebuilds it",
    ):
        page.write(workdir)
    path.unlink()
    with pytest.raises(UserError, match=rf"{stage}: {name} is missing; run the command"):
        page.write(workdir)


def test_a_lost_row_is_noticed_though_all_others_can_be_read(workdir):
    path = workdir / "apprenticeship/annotations/annotations.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:1] + rows[2:]))
    with pytest.raises(UserError, match=r"annotations\.jsonl does not match its checksum"):
        page.write(workdir)


def test_a_copy_without_the_parameters_has_a_report(workdir):
    folder = storage.Folder(workdir / "tutoring/student", STUDENT)
    (folder.path / "params").mkdir()
    (folder.path / "params/shard").write_bytes(b"0" * 100)
    storage.commit(folder, folder.record(storage.MANIFEST), Hashes())
    assert "params/shard" in folder.record(storage.MANIFEST)["files"]
    shutil.rmtree(folder.path / "params")
    assert "tutoring/student" in page.write(workdir)["training"]


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        page.write(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        page.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_training_logs_of_replies_is_drawn():
    steps = [
        {"step": 0, "loss": 1.0, "accuracy": 0.25, "ended": 0.5},
        {"step": 1, "loss": 1.0, "accuracy": 0.75, "ended": 1.0},
    ]
    ((title, _, lines),) = figures.reply_panels([row | {"kl_loss": 1.0} for row in steps])
    assert title == "replies"
    assert [(line.key, line.look) for line in lines] == [("accuracy", 1), ("ended", 2)]
    assert figures.reply_panels([{"step": 0, "loss": 1.0}]) == []
    drawn = figures.curve(steps, "a", lines)
    assert drawn != figures.curve(steps, "a", lines[:1])


def reinforced(workdir, rows):
    """Writes a reinforcement learning with these replies: changes of a right one in step 0."""
    config = files.read_json(workdir / "config.json") or {}
    files.write_json(workdir / "config.json", config | {"method": "bard"})
    more = {"policy_loss": -0.5, "kl_loss": 0.125, "entropy": 0.5, "spread": 3.0, "accuracy": 0.5}
    lengths = {"reward": 0.5, "compliance": 1.0, "over_budget": 0.0}
    lengths |= {"thinking_4": 5.0, "thinking_1024": 700.0}
    steps = [fake_run.step(n, -0.5, 1.0, 9.0) | more | lengths for n in range(3)]
    reply = Rollout(
        step=0,
        id="p1",
        question="How many?",
        budget=4,
        completion="Thus.\nAnswer: 7",
        answer="7",
        correct=True,
        thinking=3,
        reward=1.0,
        advantage=0.5,
    )
    left = {Rollout: [reply | row for row in rows]}
    fake_run.finish(workdir, REINFORCED, fake_run.trained(steps) | left)


def test_what_reinforcement_learning_logs_is_drawn(workdir):
    reinforced(workdir, [])
    panels = figures.reply_panels(load(workdir).curves[REINFORCED.name])
    assert {panel.title: [line.key for line in panel.lines] for panel in panels} == {
        "replies": ["reward", "accuracy", "compliance", "over_budget"],
        "length": ["thinking_4", "thinking_1024"],
        "spread": ["spread"],
        "KL and entropy": ["kl_loss", "entropy"],
    }
    assert [line.name for line in panels[1].lines] == ["4", "1,024"]
    page.write(workdir)
    html = (workdir / "report.html").read_text()
    for panel in panels:
        assert f"<h3>Reinforcement learning at budgets: {panel.title}</h3>" in html
    assert "Replies in the first and the last step" not in html


def test_replies_of_the_first_and_the_last_step_stand_side_by_side(workdir):
    hostile = "<script>alert(1)</script>\n{{ 7 * 7 }}\x1b[2J"
    wrong = {"answer": None, "correct": False, "reward": 0.0}
    rows = [
        {"id": "p1"},
        {"id": "p2", "completion": "The first of both steps.\nAnswer: 7"},
        {"budget": 16, "id": "p3", "completion": hostile, "question": hostile} | wrong,
        {"step": 1, "completion": "Between."},
        {"step": 2, "id": "p2", "completion": "The last.\nAnswer: 6", "answer": "6"} | wrong,
    ]
    rows[-1]["answer"] = "6"
    reinforced(workdir, rows)
    found = page.rollouts(load(workdir))
    assert [pair["budget"] for pair in found] == [4, 16]
    told = [[(t["step"], t["text"], t["verdict"]) for t in pair["texts"]] for pair in found]
    first = "The first of both steps.\nAnswer: 7"
    assert told[0] == [(1, first, "right"), (3, "The last.\nAnswer: 6", "wrong")]
    assert [step[::2] for step in told[1]] == [(1, "no answer")]
    page.write(workdir)
    html = (workdir / "report.html").read_text()
    assert "Replies in the first and the last step" in html and "The last." in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "<script>alert" not in html
    assert "{{ 7 * 7 }}" in html and "\x1b" not in html


def test_questions_that_drafts_chose(workdir):
    config = files.read_json(workdir / "config.json")
    config["selection"] = {"strategy": "coverage", "parts": 3}
    files.write_json(workdir / "config.json", config)
    report = page.write(workdir)
    assert report["selection"]["parts"] == 3
    html = (workdir / "report.html").read_text()
    assert "chosen in 3 parts, the first by coverage, the others by drafts" in html
    assert formatting.chosen(report["selection"]) == (
        "chosen for being hard and unlike each other; after the first part, for new content in the "
        "assistant’s drafts"
    )
