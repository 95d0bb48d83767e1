"""`launch.chat` as its users meet it: piped questions, and a terminal."""

import contextlib
import os
import re
import select
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from bridge_jax.serving.models import AskingConfig, QuestionsConfig
from launch import chat
from tests import tiny, xla
from tests.launch import commands
from tests.launch.commands import ROOT

QUESTION = "Fee is 5. Sum?"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with room for a long reply, that the tests of this file share."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    return tiny.write_checkpoint(folder, max_positions=100_000, tied=False)


ENVIRONMENT = os.environ | {"XLA_FLAGS": xla.flags(1), "TERM": "xterm-256color"}


def talk(text, *given):
    """Returns how chats with piped questions ended, one for each list of flags."""
    return commands.run_all("launch.chat", given, text)


def replies(out):
    """Returns the replies; a model that writes blank lines itself would mislead it."""
    return out.removesuffix("\n\n").split("\n\n")


def test_piped_questions_and_a_new_conversation(model):
    lines = f"{QUESTION}\n\n{QUESTION}\n/new\n  {QUESTION}\n/what\n/quit\nnot asked\n"
    flags = [f"--model={model}", "--max_new_tokens=8"]
    with_history, without = talk(lines, [*flags, "--history"], flags)
    assert with_history.code == without.code == 0, with_history.err
    first, second, fresh = replies(with_history.out)
    assert fresh == first != second
    # Otherwise every line is a question of its own.
    assert replies(without.out) == [first] * 3
    assert "\x1b" not in with_history.out + with_history.err
    notes = with_history.err.splitlines()
    assert len(notes) == 5
    for line in (notes[0], notes[1], notes[3]):
        head, tail = line.split(" tokens/s, ")
        assert head.startswith("8 tokens, ") and float(head.split()[2]) > 0
        assert tail == "cut at max_new_tokens=8"
    assert notes[2] == "a new conversation"
    assert notes[4] == "unknown command /what; use /new or /quit"


@pytest.mark.slow
def test_the_seed_and_the_system_message_matter(model):
    sampled = [f"--model={model}", "--max_new_tokens=8", "--temperature=1"]
    ends = talk(QUESTION, *([*sampled, *more] for more in ((), ("--seed=1",), ("--system=",))))
    assert [end.code for end in ends] == [0, 0, 0]
    assert len({end.out for end in ends}) == 3


@pytest.mark.parametrize(
    ("flag", "trained", "told"),
    [
        (None, {}, "Reason step by step, then write the answer."),
        (
            None,
            {"data": QuestionsConfig(instruction="Which team?"), "mode": "answer"},
            "Which team?\n\nWrite only the answer.",
        ),
        ("Be kind.", {"data": QuestionsConfig(instruction="Which team?")}, "Be kind."),
        ("", {"data": QuestionsConfig(instruction="Which team?")}, ""),
    ],
)
def test_a_model_is_told_what_it_was_trained_with(monkeypatch, flag, trained, told):
    monkeypatch.setattr(chat, "_SYSTEM", SimpleNamespace(value=flag))
    assert chat.system_message(AskingConfig(**trained)) == told


@pytest.mark.slow
def test_what_no_longer_fits_is_forgotten_and_said(checkpoint):
    """The context is 512 tokens."""
    lines = f"{QUESTION}\n{'7' * 150}\n{'8' * 150}\n{'9' * 500}\n{QUESTION}\n"
    flags = [f"--model={checkpoint}", "--max_new_tokens=150", "--history"]
    code, _, err = commands.run("launch.chat", *flags, text=lines)
    assert code == 0, err
    assert "the context is full: forgot the oldest " in err
    assert "tokens, but the context has room for 362; shorten it or lower max_new_tokens" in err
    assert err.count(" tokens/s") == 4


MISTAKES = {
    "--model=/nowhere": "error: checkpoint '/nowhere': no such folder or file; give ",
    "--model={empty}": "has no config.json",
    "--model={model} --max_new_tokens=99990": "an empty question already needs ",
    "--model={model} --max_new_tokens=0": "error: flag --max_new_tokens=0",
    "--model={model} --temperature=nan": "error: --temperature=nan: a finite number",
    f"--model={{model}} --seed={10**30}": "error: flag --seed=1000",
    "--model={model} --top_p=0": "must be above 0 and at most 1",
    "--model={model} --a.b=1": "error: unexpected --a.b=1",
    "": "error: flag --model=None",
}


@pytest.fixture(scope="module")
def mistakes(model, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    given = [mistake.format(model=model, empty=empty).split() for mistake in MISTAKES]
    return dict(zip(MISTAKES, talk("", *given), strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_a_line_and_exit_with_2(mistakes, mistake):
    end = mistakes[mistake]
    assert end.code == 2, end.err
    assert MISTAKES[mistake] in end.err and "Traceback" not in end.err
    assert end.out == ""


def test_a_mistyped_flag_is_found_before_the_slow_imports():
    code = "import launch.chat, sys; print({'jax', 'flax', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"set()\n"


TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def has_ended(process, seconds):
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


@pytest.mark.slow
def test_a_terminal_ctrl_c_stops_the_reply_and_then_leaves(model):
    command = [sys.executable, "-m", "launch.chat", f"--model={model}", "--max_new_tokens=90000"]
    terminal = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *command], cwd=ROOT, env=ENVIRONMENT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    assert terminal.stdin and terminal.stdout

    unread = b""

    def wait_for(pattern, seconds=120):
        """Reads up to the pattern: what comes with it in one piece is for the next to find."""
        nonlocal unread
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, unread)) and time.monotonic() < until:
            if select.select([terminal.stdout], [], [], 0.1)[0]:
                unread += terminal.stdout.read(65536)
        unread = unread[found.end() :] if found else unread
        return found is not None

    def press_ctrl_c_until(happened):
        """One that comes while JAX compiles, or before readline waits, may go unnoticed."""
        for _ in range(10):
            time.sleep(0.5)
            terminal.stdin.write(b"\x03")
            if happened():
                return
        raise AssertionError("Ctrl-C was not heard")

    try:
        assert wait_for(rb"million parameters[^>]*> ")
        terminal.stdin.write(QUESTION.encode() + b"\r")
        assert wait_for(rb"\x1b\[2m[^\x1b]*\w")  # a rationale is dim; so is the spinner before
        press_ctrl_c_until(lambda: wait_for(rb", stopped", 30))
        assert wait_for(rb"> ")
        press_ctrl_c_until(lambda: has_ended(terminal, 30))
        assert terminal.returncode == 0
    finally:
        terminal.kill()  # and with it the chat, whose terminal it is


def styles(text):
    return [(text.plain[span.start : span.end], span.style) for span in text.spans]


def test_rationale_and_answer_apart():
    shown = chat.layout("3 x 20 = 60\nAnswer: 60 mg\nand more", complete=True)
    assert shown.plain == "3 x 20 = 60\n\nAnswer: 60 mg\n\nand more"
    assert styles(shown) == [
        ("3 x 20 = 60", "dim"), ("Answer: 60 mg", "bold"), ("and more", "dim"),
    ]  # fmt: skip
    assert styles(chat.layout("Answer: yes", complete=True)) == [("Answer: yes", "bold")]
    bold = chat.layout("3 x 20 = 60\n**Answer:** 60 mg\nand more", complete=True)
    assert bold.plain == shown.plain


def test_without_an_answer_it_is_dim_only_while_it_may_come():
    assert chat.layout("Well", complete=False).style == "dim"
    assert chat.layout("Well", complete=True).style == ""


def test_a_model_does_not_steer_the_terminal():
    said = chat.layout("a\x1b[2Jb\r[bold]c\u202e\n\td", complete=True).plain
    assert said == "a\\x1b[2Jb\\r[bold]c\\u202e\n\td"
