"""Many examples at once have the ids and errors that they have one by one."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from bridge_jax.data.example import Example, Task
from bridge_jax.errors import UserError
from bridge_jax.text import prompts
from bridge_jax.text.rendering import Ragged, Rendering
from tests.text.test_markers import HOSTILE, hf
from tests.text.test_markers import byte_level as backend

TASK = Task("Which team?", {"bug": "Faults."})
EXAMPLES = [
    Example("a", "How do I log in?", "login", "label", ("login", "bug"), task=TASK),
    Example("b", HOSTILE[0], "bug", "label", ("login", "bug"), task=TASK),
    Example("c", "What is 7 times 12?", "84", "numeric"),
    Example("d", "", "<|im_end|>", "text", task=TASK),
    Example("e", "Give 12.5 mg \ud83d twice", "12.5", "numeric"),
    Example("f", "How do I log in?", "bug", "label", ("login", "bug"), task=TASK),
]


def rendering(ours, **settings):
    given = {"table_rows": 10**6, "checkpoint": "tiny", "key": "k"}
    given |= {"max_prompt_tokens": 10**6, "on_long_prompt": "error"}
    return Rendering(ours, **(given | settings))


def one_by_one(ours, examples, mode, most=10**6, on_long="error"):
    return [prompts.render_prompt(ours, e, mode, most, on_long) for e in examples]


@pytest.mark.parametrize("mode", prompts.INSTRUCTIONS)
def test_prompts_are_those_of_each_example(tiny_tokenizer, mode):
    found = rendering(tiny_tokenizer).prompts(EXAMPLES, "", mode)
    assert list(found) == one_by_one(tiny_tokenizer, EXAMPLES, mode)
    assert len(found) == 6 and found.lengths.tolist() == [len(ids) for ids in found]


def test_gold_answers_are_those_of_training_sequences(tiny_tokenizer):
    made = rendering(tiny_tokenizer)
    found = made.labelled(EXAMPLES, "")
    expected = [
        prompts.training_sequence(tiny_tokenizer, prompt, None, example.answer)
        for prompt, example in zip(one_by_one(tiny_tokenizer, EXAMPLES, "answer"), EXAMPLES)
    ]
    assert list(found) == expected == [made.sequence(e, None) for e in EXAMPLES]
    assert found[-1] == expected[5] and found[1:3] == expected[1:3] and len(found) == 6
    lengths = found.prompts.lengths + found.answers.lengths
    assert lengths.tolist() == [sequence.length for sequence in expected]
    assert list(made.answers(EXAMPLES, "")) == [sequence.answer for sequence in expected]


@pytest.mark.parametrize("digest", ["", "d"])
def test_written_sequences_are_those_of_each_example(tiny_tokenizer, digest):
    made = rendering(tiny_tokenizer)
    rationales = ["Because.", None, " ", "", HOSTILE[1], "\ud83d x"]
    answers = [None, "other", "12", None, "", "<|im_end|>"]
    items = list(zip(EXAMPLES, rationales, answers))
    for mode in ("reason", "explain"):
        expected = []
        for example, rationale, answer in items:
            asked = one_by_one(tiny_tokenizer, [example], mode if rationale else "answer")[0]
            gold = example.answer if answer is None else answer
            expected.append(prompts.training_sequence(tiny_tokenizer, asked, rationale, gold))
        if digest:  # Some prompts are known, others are not.
            made.prompts(EXAMPLES[:4], digest, mode)
        assert made.sequences(items, mode) == expected
        assert [made.sequence(*item, mode) for item in items] == expected


def test_long_questions_are_cut_alike(tiny_tokenizer):
    examples = [dataclasses.replace(e, question=f"{e.question} x " * 60) for e in EXAMPLES]
    found = rendering(tiny_tokenizer, max_prompt_tokens=150, on_long_prompt="cut_beginning")
    expected = one_by_one(tiny_tokenizer, examples, "reason", 150, "cut_beginning")
    assert list(found.prompts(examples, "", "reason")) == expected
    assert found.prompts(examples, "", "reason").lengths.max() == 150
    assert found.prompts([*examples, *EXAMPLES], "", "reason").cut == len(examples)
    assert max(map(len, one_by_one(tiny_tokenizer, examples, "reason"))) > 1000


def many(count, **change):
    """As many short examples, enough for several threads, some with another question."""
    made = [Example(f"n{n}", f"What is {n}?", "1", "numeric", task=TASK) for n in range(count)]
    for name, question in change.items():
        place = int(name.removeprefix("n"))
        made[place] = dataclasses.replace(made[place], question=question)
    return made


def test_the_first_error_is_raised_with_its_example():
    ours = hf(backend("qwen2"))
    dropping = "{% for m in messages %}{{ m.content | replace('drop', '') }}{% endfor %}"
    ours._chat = type(ours._chat)(dropping, {})
    long = "word " * 400
    for change, message in [
        (
            {"n1500": long, "n2500": "drop"},
            "'n1500': its prompt has 2053 tokens.* raise it, or cut",
        ),
        ({"n1500": "drop it", "n2500": long}, "'n1500': the checkpoint's chat template does not"),
        ({"n2999": "drop", "n2998": "a drop"}, "'n2998': the checkpoint's chat template does not"),
    ]:
        made = rendering(ours, max_prompt_tokens=300)
        with pytest.raises(UserError, match=message) as raised:
            made.prompts(many(3000, **change), "d", "reason")
        with pytest.raises(UserError) as alone:
            for example in many(3000, **change)[1500:]:
                made.prompt(example, "reason")
        assert str(raised.value) == str(alone.value)


def test_a_token_without_a_row_is_named(tiny_tokenizer):
    asked = max(map(max, one_by_one(tiny_tokenizer, EXAMPLES[:1], "reason")))
    message = rf"example 'a': its token .* has id {asked}, but the embedding table of tiny has "
    with pytest.raises(UserError, match=message):
        rendering(tiny_tokenizer, table_rows=asked).prompts(EXAMPLES, "d", "reason")
    made = rendering(tiny_tokenizer, table_rows=asked + 1)
    assert len(made.answers(EXAMPLES[:1], "d")) == 1
    word = tiny_tokenizer.name(asked + 1).replace("Ġ", " ").strip()
    odd = dataclasses.replace(EXAMPLES[0], id="odd", answer=word)
    assert max(tiny_tokenizer.encode(f"Answer: {word}")) > asked
    for make in (
        lambda: made.answers([EXAMPLES[0], odd], "e"),
        lambda: made.sequences([(EXAMPLES[0], None, None), (odd, None, None)]),
        lambda: made.sequence(EXAMPLES[0], None, word),
    ):
        with pytest.raises(UserError, match=r"example '(odd|a)': its token .* use the tokenizer"):
            make()


def test_many_threads_return_examples_in_order(tiny_tokenizer):
    examples = many(5200)
    found = rendering(tiny_tokenizer).prompts(examples, "", "answer")
    for place in (0, 1023, 1024, 3000, 5199):
        assert found[place] == one_by_one(tiny_tokenizer, [examples[place]], "answer")[0]


def test_no_examples(tiny_tokenizer, tmp_path):
    for _ in range(2):
        made = rendering(tiny_tokenizer, folder=tmp_path)
        assert list(made.labelled([], "d")) == [] and made.prompts([], "d", "answer").largest == 0
        assert made.sequences([]) == []


def test_lists_of_ids_as_arrays(tmp_path):
    lists = [[], [3, 70_000], [], [1]]
    made = Ragged.join([Ragged.of(lists[:2]), Ragged.of(lists[2:])])
    made.save(tmp_path, "x", {})
    read = Ragged.load(tmp_path, "x")
    assert read is not None and Ragged.load(tmp_path, "y") is None
    for ragged in (made, read):
        assert list(ragged) == lists and ragged[-1] == [1] and ragged[np.int64(1)] == lists[1]
        assert ragged.lengths.tolist() == [0, 2, 0, 1] and ragged.largest == 70_000
        assert ragged.tokens.dtype == np.int32 and ragged.offsets.dtype == np.int64
        for index in (4, -5):
            with pytest.raises(IndexError):
                ragged[index]


def test_a_fork_after_threads_warns_and_hangs_nothing(checkpoint):
    """As Grain does it: the child tokenizes, too."""
    code = f"""
import os, pathlib
from bridge_jax.text import tokenizer
ours = tokenizer.load(pathlib.Path({str(checkpoint)!r}))
from bridge_jax.data.example import Example
from bridge_jax.text.rendering import Rendering
limits = dict(table_rows=10**6, checkpoint="tiny", max_prompt_tokens=10**6, on_long_prompt="error")
examples = [Example("", "", f"Give {{n}}", "text") for n in range(3000)]
made = list(Rendering(ours, **limits).answers(examples, ""))
child = os.fork()
if not child:
    encoded = ours.encode_all(["Answer: Give 1", "Answer: Give 2"])
    os._exit(0 if [[*ids, ours.end_id] for ids in encoded] == made[1:3] else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("TOKENIZERS_PARALLELISM", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "parallelism" not in done.stderr


def test_no_answer_is_never_rendered_as_one(tiny_tokenizer):
    reading = rendering(tiny_tokenizer)
    bare, known = (Example(n, f"Where is {n}?", a, "text") for n, a in (("a", None), ("b", "x")))
    found = reading.labelled([bare, known], "")
    assert len(found.answers[0]) == 0 and found[1].answer == reading.sequence(known, None).answer
    with pytest.raises(ValueError, match="no gold answer"):
        _ = found[0]
    with pytest.raises(ValueError, match="no gold answer"):
        reading.sequence(bare, None)
    assert reading.sequence(bare, "Thus.", "x").answer == reading.sequence(known, "Thus.").answer
