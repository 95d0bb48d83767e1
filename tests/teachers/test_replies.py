import itertools
import json

import pytest

from bridge_jax.data.example import Example
from bridge_jax.ledger.requests import Failure, Message, TeacherReply, TeacherRequest
from bridge_jax.teachers.replies import (
    SCHEMA,
    Rules,
    annotation,
    finish_of,
    is_good,
    read_json,
    resample,
    without_thoughts,
)

PAIR = ("Two and two.", "4")
PLAIN = '{"rationale": "Two and two.", "answer": "4"}'


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        '{"answer": 4, "rationale": " Two and two. "}',
        f"Here it is:\n```json\n{PLAIN}\n```\nGood luck {{you}}!",
        'Sure. {"rationale": "Two and two.", "answer": "4", "confidence": 1} That is all.',
        '{"rationale": "Two and two.", "answer": "4",}',  # a trailing comma
        f'{{"rationale": "A draft.", "answer": "5"}} No: {PLAIN}',  # the last one that fits
        f'{PLAIN} {{"note": "done"}}',
        f"{PLAIN}}}",  # a brace too many
        f"[{PLAIN}]",
        f'{{"result": {PLAIN}}}',
        '{"Rationale": "Two and two.", "ANSWER": "4"}',
        '{"reasoning": "Two and two.", "final_answer": "4"}',
        '{"rationale": ["Two and two."], "answer": ["4"]}',
        "{'rationale': 'Two and two.', 'answer': '4'}",
        '{rationale: "Two and two.", answer: 4}',
        "{“rationale”: “Two and two.”, “answer”: “4”}",
        '{"rationale": "Two and two." "answer": "4"}',  # a comma too few
        rf"In \frac{{a}}{{b}} and \text{{so on}}: {PLAIN}",
    ],
)
def test_json_is_found_where_models_put_it(text):
    assert read_json(text) == PAIR
    assert finish_of(text) == "stop"


def test_a_line_break_inside_a_string_is_read():
    assert read_json('{"rationale": "Two\nand two.", "answer": "4"}') == ("Two\nand two.", "4")


@pytest.mark.parametrize(
    ("written", "rationale"),
    [
        ('He said "stop".', 'He said "stop".'),
        ('A pole of 6" is 152 mm.', 'A pole of 6" is 152 mm.'),
        ("The set {5, 7} has two.", "The set {5, 7} has two."),
        (r"It\'s two.", "It's two."),
        (r"A cat \ud83d\ude3a and half: \ud83d.", "A cat \U0001f63a and half: \ufffd."),
    ],
)
def test_what_stands_in_a_rationale_stays(written, rationale):
    assert read_json(f'{{"rationale": "{written}", "answer": "4"}}') == (rationale, "4")


@pytest.mark.parametrize(
    "latex",
    [r"\frac{1}{2}", r"\times", r"\boxed{4}", r"\neq", r"\sqrt{2}", r"\rho", r"\theta",
     r"\text{mg}", r"\underline{x}", r"\(x\)", r"\[x\]", r"\alpha", r"\beta", r"\right)", r"\nabla",
     r"\tag{1}", r"\nRightarrow", r"\%", r"\{x\}"],
)  # fmt: skip
def test_latex_keeps_its_backslash_whether_it_was_doubled_or_not(latex):
    doubled = json.dumps({"rationale": f"So {latex} it is.", "answer": latex})
    single = doubled.replace("\\\\", "\\")
    assert single != doubled
    assert read_json(doubled) == read_json(single) == (f"So {latex} it is.", latex)


@pytest.mark.parametrize("latex", [r"\ne", r"\ni", r"\nu"])
def test_short_latex_is_told_from_a_word_that_begins_a_line(latex):
    single = f'{{"rationale": "Where x {latex} 0, (${latex}$) it is.", "answer": "4"}}'
    assert read_json(single) == (f"Where x {latex} 0, (${latex}$) it is.", "4")
    line = f'{{"rationale": "One.{latex} 0", "answer": "4"}}'
    assert read_json(line) == (f"One.\n{latex[2:]} 0", "4")


def test_escapes_of_json_are_no_latex():
    text = r'{"rationale": "One.\nThen\ttwo.\r\nnu = 3\n\"x\" \u00e9 \\ \/", "answer": "4"}'
    assert read_json(text) == ('One.\nThen\ttwo.\r\nnu = 3\n"x" é \\ /', "4")


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("1e-7", "1e-7"),
        ("0.10", "0.10"),
        ("-12", "-12"),
        ("9" * 5000, "9" * 5000),
        ('["A", "C"]', "A; C"),
        ("1,234", "1,234"),
        ("12 or 13", "12 or 13"),
        ("12 mL", "12 mL"),
        ("1/2", "1/2"),
        ("B", "B"),
    ],
)
def test_an_answer_is_what_is_written(written, answer):
    for end in ("", ",", ', "sure": 1'):
        assert read_json(f'{{"rationale": "x", "answer": {written}{end}}}') == ("x", answer)


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ("", "malformed"),
        ("four", "malformed"),
        ("{}", "malformed"),
        ('{"answer": "4"}', "malformed"),
        ('{"rationale": "x", "answer": null}', "malformed"),
        ('{"rationale": "x", "answer": {"value": 4}}', "malformed"),
        ('{"rationale": 4, "answer": "4"}', "malformed"),
        ("[1, 2]", "malformed"),
        ('{"rationale": "x", "answer": true}', "malformed"),
        ("{'rationale': 'x', 'answer': True}", "malformed"),
        ('{"rationale": "cut o', "length"),
        ('{"rationale": "x", "answer": "4"', "length"),
        ('{"rationale": "x", "answer": 4', "length"),
        ("{'rationale': 'x', 'answer': '4", "length"),
        # The answer of a draft is none where what follows it was cut off.
        (f'{PLAIN} Better: {{"rationale": "cut o', "length"),
        (f"<think>{PLAIN}", "malformed"),
    ],
)
def test_what_is_no_such_object(text, finish):
    assert read_json(text) is None
    assert finish_of(text) == finish


def test_a_quotation_that_is_not_escaped_is_no_answer():
    text = '{"rationale": "the JSON {"rationale": "in", "answer": "9"} is meant", "answer": "5"}'
    assert read_json(text) is None and finish_of(text) == "malformed"
    escaped = json.dumps({"rationale": PLAIN, "answer": "5"})
    assert read_json(escaped) == (PLAIN, "5")


def test_a_model_that_writes_an_answer_line_instead_is_understood():
    for line in (
        "Answer: 4",
        "**Answer:** 4",
        "**Answer**: 4",
        "ANSWER: 4",
        "So the answer is 4.",
        r"\boxed{4}",
    ):
        assert finish_of(f"Two and two.\n{line}") == "stop"
    assert finish_of('{"rationale": "So the answer is') == "length"
    assert finish_of("<think>Answer: 5</think>I do not know.") == "malformed"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>Five?</think>\n\nFour.", "Four."),
        ("<think>Five?</think>One.<think>Hm.</think> Two.", "One. Two."),
        ("Five?</think>Four.", "Four."),  # The chat template opened it.
        ("I could write </think> here.</think>Four.", "Four."),
        ("<THINKING>Five?</Thinking>Four.", "Four."),
        ("[THINK]Five?[/THINK]Four.", "Four."),
        ("◁think▷Five?◁/think▷Four.", "Four."),
        ("<think>Five? <think>Six?</think>Four.", "Four."),
        ("<think>Five?", ""),
        ("Four. <think>Five?", "Four."),
        ("Four, I think.", "Four, I think."),
        ("<think >Five?</think >Four.", "Four."),
        ("<scratchpad>Five?</scratchpad>Four.", "Four."),
        ("<reflection>Five?</reflection>Four.", "Four."),
        ("<|begin_of_thought|>Five?<|end_of_thought|>Four.", "Four."),
        (
            "<|channel|>analysis<|message|>Five?<|end|><|start|>assistant<|channel|>final"
            "<|message|>Four.<|return|>",
            "Four.",
        ),
        ("Four.</think>", "Four."),
        ("Answer: 4 <|im_end|>\n", "Answer: 4"),
    ],
)
def test_thoughts_are_dropped(text, left):
    assert without_thoughts(text) == left


def test_thoughts_decide_nothing():
    draft = '{"rationale": "A draft {5, 7}.", "answer": "5"}'
    assert read_json(f"<think>{draft} or {{5, 7}}</think>{PLAIN}") == PAIR
    assert read_json(f"{draft} no.</think>{PLAIN}") == PAIR
    assert read_json(f"<think>{draft}</think> I do not know.") is None


def test_no_end_of_text_for_others_is_learned():
    assert row_of_text("Two \0 and two.\nAnswer: 4")["rationale"] == "Two \ufffd and two."


def row_of_text(text, **example):
    example = Example("e", "How many?", "4", "numeric", **example)
    return annotation(example, [TeacherReply(text, 1, 1)], Rules(len))


def test_thoughts_are_not_learned_where_the_reply_is_text():
    found = row_of_text("<think>Answer: 5</think>Two and two.\nAnswer: 4")
    assert (found["rationale"], found["answer"], found["kept"]) == ("Two and two.", "4", True)


@pytest.mark.parametrize(
    ("written", "answer"),
    [("1.234", "1,234"), ('"1.234"', "1234"), ('"1,234"', "1,234"), ("1e999999999", None)],
)
def test_the_point_of_a_json_number_is_a_point_where_texts_have_a_comma(written, answer):
    found = row_of_text(f'{{"rationale": "x", "answer": {written}}}', decimal=",")
    assert found["answer"] == answer


WRAPPED = (
    "{}",
    "<think>Is it {{5, 7}}? Answer: 5</think>{}",
    "```json\n{}\n```",
    "I would say:\n{}\nThat is all.",
    "{}}}",
    '{{"rationale": "A draft.", "answer": "5"}}\n{}',
)
SPELLED = (
    '{{"rationale": "{0}", "answer": "{1}"}}',
    '{{"rationale": "{0}", "answer": {1}}}',
    '{{"rationale": "{0}", "answer": "{1}",}}',
    '{{"answer": "{1}", "rationale": "{0}"}}',
    '{{"Rationale": "{0}", "Answer": ["{1}"]}}',
    "{{'rationale': '{0}', 'answer': '{1}'}}",
)
TEXTS = {
    r"So \frac{8}{2} \times 1 = 4 \neq 5.": r"So \frac{8}{2} \times 1 = 4 \neq 5.",
    r"Of {1, 2}\nwe have two: \\(2 + 2\\).": "Of {1, 2}\nwe have two: \\(2 + 2\\).",
    'A "pair" and a pair.': 'A "pair" and a pair.',
}


@pytest.mark.parametrize(
    ("wrap", "spell", "text"), list(itertools.product(WRAPPED, SPELLED, TEXTS))
)
def test_every_mistake_in_every_wrapping(wrap, spell, text):
    found = row_of_text(wrap.format(spell.format(text, 4)))
    assert (found["rationale"], found["answer"], found["kept"]) == (TEXTS[text], "4", True)


@pytest.mark.parametrize("spell", SPELLED)
@pytest.mark.parametrize("text", TEXTS)
def test_no_prefix_of_a_reply_teaches_a_wrong_answer(spell, text):
    whole = spell.format(text, 4)
    for end in range(len(whole)):
        assert read_json(whole[:end]) is None


@pytest.mark.parametrize(
    "piece",
    ["{", "}", '{"', "{}", "{'a':", '"', "\\", '{"a": "b}', "<think>", "</think>", "{1} ", '{"a":[',
     '{"rationale', '{"rationale": "', '{"rationale": x, "answer": 3}', '{"answer": ', "\\b", "[",
     '{"rationale": "x" ', " ", "`}"],
)  # fmt: skip
def test_a_long_text_of_anything_is_read(piece):
    many = piece * (200_000 // len(piece))
    assert finish_of(many) in ("malformed", "length")
    found = read_json(f'{{"rationale": "{many}", "answer": "4"}}')
    assert found is None or found[1] == "4"


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ("{'a':", "}")])
def test_what_is_nested_deeply_is_no_answer(open_, close):
    deep = open_ * 100_000 + close * 100_000
    assert read_json(f'{{"rationale": "x", "answer": {deep}}}') is None
    assert read_json(f"{PLAIN} {deep}") in (PAIR, None)


def test_the_rationale_comes_before_the_answer():
    assert list(SCHEMA["properties"]) == ["rationale", "answer"]
    assert json.dumps(SCHEMA).index("rationale") < json.dumps(SCHEMA).index("answer")


EXAMPLE = Example("e1", "How many?", "12", "numeric")
WORDS = "one two three"


def words(text):
    return len(text.split())


def said(answer, rationale=WORDS, finish="stop"):
    return TeacherReply(f"{rationale}\nAnswer: {answer}", 5, 7, finish)


def row(outcomes, **rules):
    return annotation(EXAMPLE, outcomes, Rules(words, **rules))


def test_a_good_reply_is_kept():
    assert row([said("12 mg")]) == {
        "id": "e1",
        "question": "How many?",
        "rationale": WORDS,
        "answer": "12",
        "gold": "12",
        "correct": True,
        "kept": True,
        "reason": None,
        "asked": 1,
    }


def test_json_says_the_same():
    text = json.dumps({"rationale": WORDS, "answer": 12})
    assert row([TeacherReply(text, 5, 7)]) == row([said("12")])


@pytest.mark.parametrize(
    ("outcome", "rules", "reason"),
    [
        (said("13"), {}, "the answer '13' is not the gold one"),
        (TeacherReply("I am not sure.", 1, 1), {}, "no answer that parses"),
        (said("12", ""), {}, "no rationale"),
        (said("12", finish="length"), {}, "cut off at teacher.max_output_tokens"),
        (said("12", finish="refused"), {}, "refused"),
        (said("12", finish="empty"), {}, "an empty reply"),
        (said("12", finish="malformed"), {}, "no rationale and answer in the reply"),
        (Failure("given up"), {}, "given up"),
        (said("12"), {"max_tokens": 2}, "3 tokens, above teacher.max_rationale_tokens=2"),
        (said("12"), {"min_tokens": 4}, "3 tokens, below teacher.min_rationale_tokens=4"),
        (said("12", finish="refused"), {"keep_wrong": True}, "refused"),
    ],
)
def test_why_a_reply_is_rejected(outcome, rules, reason):
    assert (row([outcome], **rules)["kept"], row([outcome], **rules)["reason"]) == (False, reason)
    # Where a later attempt is good, it is kept, and nothing is said of the earlier one.
    good = said("12", "five words are enough here" if "min_tokens" in rules else "two words")
    retried = row([outcome, good], **rules)
    assert (retried["kept"], retried["reason"], retried["asked"]) == (True, None, 2)


def test_limits_are_inclusive():
    assert row([said("12")], min_tokens=3, max_tokens=3)["kept"]


def test_a_wrong_answer_is_kept_on_request():
    kept = row([said("13")], keep_wrong=True)
    assert (kept["kept"], kept["answer"], kept["reason"]) == (True, "13", None)


def test_all_reasons_are_given_once_and_the_row_shows_what_was_said():
    rejected = row([Failure("lost"), said("13"), said("13")])
    assert rejected["reason"] == "the answer '13' is not the gold one; lost"
    assert (rejected["rationale"], rejected["answer"]) == (WORDS, "13")


@pytest.mark.parametrize(
    ("answers", "kept", "agreement"),
    [("12 12 13", True, 2 / 3), ("13 12 14", False, 1 / 3), ("13 13 13", False, 1.0)],
)
def test_samples_have_to_agree(answers, kept, agreement):
    result = row([said(a) for a in answers.split()], samples=3, min_agreement=0.5)
    assert (result["kept"], result["agreement"]) == (kept, agreement)
    if answers == "13 12 14":
        assert result["reason"] == (
            "1 of 3 samples give this answer, below teacher.min_agreement=0.5"
        )


def test_a_further_attempt_does_not_vote():
    result = row([said("13"), said("13"), said("12")], samples=2, min_agreement=0.5)
    assert (result["kept"], result["agreement"]) == (False, 0.0)


def questions(count):
    return [TeacherRequest(f"q{n}", "m", (Message("user", str(n)),), 9, None) for n in range(count)]


def test_questions_are_asked_again_only_while_no_reply_is_good():
    asked = []
    answers = {("q0", 0): "12", ("q1", 1): "12", ("q2", 2): "12"}

    def ask(requests, optional):
        asked.append(([(r.example_id, r.sample) for r in requests], optional))
        return [said(answers.get((r.example_id, r.sample), "13")) for r in requests]

    requests = questions(4)
    found = resample(
        requests, 1, 2, lambda n, outcomes: is_good(EXAMPLE, outcomes, Rules(words)), ask
    )
    assert asked == [
        ([("q0", 0), ("q1", 0), ("q2", 0), ("q3", 0)], False),
        ([("q1", 1), ("q2", 1), ("q3", 1)], True),
        ([("q2", 2), ("q3", 2)], True),
    ]
    assert [len(outcomes) for outcomes in found] == [1, 2, 3, 3]


def test_samples_come_before_further_attempts():
    asked = []

    def ask(requests, optional):
        asked.append([r.sample for r in requests])
        return [said("13")] * len(requests)

    resample(questions(2), 3, 1, lambda n, outcomes: n == 0, ask)
    assert asked == [[0, 1, 2, 0, 1, 2], [3]]
