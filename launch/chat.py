"""Chats with a model: `python -m launch.chat --model=DIR`, an exported folder or a workdir.

Every line is a separate question, as in a student's training; with `--history` the prompt includes
the previous turns, and `/new` starts over. `/quit` or the end of the input exits; Ctrl-C stops a
reply. Questions may be piped in: standard output then holds only the replies, as generated.
"""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

from bridge_jax import display
from bridge_jax.data.answers import ANSWER_MARK, cut_completion
from bridge_jax.errors import UserError
from bridge_jax.text.prompts import system_message_of, with_budget
from launch.overrides import run_main

if TYPE_CHECKING:
    from bridge_jax.generation.conversation import ChatModel, ChatReply, Conversation
    from bridge_jax.serving.models import AskingConfig

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A model folder, a workdir (its student), a .gguf file, a hub id, or smollm2-135m.",
    required=True,
)
_MAX_NEW_TOKENS = flags.DEFINE_integer(
    "max_new_tokens", 256, "Maximum length of a reply, in tokens.", lower_bound=1
)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "For sampling; 0 is greedy.", lower_bound=0.0)
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Nucleus sampling, if --temperature is above 0.")
_SYSTEM = flags.DEFINE_string(
    "system",
    None,
    "The system message; default: the one used in training; --system= is none.",
)
_HISTORY = flags.DEFINE_bool(
    "history", False, "Include the previous turns in the prompt; students are trained without."
)
_BUDGET = flags.DEFINE_integer(
    "budget",
    None,
    "Think for at most this many tokens; the prompt states it, and thinking is cut off there.",
    lower_bound=1,
)
_SEED = flags.DEFINE_integer("seed", 0, "For sampling.", lower_bound=0, upper_bound=2**31 - 1)

flags.register_validator(_TOP_P, lambda p: 0 < p <= 1, "must be above 0 and at most 1")


def main(assignments: list[str]) -> int:
    """Loads the model and answers; returns 130 on a Ctrl-C outside of replies and of the prompt."""
    if assignments:
        raise UserError(f"unexpected --{assignments[0]}; see --help")
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    out = Console(highlight=False, force_terminal=None if interactive else False)
    notes = Console(highlight=False, stderr=True, force_terminal=None if interactive else False)
    try:
        loading = display.text(f"loading {_MODEL.value}")
        with notes.status(loading) if interactive else contextlib.nullcontext():
            model, conversation, remarks = load()
        for note in remarks:
            say(notes, note)
        if interactive:
            say(notes, describe(model))
        talk(model, conversation, out, notes, interactive)
    except KeyboardInterrupt:
        return 130
    return 0


def load() -> "tuple[ChatModel, Conversation, list[str]]":
    """Returns the model that the flags name, an empty conversation, and notes for the user."""
    # These imports take seconds, so a mistyped flag is reported before them.
    import jax
    from absl import logging

    from bridge_jax.config import GenerationConfig
    from bridge_jax.config.fields import check
    from bridge_jax.generation.budgets import capped
    from bridge_jax.generation.conversation import ChatModel, Conversation
    from bridge_jax.serving import models

    logging.set_verbosity(logging.WARNING)
    settings = GenerationConfig(_MAX_NEW_TOKENS.value, 1, _TEMPERATURE.value, _TOP_P.value)
    check(settings, "--")
    found = models.find(_MODEL.value)
    asking = dataclasses.replace(found.asking, generation=settings)
    loaded = found.load(asking, jax.devices()[:1])
    tokenizer, cap = loaded.tokenizer, None
    notes = list(tokenizer.notes)
    if _BUDGET.value:  # Leaves room for the budget and an answer.
        cap, note = models.cap(tokenizer, asking.thinking, _BUDGET.value, found.where)
        notes += [note] if note else []
        most = max(settings.max_new_tokens, capped([0], cap).limit or 0)
        settings = dataclasses.replace(settings, max_new_tokens=most)
    model = ChatModel(loaded.config, loaded.params, tokenizer, settings, _SEED.value, cap)
    system = with_budget(system_message(asking), _BUDGET.value or 0)
    return model, Conversation(tokenizer, system, model.room), notes


def system_message(asking: "AskingConfig") -> str:
    """Returns the system message: that of the flag, or that of the model's training."""
    if _SYSTEM.value is not None:
        return _SYSTEM.value
    return system_message_of(asking.data.as_data(), asking.mode)


def describe(model: "ChatModel") -> str:
    """Returns the line that is printed at the start."""
    import jax

    from bridge_jax.models.decoder import count_parameters

    turns = "/new starts over" if _HISTORY.value else "every line is a separate question"
    return (
        f"{count_parameters(model.config) / 1e6:,.0f} million parameters on "
        f"{jax.default_backend()}, context {model.config.max_positions:,}; {turns}, /quit exits"
    )


def talk(
    model: "ChatModel",
    conversation: "Conversation",
    out: Console,
    notes: Console,
    interactive: bool,
) -> None:
    """Answers questions until there are no more."""
    from bridge_jax.generation.conversation import ChatReply

    show = show_live if interactive and not out.is_dumb_terminal else show_plain
    for number, question in enumerate(questions(interactive)):
        if question == "/quit":
            return
        if question == "/new":
            conversation.turns.clear()
            say(notes, "a new conversation")
            continue
        if re.fullmatch(r"/\w*", question):
            say(notes, f"unknown command {question}; use /new or /quit")
            continue
        try:
            prompt, forgotten = conversation.prompt(question)
        except UserError as error:
            say(notes, str(error))
            continue
        if forgotten:
            what = (
                "question and its reply" if forgotten == 1 else f"{forgotten} questions and replies"
            )
            say(notes, f"the context is full: forgot the oldest {what}")
        reply = ChatReply()
        try:
            show(model.write(prompt, number, reply), reply, out)
        except KeyboardInterrupt:
            if not interactive:
                raise
            reply.note = "stopped"
        say(notes, summary(reply))
        if interactive:
            out.print()
        if reply.text and _HISTORY.value:
            conversation.turns.append((question, reply.text))


def questions(interactive: bool) -> Iterator[str]:
    """Yields the lines of standard input that are not blank."""
    for line in _typed() if interactive else _piped():
        if line.strip():
            yield line.strip()


def _typed() -> Iterator[str]:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its line editing
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return


def _piped() -> Iterator[str]:
    with open(sys.stdin.fileno(), encoding="utf-8", errors="replace", closefd=False) as lines:
        yield from lines


def show_plain(pieces: Iterator[str], reply: "ChatReply", out: Console) -> None:
    """Prints a reply piece by piece; the answer already has a line of its own."""
    to_screen = sys.stdout.isatty()
    try:
        for piece in pieces:
            out.out(display.plain(piece) if to_screen else piece, end="", highlight=False)
    finally:
        out.out("\n", highlight=False)


def show_live(pieces: Iterator[str], reply: "ChatReply", out: Console) -> None:
    """Shows the last lines of a reply while it is generated, then all of it."""
    out.print()
    try:
        with Live(_Tail(reply), console=out, refresh_per_second=15, transient=True):
            for _ in pieces:
                pass
    finally:
        out.print(layout(reply.text, complete=True), end="\n\n")


class _Tail:
    """Renders only the last lines of a reply that is being generated; others cannot be redrawn."""

    def __init__(self, reply: "ChatReply"):
        self._reply = reply
        self._waiting = Spinner("dots", style="dim")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._reply.text:
            yield self._waiting
            return
        text = layout(self._reply.text, complete=False)
        lines = console.render_lines(text, options.update(height=None), pad=False)
        for number, line in enumerate(lines[-(options.size.height - 1) :]):
            if number:
                yield Segment.line()
            yield from line


def layout(reply: str, complete: bool) -> Text:
    """Returns a reply with its rationale dim and its answer bold.

    A complete reply without an answer is shown plain; an incomplete one counts as a rationale.
    """
    reply = display.plain(reply)
    rationale, answer, rest = cut_completion(reply)
    if answer is None:
        return Text(rationale, "" if complete else "dim")
    parts = (rationale, "dim"), (f"{ANSWER_MARK} {answer}", "bold"), (rest, "dim")
    return Text("\n\n").join(Text(text, style) for text, style in parts if text)


def summary(reply: "ChatReply") -> str:
    """Returns a line about a reply: tokens, tokens per second, and why it ended if unusual."""
    parts = [f"{reply.tokens} token{'s' * (reply.tokens != 1)}"]
    if reply.rate:
        parts.append(f"{reply.rate:.1f} tokens/s")
    return ", ".join([*parts, reply.note] if reply.note else parts)


def say(notes: Console, text: str) -> None:
    """Prints a note, dim."""
    notes.print(display.text((text, "dim")), soft_wrap=not notes.is_terminal)


if __name__ == "__main__":
    run_main(main, takes_config=False)
