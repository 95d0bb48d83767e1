"""Renders conversations by a checkpoint's chat template, and finds the token that ends a turn.

A template is used only if what is put in can be found in what it writes. Where it lacks a place for
the system message, wants contents as a list of parts, or leaves thoughts open, it is mended: lines
are put before and after it. The mended template is exported, so that other programs render what was
trained.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bridge_jax.errors import UserError
from bridge_jax.text.markers import whole_characters
from bridge_jax.text.templates import (
    DATE,
    WAY_OUT,
    Messages,
    Template,
    compile_template,
    writes_date,
)

# Every line ends with a block, after which jinja2 drops the line break.
_MERGE = """\
{%- if messages|length > 1 and messages[0]['role'] == 'system' and messages[1]['role'] == 'user' \
and messages[0]['content'] is string and messages[1]['content'] is string %}
{%- set messages = [{'role': 'user', 'content': messages[0]['content'] ~ '\\n\\n' ~ \
messages[1]['content']}] + messages[2:] %}
{%- endif %}
"""
_PARTS = """\
{%- set as_parts = namespace(messages=[]) %}
{%- for message in messages %}
{%- set content = message['content'] %}
{%- if content is string %}{% set content = [{'type': 'text', 'text': content}] %}{% endif %}
{%- set as_parts.messages = as_parts.messages + [dict(message, content=content)] %}
{%- endfor %}
{%- set messages = as_parts.messages %}
"""
_CLOSE = "{%+ if add_generation_prompt %}{{ TEXT }}{% endif %}"

# (lines to put before a template, a note on them), in the order in which they are tried.
_MENDED = (
    ("", ""),
    (_PARTS, "wants contents as a list of parts, and gets them so"),
    (_MERGE, "has no place for a system message, which heads the user's"),
    (_MERGE + _PARTS, "has no place for a system message, which heads the user's"),
)
_PROBE = (
    {"role": "system", "content": "fourscore"},
    {"role": "user", "content": "sevenfold"},
    {"role": "assistant", "content": "threefold"},
)
_THINK = re.compile(r"([<\[])([\w:]*(?:think|thought|reason)[\w:]*)([>\]])", re.IGNORECASE)

_PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
_USUAL = (chr(0xE000), chr(0xE001))


class UnwrittenError(UserError):
    """Raised where a chat template does not write what was put in."""


class Rendered(NamedTuple):
    """A conversation as text.

    Attributes:
      text: all of it.
      contents: (start, end) of what was put in, in order, without white space around it.
    """

    text: str
    contents: list[tuple[int, int]]


class Chat:
    """A chat template, mended where it needs to be.

    Attributes:
      source: the mended template.
      mended: whether it is another than the one that was given.
      notes: remarks for the user, in words.
    """

    def __init__(self, source: str, tokens: Mapping[str, Any]):
        """Compiles and mends a template.

        Args:
          source: the template, in jinja2.
          tokens: its variables, such as {"bos_token": "<s>"}.

        Raises:
          UserError: it is not valid jinja2.
        """
        self.source, self.notes = source, []
        self._one_at_a_time = threading.RLock()  # A template counts its steps.
        self._template = compile_template(source, tokens)
        for before, note in _MENDED:
            template = compile_template(before + source, tokens)
            try:
                rendered = _render(template, _PROBE[:2], True)
            except UserError:
                continue
            self.source, self._template = before + source, template
            self._note(note)
            self._close_thoughts(rendered, tokens)
            break
        if writes_date(source):
            self._note(f"can write today's date; where it does, every prompt has {DATE}")
        self.mended = self.source != source

    def _close_thoughts(self, rendered: Rendered, tokens: Mapping[str, Any]) -> None:
        tag, closing = _open_thoughts(rendered.text[rendered.contents[-1][1] :])
        if closing:
            self.source = self.source.removesuffix("\n") + _CLOSE.replace("TEXT", repr(closing))
            self._template = compile_template(self.source, tokens)
            self._note(f"opens {tag} before each reply; every prompt closes it again")

    def _note(self, note: str) -> None:
        self.notes += [f"the chat template {note}"] if note else []

    def render(self, messages: Messages, open_turn: bool = True) -> Rendered:
        """Returns the text of the messages; with `open_turn` the assistant begins to write.

        Raises:
          UnwrittenError: the template does not write what was put in.
          UserError: it fails.
        """
        messages = [{**m, "content": whole_characters(m["content"])} for m in messages]
        with self._one_at_a_time:
            try:
                return _render(self._template, messages, open_turn)
            except UnwrittenError:
                # Many templates leave out the earlier thoughts of an assistant.
                short = [
                    {**m, "content": m["content"].rpartition("</think>")[2]}
                    if m["role"] == "assistant"
                    else m
                    for m in messages
                ]
                return _render(self._template, short, open_turn)

    def render_all(self, conversations: Iterable[Messages]) -> list[Rendered]:
        """Returns what `render` returns for each, while other threads wait.

        Threads that took turns after each conversation would spend more time on that than on it.
        """
        with self._one_at_a_time:
            return [self.render(messages) for messages in conversations]

    def end_of_turn(
        self, read: Callable[[str], Iterable[int]], markers: Mapping[int, str]
    ) -> int | None:
        """Returns the first marker that the template writes after an assistant's message.

        It is often another token than `eos`: `<end_of_turn>` in Gemma, `<|eot_id|>` in Llama 3.

        Args:
          read: text to ids, markers to single ones.
          markers: the added tokens, id to text. Those of white space alone, as Gemma has, do not
            count.

        Returns:
          Its id; None where the template ends a turn without a marker.
        """
        marks = {i for i, marker in markers.items() if marker.strip("▁ \t\r\n")}
        for conversation in (_PROBE[1:], _PROBE):
            try:
                text = self._template(conversation, False)
            except UserError:
                continue
            _, found, tail = text.rpartition(_PROBE[-1]["content"])
            if found:
                return next((i for i in read(tail) if i in marks), None)
        return None


def default_template(templates: Any, where: str) -> str:
    """Returns the template that a tokenizer uses: its only one, or the one named "default".

    Args:
      templates: text, or several by name, in a dict or as transformers writes them in a list.
      where: the file or folder, for the errors.

    Raises:
      UserError: there is none.
    """
    if isinstance(templates, list):
        entries = [e for e in templates if isinstance(e, dict) and {"name", "template"} <= set(e)]
        templates = {str(entry["name"]): entry["template"] for entry in entries}
    if isinstance(templates, dict) and templates:
        if "default" not in templates:
            raise UserError(
                f"{where}: its chat templates are named {', '.join(sorted(templates))}, and none "
                "is the default; write the one to use to chat_template.jinja"
            )
        templates = templates["default"]
    if not isinstance(templates, str) or not templates:
        raise UserError(
            f"{where}: no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json); use a chat model"
        )
    return templates


def _render(template: Template, messages: Messages, open_turn: bool) -> Rendered:
    """Returns the conversation.

    Each content is put between two characters that nobody wrote, inside its white space, so that a
    template trims it as it would.

    Raises:
      UnwrittenError: a message is not written as it is.
      UserError: the template fails.
    """
    start, end = _unused(m["content"] for m in messages)
    marked = []
    for message in messages:
        content = message["content"]
        if body := content.strip():
            before, _, after = content.partition(body)
            message = {**message, "content": f"{before}{start}{body}{end}{after}"}
        marked.append(message)
    head, *rest = template(marked, open_turn).split(start)
    pieces, contents, length = [head.replace(end, "")], [], len(head)
    whole = end not in head
    for part in rest:
        content, closed, tail = part.partition(end)
        whole = whole and bool(closed) and end not in tail
        pieces += content, tail
        contents.append((length, length + len(content)))
        length += len(content) + len(tail)
    # Nothing but white space may differ.
    written = {" ".join(piece.split()) for piece in pieces[1::2]} if whole else set()
    for message in messages:
        content = " ".join(message["content"].split())
        if content and content not in written:
            shown = message["content"].strip()[:60]
            raise UnwrittenError(
                f"the checkpoint's chat template does not write the {message['role']} message as "
                f"it is ({shown!r} ...), so what is trained would not be what was asked; "
                f"{WAY_OUT}, or use another chat model"
            )
    return Rendered("".join(pieces), contents)


def _unused(texts: Iterable[str]) -> tuple[str, str]:
    """Returns two characters of Unicode's private use that are in none of the texts."""
    texts = list(texts)
    if not any(char in text for text in texts for char in _USUAL):
        return _USUAL
    used = set().union(*texts)
    free: Iterator[str] = (chr(i) for area in _PRIVATE for i in area if chr(i) not in used)
    try:
        return next(free), next(free)
    except StopIteration:
        raise UserError("a conversation has all characters of Unicode's private use") from None


def _open_thoughts(tail: str) -> tuple[str, str]:
    """Returns the tag after which the end of a prompt leaves thoughts open, and what closes them.

    Both are empty if it leaves none open.
    """
    tags = list(_THINK.finditer(tail))
    if not tags:
        return "", ""
    opening, name, closing = tags[-1].groups()
    close, after = f"{opening}/{name}{closing}", tail[tags[-1].end() :]
    if close in after:
        return "", ""
    # As Qwen 3 writes it where thinking is off.
    blank = "\n" if after else "\n\n"
    return tags[-1].group(), f"{blank}{close}\n\n"
