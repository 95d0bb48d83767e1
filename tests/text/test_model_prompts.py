"""What a model is told of the task, and what of a long prompt is cut."""

import dataclasses

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data.example import Example, Task
from bridge_jax.errors import UserError
from bridge_jax.text import prompts

LABELS = ("billing", "sign {in}", "other")
TASK = Task(
    "Which team {0} handles it?", {"billing": "Invoices: {all}, charges.", "other": "%s {}"}
)
TICKET = Example("t1", "I was {charged} twice. {", "billing", "label", LABELS)
TOLD = dataclasses.replace(TICKET, task=TASK)
CHOICE = Example("c1", "Which?\nA) yes\nB) no", "yes", "choice", ("yes", "no"))
NUMBER = Example("n1", "How many?", "12", "numeric")
TEXT = Example("x1", "Why?", "It rained.", "text")


@pytest.mark.parametrize("example", [TICKET, CHOICE, NUMBER, TEXT], ids=lambda e: e.kind)
@pytest.mark.parametrize(
    ("mode", "instruction"),
    [
        ("reason", "Reason step by step, then write the answer."),
        ("answer", "Write only the answer."),
        ("explain", "Explain the answer, then write it."),
    ],
)
def test_without_a_task_a_prompt_is_what_it_always_was(example, mode, instruction):
    given = f"\nAnswer: {example.answer}" if mode == "explain" else ""
    assert prompts.messages(example, mode) == [
        {"role": "system", "content": instruction},
        {"role": "user", "content": example.question + given},
    ]


def test_the_task_comes_before_the_mode_and_what_was_written_is_not_a_pattern():
    assert prompts.messages(TOLD, "reason") == [
        {
            "role": "system",
            "content": "Which team {0} handles it?\n\n"
            "The answer is one of these labels:\n"
            "- billing: Invoices: {all}, charges.\n"
            "- sign {in}\n"
            "- other: %s {}\n\n"
            "Reason step by step, then write the answer.",
        },
        {"role": "user", "content": "I was {charged} twice. {"},
    ]


def test_descriptions_alone_are_told_and_labels_need_none():
    only = dataclasses.replace(TICKET, task=Task("", {"other": "The rest."}))
    assert prompts.messages(only, "answer")[0]["content"] == (
        "The answer is one of these labels:\n- billing\n- sign {in}\n- other: The rest.\n\n"
        "Write only the answer."
    )
    bare = dataclasses.replace(TICKET, task=Task("Sort it."))
    assert prompts.messages(bare, "answer")[0]["content"] == (
        "Sort it.\n\nThe answer is one of these labels:\n- billing\n- sign {in}\n- other\n\n"
        "Write only the answer."
    )


@pytest.mark.parametrize("example", [CHOICE, NUMBER, TEXT], ids=lambda e: e.kind)
def test_where_answers_are_no_labels_the_instruction_alone_is_told(example):
    told = dataclasses.replace(example, task=TASK)
    assert prompts.messages(told, "explain")[0]["content"] == (
        "Which team {0} handles it?\n\nExplain the answer, then write it."
    )
    mixed = dataclasses.replace(example, task=Task("", TASK.label_descriptions))
    assert prompts.messages(mixed, "explain") == prompts.messages(example, "explain")


def test_who_is_not_told_what_the_answer_is_one_of():
    assert prompts.hides_choices(TICKET)
    assert not prompts.hides_choices(TOLD)
    assert not prompts.hides_choices(dataclasses.replace(TICKET, task=Task("", {"other": "x"})))
    named = "billing or sign {IN} or Other?"
    assert not prompts.hides_choices(dataclasses.replace(TICKET, question=named))
    assert not any(map(prompts.hides_choices, (CHOICE, NUMBER, TEXT)))
    # Options that do not stand in the question are not told by an instruction either.
    assert prompts.hides_choices(dataclasses.replace(CHOICE, question="Which?", task=TASK))


def test_the_question_is_cut_and_the_task_never(tiny_tokenizer):
    tok = tiny_tokenizer
    long = dataclasses.replace(TOLD, question="Dear Sir or Madam. " * 40 + "Charged twice.")
    rest = tok.render_chat(prompts.messages(dataclasses.replace(long, question=""), "reason"))
    most = len(rest) + 20
    ids = prompts.render_prompt(tok, long, "reason", most, "cut_beginning")
    assert len(rest) < len(ids) <= most
    text = tok.decode(ids)
    assert prompts.messages(TOLD, "reason")[0]["content"] in text
    assert "Charged twice." in text and text.count("Dear") < 3


@pytest.mark.parametrize("on_long", ["error", "cut_beginning"])
def test_a_task_that_leaves_no_room_is_named(tiny_tokenizer, on_long):
    tok = tiny_tokenizer
    empty = dataclasses.replace(TOLD, question="")
    rest = len(tok.render_chat(prompts.messages(empty, "reason")))
    system = prompts.messages(TOLD, "reason")[0]["content"]
    of_task = len(tok.encode(system.removesuffix(f"\n\n{prompts.INSTRUCTIONS['reason']}")))
    assert 50 < of_task < rest
    message = (
        rf"'t1': its prompt needs {rest} tokens besides the question \({of_task} of them for "
        rf"the instruction and the labels\), but max_prompt_tokens is {rest}; raise it, or shorten"
    )
    with pytest.raises(UserError, match=message):
        prompts.render_prompt(tok, TOLD, "reason", rest, on_long)
    message = rf"\({of_task} of them for the .*max_prompt_tokens is {rest + 1}; .*on_long_prompt"
    if on_long == "error":
        with pytest.raises(UserError, match=message):
            prompts.render_prompt(tok, TOLD, "reason", rest + 1, on_long)


def test_an_instruction_of_others_is_the_users_turn_and_its_answer(tiny_tokenizer):
    tok = tiny_tokenizer
    found = prompts.instruction_sequence(tok, "Name {two}.", "A\nB")
    assert found.prompt == tok.render_chat([{"role": "user", "content": "Name {two}."}])
    assert (found.rationale, tok.decode(found.answer)) == ([], "A\nB")
    assert found.answer[-1] == tok.end_id


@pytest.mark.parametrize("mode", prompts.INSTRUCTIONS)
def test_the_system_message_of_a_dataset_is_that_of_its_prompts(mode):
    data = DataConfig(
        kind="label",
        choices=LABELS,
        instruction=TASK.instruction,
        label_descriptions=TASK.label_descriptions,
    )
    assert prompts.system_message_of(data, mode) == prompts.messages(TOLD, mode)[0]["content"]
    assert prompts.system_message_of(DataConfig(), mode) == prompts.INSTRUCTIONS[mode]
