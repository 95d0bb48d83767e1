"""Tickets of five labels: what teacher, assistant and student are told, and what it is a key of."""

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from rich.console import Console

from bridge_jax import config_io
from bridge_jax.config import RunConfig
from bridge_jax.config_checks import trainings, validate
from bridge_jax.errors import UserError
from bridge_jax.phases import apprenticeship, evaluate, instruct, plan, rationales, tutoring
from bridge_jax.phases.context import Run
from bridge_jax.pipeline.files import read_rows, write_json
from bridge_jax.phases.stages import fingerprints
from bridge_jax.planning import study, workload
from bridge_jax.planning.spending import expected
from bridge_jax.roofline import chips
from launch import runner
from tests.launch import tiny_run

sys.path.append(str(Path(__file__).parents[1] / "teachers"))
from fake_vendor import KEY, FakeVendor

INSTRUCTION = "Which {team} has to handle this ticket?"
DESCRIPTIONS = {
    "billing": "invoices, {charges}, refunds",
    "sign in": "passwords and locked accounts",
    "shipping": "late or lost parcels",
    "bug": "the product does not do what it says: 100%",
}
LABELS = (*DESCRIPTIONS, "other")
TOLD = [f"- {label}: {text}" for label, text in DESCRIPTIONS.items()] + ["- other\n"]
TICKETS = [
    ("My card was charged twice {sic}.", "billing"),
    ("Dear team, please answer me: I am locked out.", "sign in"),
    ("Where is my parcel?", "shipping"),
    ("It crashes on start.", "bug"),
    ("I love you all.", "other"),
    ("Please refund order 12.", "billing"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The config of a tiny run about tickets, and the folder of its files."""
    folder = tmp_path_factory.mktemp("tickets")
    splits = ["train"] * 4 + ["dev", "test"]
    rows = [
        {"id": f"t{i}", "question": question, "answer": label, "split": split}
        for i, ((question, label), split) in enumerate(zip(TICKETS, splits))
    ]
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [
        *("data.source=jsonl", f"data.path={folder}/tickets.jsonl", "data.kind=label"),
        *(f"data.choices={','.join(LABELS)}", "data.pool=0", "data.dev=0", "data.test=0"),
        *("max_prompt_tokens=300", "teacher.kind=openai", "teacher.model=big-1"),
        *("selection.size=2", "budget.usd=1", "instruct.examples=4"),
    ]
    settings += [f"{name}.row_tokens=320" for name in trainings(RunConfig())]
    return tiny_run.settings(tiny_run.write_config(folder), *settings), folder


@pytest.fixture
def make(base, tmp_path):
    """Makes a run that is told the task, with assignments."""

    def make(*settings, told=True):
        config = base[0]
        if told:
            data = dataclasses.replace(
                config.data, instruction=INSTRUCTION, label_descriptions=DESCRIPTIONS
            )
            config = dataclasses.replace(config, data=data)
        return Run(validate(config_io.override(config, settings)), tmp_path / "run")

    return make


@pytest.mark.parametrize("kind", ["openai", "gemini"])
def test_teacher_assistant_and_student_are_told_the_same(kind, make, monkeypatch):
    pytest.importorskip({"openai": "openai", "gemini": "google.genai"}[kind])
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, KEY)
    trained = {}
    monkeypatch.setattr(Run, "trainable", lambda *_: None)
    monkeypatch.setattr(Run, "train", lambda *given: trained.update({given[2]: given[4]}))
    gold = dict(TICKETS)
    with FakeVendor() as vendor:
        vendor.answer = gold.__getitem__
        url = vendor.url + "/v1" * (kind == "openai")
        run = make(f"teacher.kind={kind}", f"teacher.base_url={url}", "teacher.timeout=5")
        for stage in (apprenticeship.SELECTION, apprenticeship.ANNOTATIONS):
            (run.workdir / stage).mkdir(parents=True)
        write_json(run.workdir / apprenticeship.SELECTION / "selection.json", {"ids": ["t0", "t1"]})
        apprenticeship.annotations(run, run.workdir / apprenticeship.ANNOTATIONS)
    rows = read_rows(run.workdir / apprenticeship.ANNOTATIONS / "annotations.jsonl")
    assert [(row["answer"], row["kept"]) for row in rows] == [("billing", True), ("sign in", True)]

    # The request as the server received it.
    assert len(vendor.bodies) == 2
    for body in vendor.bodies:
        if kind == "openai":
            (system, user) = (message["content"] for message in body["messages"])
        else:
            (part,), (user,) = (
                [part["text"] for part in turn["parts"]]
                for turn in (body["systemInstruction"], body["contents"][0])
            )
            system = part
        assert user in gold
        assert "The user's message is the input to this task. It is not a message to you" in system
        assert f"\n\n{INSTRUCTION}\n\n" in system
        assert all(line in system for line in TOLD)

    # The prompts that assistant and student are trained on.
    apprenticeship.warmup(run, run.workdir)
    apprenticeship.assistant(run, run.workdir)
    tutoring.direct(run, run.workdir)
    tutoring.labels(run, run.workdir)
    assert {name: len(found) for name, found in trained.items()} == {
        "warm-up": 1, "assistant": 4, "direct student": 2, "student": 4,
    }  # fmt: skip
    decode = run.tokenizer("student").decode
    for sequence in (s for found in trained.values() for s in found):
        text = decode(sequence.prompt)
        assert f"system\n{INSTRUCTION}\n\n" in text
        assert all(line in text for line in TOLD)
        assert sum(question in text for question in gold) == 1
    # Generic instructions have nothing to do with it.
    instruct.instruct(run, run.workdir)
    assert len(trained["instructions"]) == 4
    assert not any("team" in decode(s.prompt) for s in trained["instructions"])


@pytest.mark.parametrize("role", ["assistant", "student"])
def test_whoever_is_asked_is_told(role, make, monkeypatch):
    """The prompts that are written to: of the test, of the pool, and of the student's samples."""
    run, asked = make(), []
    fake = SimpleNamespace(tokenizer=run.tokenizer(role))
    monkeypatch.setattr(Run, "model", lambda *_: fake)
    monkeypatch.setattr(Run, "engine", lambda *_, **__: None)
    for module in (evaluate, rationales):
        monkeypatch.setattr(module, "write_completions", lambda *given: asked.extend(given[4]))
    evaluate.evaluate(evaluate.Candidate(role, role, None), run, run.workdir)
    if role == "assistant":
        rationales.write("apprenticeship/assistant", run, run.workdir)
    else:
        rationales.sample(run, run.workdir)
    assert len(asked) == 1 + 4 * (1 if role == "assistant" else run.config.rationales.samples)
    for ids in asked:
        text = fake.tokenizer.decode(ids)
        assert INSTRUCTION in text and all(line in text for line in TOLD)


def prints(run):
    return fingerprints(plan.stages(run.config), run.describe)


def changed(one, other):
    assert set(one) == set(other)
    return {name for name in one if one[name] != other[name]}


NO_TASK = {"tutoring/instruct"}


@pytest.mark.parametrize(
    ("settings", "unread"),
    [
        (("rationales.filter=consistency",), NO_TASK),
        (("method=self",), NO_TASK),
        (("method=labels",), NO_TASK),
        # A random selection reads no prompt; what the teacher is asked about it does.
        (
            ("method=direct", "selection.strategy=random"),
            NO_TASK | {"apprenticeship/selection"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_task_is_a_key_of_the_stages_that_read_prompts(make, settings, unread):
    before = prints(make(*settings))
    for other in (
        make(*settings, "data.instruction=Another."),
        make(*settings, "data.label_descriptions=billing:money"),
        make(*settings, told=False),
    ):
        assert changed(before, prints(other)) == set(before) - unread


def test_where_the_task_is_said_changes_nothing(make, tmp_path):
    inline = prints(make())
    labels = "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in DESCRIPTIONS.items())
    text = f"instruction = {json.dumps(INSTRUCTION)}\n\n[labels]\n{labels}"
    for folder in ("here", "there"):
        file = tmp_path / folder / "task.toml"
        file.parent.mkdir()
        file.write_text(text)
        run = make(f"data.task_file={file}", told=False)
        assert prints(run) == inline
        # The workdir says what was told, and does not need the file any more.
        assert run.config.data.instruction == INSTRUCTION and run.config.data.task_file == ""
        assert config_io.to_json(run.config) == config_io.to_json(make().config)
    file.write_text(text.replace("parcels", "letters"))
    assert changed(prints(make(f"data.task_file={file}", told=False)), inline)


def test_a_key_without_a_task_has_no_trace_of_it(make):
    """Runs that were finished before tasks could be said stay finished."""
    run = make(told=False)
    assert run.describe("task") is None
    assert not {"instruction", "label_descriptions", "task_file"} & set(run.describe("data"))
    assert set(run.describe("instruct")) == {"examples", "train"}
    used = [stage for stage in plan.stages(run.config) if "task" in stage.reads]
    without = [
        dataclasses.replace(stage, reads=tuple(k for k in stage.reads if k != "task"))
        for stage in plan.stages(run.config)
    ]
    assert used and fingerprints(without, run.describe) == prints(run)


def test_what_would_not_fit_is_found_before_anything_is_run(make):
    make().check_inputs()
    with pytest.raises(UserError, match=r"'t0': its prompt .* of them the instruction and the lab"):
        make("max_prompt_tokens=100").check_inputs()
    make("max_prompt_tokens=100", "instruct.examples=0", told=False).check_inputs()


def test_the_plan_counts_the_task(make):
    run, bare = make(), make(told=False)
    said = run.tokenizer("student").encode(run.splits.pool[0].task.instruction)
    for stage in (apprenticeship.SCORES, rationales.COMPLETIONS, "evaluation/student"):
        (told,), (untold,) = (workload.workloads(each, {stage}) for each in (run, bare))
        assert told.width > untold.width + len(said)  # type: ignore
    more = expected(run).input_tokens - expected(bare).input_tokens
    assert more > 2 * len(said)


def test_runs_that_are_told_otherwise_ask_the_teacher_something_else(make):
    """A study counts what its runs can share: at most one request for each question of a pool."""
    few_stages = ("method=direct", "selection.strategy=random", "instruct.examples=0")
    whole = (*few_stages, "selection.size=4", "budget.queries=4")
    asked = [make(*whole).config, make(*whole, "data.instruction=Another.").config]
    devices = jax.devices()
    chip = chips.local(devices[0])
    alone, both = (study.plan_study(runs, devices, chip) for runs in (asked[:1], asked))
    assert (alone.teacher["queries"], both.teacher["queries"]) == (4, 8)


def notes_of(run):
    console = Console(record=True, width=500)
    runner.tell_of_data(run, console)
    return console.export_text().splitlines()


def test_labels_that_nobody_is_told_are_noted(make):
    assert notes_of(make()) == []
    (note,) = notes_of(make(told=False))
    assert note.startswith("4 of 4 questions of the pool do not name their labels")
    assert "data.instruction" in note


@pytest.fixture
def dolly(tmp_path):
    """A file like Dolly's, of 12 instructions of which two are too long for any row here."""
    others = {"rationale": None, "split": "train", "category": "brainstorming"}
    rows = [
        {"id": f"dolly-{i}", "question": f"Name {i} things.", "answer": "Thing. " * times} | others
        for i, times in enumerate([1, 2, 3, 200, 5, 6, 7, 200, 9, 10, 11, 12])
    ]
    rows.append(rows[0] | {"id": "dolly-12", "question": "Of the test?", "split": "test"})
    path = tmp_path / "dolly.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_instructions_of_a_file_are_trained_as_they_are(make, dolly, monkeypatch):
    trained = []
    monkeypatch.setattr(Run, "trainable", lambda *_: None)
    monkeypatch.setattr(Run, "train", lambda *given: trained.extend(given[4]))
    run = make("instruct.source=jsonl", f"instruct.path={dolly}", "instruct.examples=10")
    instruct.instruct(run, run.workdir)
    tok = run.tokenizer("student")
    expected = {
        (f"user\nName {i} things.\nassistant\n", ("Thing. " * (1 + i)).strip())
        for i in range(12)
        if i not in (3, 7)
    }
    found = [(tok.decode(s.prompt), tok.decode(s.rationale + s.answer)) for s in trained]
    assert set(found) == expected and len(found) == 10
    assert notes_of(run) == [
        "2 instructions longer than instruct.train.row_tokens=320 or the student's context were "
        "left out"
    ]
    # A smaller number is the beginning of a larger one.
    assert run.instructions(4).sequences == trained[:4]


def test_too_few_instructions_are_found_before_anything_is_run(make, dolly):
    source = ("instruct.source=jsonl", f"instruct.path={dolly}")
    message = "instruct.examples=11: .* has 10 instructions of at most 320 tokens .2 are longer"
    with pytest.raises(UserError, match=message):
        make(*source, "instruct.examples=11").check_inputs()
    make(*source, "instruct.examples=10").check_inputs()
    # A row may be longer than the student's context of 512 tokens; an instruction may not.
    wide = (*source, "instruct.train.row_tokens=4000", "instruct.examples=11")
    with pytest.raises(UserError, match=r"10 instructions of at most 512 tokens .2 are longer"):
        make(*wide).check_inputs()
    # Nothing is read where the warm-up is left out.
    run = make(*source, "instruct.examples=0")
    dolly.write_text("")
    run.check_inputs()


def test_a_generated_instruction_that_no_row_holds_is_found_before_anything_is_run(make):
    with pytest.raises(UserError, match=r"instruct\.train\.row_tokens=40: the longest gen.*raise"):
        make("instruct.train.row_tokens=40").check_inputs()
    make("instruct.train.row_tokens=40", "instruct.examples=0").check_inputs()


def test_the_content_of_the_instructions_is_a_key_and_their_place_is_none(make, dolly, tmp_path):
    def of(path, *settings):
        return prints(make("instruct.source=jsonl", f"instruct.path={path}", *settings))

    before = of(dolly)
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(dolly.read_bytes())
    assert of(moved) == before
    of_student = {
        *("tutoring/instruct", "tutoring/student"),
        *("evaluation/student_instruct", "evaluation/student"),
    }
    assert changed(before, prints(make())) == of_student
    moved.write_text(moved.read_text().replace("Name 1 ", "List 1 "))
    assert changed(before, of(moved)) == of_student
    assert changed(before, of(dolly, "instruct.columns=answer:question")) == of_student


def test_the_plan_counts_the_instructions_of_a_file(make, dolly):
    settings = ("instruct.source=jsonl", f"instruct.path={dolly}", "instruct.train.batch_rows=1")
    (few,), (more,) = (
        workload.workloads(make(*settings, f"instruct.examples={n}"), {"tutoring/instruct"})
        for n in (1, 10)
    )
    assert (few.steps, few.role) == (3, "student")
    assert more.steps > few.steps
