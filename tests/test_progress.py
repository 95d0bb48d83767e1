import io
import sys
import types

import pytest

from bridge_jax import progress


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_plain_lines_are_sparse(clock, capsys):
    with progress.track("assistant", total=120, unit="steps") as advance:
        for step in range(40):
            clock.seconds += 0.5
            advance(loss=2.0 - step / 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "assistant 20/120 steps  2 steps/s  50 s left  loss=1.81",
        "assistant 40/120 steps  2 steps/s  40 s left  loss=1.61",
        "assistant 40/120 steps in 20 s  2 steps/s  loss=1.61",
    ]


def test_a_failure_says_how_far_it_came(clock, capsys):
    with (
        pytest.raises(RuntimeError),
        progress.track("teacher", total=25, unit="queries") as advance,
    ):
        clock.seconds += 4
        advance(8)
        raise RuntimeError("no network")
    err = capsys.readouterr().err
    assert err == "teacher 8/25 queries stopped after 4.0 s  2 queries/s\n"


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.track("student", total=3, unit="steps") as advance:
        advance(3, loss=0.5)
    assert "student" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "loss=0.5" in terminal.getvalue()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_what_is_shown_steers_no_terminal(monkeypatch, is_terminal):
    class Stream(io.StringIO):
        def isatty(self):
            return is_terminal

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with progress.track("[/b]\x1b]0;x\x07", total=2, unit="queries") as advance:
        advance(2, last="[/INST]\x9b2J\r\n")
    said = stream.getvalue()
    assert r"[/b]\x1b]0;x\x07" in said and r"last=[/INST]\x9b2J" in said
    assert "\x1b]" not in said and "\x07" not in said and "\x9b" not in said


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration(seconds, words):
    assert progress.duration(seconds) == words
