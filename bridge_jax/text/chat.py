"""Renders conversations with a checkpoint's chat template, and finds the token that ends a turn.

Every rendered text is checked to contain the messages. A template that has no place for the system
message, that wants contents as a list of parts, or that leaves a thinking block open is repaired by
adding lines before and after it. The repaired template is exported, so that other programs render
the same prompts as in training.
"""

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from bridge_jax.errors import UserError
from bridge_jax.text.markers import whole_characters
from bridge_jax.text.templates import (
    DATE,
    HINT,
    Messages,
    Template,
    compile_template,
    writes_date,
)

# Every line ends with a block, because jinja2 drops the line break after a block.
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

# (lines to put before a template, a note for the user). They are tried in this order.
_MENDED = (
    ("", ""),
    (_PARTS, "expects contents as a list of parts; they are passed in that form"),
    (_MERGE, "does not support a system message; it is prepended to the user's message"),
    (_MERGE + _PARTS, "does not support a system message; it is prepended to the user's message"),
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
    """Raised if a chat template does not render a message unchanged."""


class Rendered(NamedTuple):
    """A conversation as text.

    Attributes:
      text: the whole conversation.
      contents: the (start, end) of each message's content in `text`, without surrounding white
        space.
    """

    text: str
    contents: list[tuple[int, int]]


class Chat:
    """A chat template, repaired if necessary.

    Attributes:
      source: the repaired template.
      repaired: whether it differs from the original.
      notes: remarks for the user.
    """

    def __init__(self, source: str, tokens: Mapping[str, Any]):
        """Compiles and repairs a template.

        Args:
          source: the template, in jinja2.
          tokens: its variables, such as {"bos_token": "<s>"}.

        Raises:
          UserError: it is not valid jinja2.
        """
        self.source, self.notes = source, []
        self._one_at_a_time = threading.RLock()  # The counters are not thread-safe.
        self._template = compile_template(source, tokens)
        for before, note in _MENDED:
            template = compile_template(before + source, tokens)
            try:
                rendered = _render(template, _PROBE[:2], True)
            except UserError:
                continue
            self.source, self._template = before + source, template
            if note:
                self.notes.append(f"the chat template {note}")
            tag, closing = _open_thoughts(rendered.text[rendered.contents[-1][1] :])
            if closing:
                close = _CLOSE.replace("TEXT", repr(closing))
                self.source = self.source.removesuffix("\n") + close
                self._template = compile_template(self.source, tokens)
                self.notes.append(
                    f"the chat template opens {tag} before each reply; every prompt closes it again"
                )
            break
        if writes_date(source):
            self.notes.append(
                f"the chat template can insert today's date; where it does, prompts use {DATE}"
            )
        self.repaired = self.source != source

    def render(self, messages: Messages, open_turn: bool = True) -> Rendered:
        """Returns the messages as text; with `open_turn`, it ends where a reply begins.

        Raises:
          UnwrittenError: the template does not render a message unchanged.
          UserError: the template fails.
        """
        messages = [{**m, "content": whole_characters(m["content"])} for m in messages]
        with self._one_at_a_time:
            try:
                return _render(self._template, messages, open_turn)
            except UnwrittenError:
                # Many templates drop the thinking of earlier assistant turns.
                for message in messages:
                    if message["role"] == "assistant":
                        message["content"] = message["content"].rpartition("</think>")[2]
                return _render(self._template, messages, open_turn)

    def render_all(self, conversations: Iterable[Messages]) -> list[Rendered]:
        """Returns the result of `render` for each conversation; other threads wait for all of them.

        Releasing the lock after each conversation would cost more time than rendering one.
        """
        with self._one_at_a_time:
            return [self.render(messages) for messages in conversations]

    def end_of_turn(
        self, read: Callable[[str], Iterable[int]], markers: Mapping[int, str]
    ) -> int | None:
        """Returns the first marker that the template writes after an assistant's message.

        It is often not `eos`: `<end_of_turn>` in Gemma, `<|eot_id|>` in Llama 3.

        Args:
          read: maps text to ids, each marker to a single id.
          markers: the added tokens, id to text. Tokens of white space alone, which Gemma has, do
            not count as markers.

        Returns:
          The id of the marker; None if the template ends a turn without one.
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
      templates: one template, or several by name, in a dict or in a list as transformers writes
        them.
      where: the file or folder, for the errors.

    Raises:
      UserError: there is no template, or none is the default.
    """
    if isinstance(templates, list):
        entries = [e for e in templates if isinstance(e, dict) and {"name", "template"} <= set(e)]
        templates = {str(entry["name"]): entry["template"] for entry in entries}
    if isinstance(templates, dict) and templates:
        if "default" not in templates:
            raise UserError(
                f"{where}: its chat templates are named {', '.join(sorted(templates))}, and none "
                "is the default; copy the one to use to chat_template.jinja"
            )
        templates = templates["default"]
    if not isinstance(templates, str) or not templates:
        raise UserError(
            f"{where}: no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json); use a chat model"
        )
    return templates


def _render(template: Template, messages: Messages, open_turn: bool) -> Rendered:
    """Returns the conversation, checked to contain each message.

    Each content, without its white space at both ends, is put between two characters that occur in
    no message, so that a template trims it as usual.

    Raises:
      UnwrittenError: a message is not rendered unchanged.
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
    # Only white space may differ.
    written = {" ".join(piece.split()) for piece in pieces[1::2]} if whole else set()
    for message in messages:
        content = " ".join(message["content"].split())
        if content and content not in written:
            shown = message["content"].strip()[:60]
            raise UnwrittenError(
                f"the checkpoint's chat template does not render the {message['role']} message "
                f"verbatim ({shown!r} ...), so the model would be trained on something else; "
                f"{HINT}, or use another chat model"
            )
    return Rendered("".join(pieces), contents)


def _unused(texts: Iterable[str]) -> tuple[str, str]:
    """Returns two characters from Unicode's private use areas that occur in none of the texts."""
    text = "".join(texts)
    if not any(char in text for char in _USUAL):
        return _USUAL
    used = set(text)
    free = [char for area in _PRIVATE for char in map(chr, area) if char not in used]
    if len(free) < 2:
        raise UserError("a conversation uses all of Unicode's private-use characters")
    return free[0], free[1]


def _open_thoughts(tail: str) -> tuple[str, str]:
    """Returns the thinking tag that the end of a prompt leaves open, and the text that closes it.

    Both are empty if no tag is open.
    """
    tags = list(_THINK.finditer(tail))
    if not tags:
        return "", ""
    opening, name, closing = tags[-1].groups()
    close, after = f"{opening}/{name}{closing}", tail[tags[-1].end() :]
    if close in after:
        return "", ""
    # The format that Qwen 3 uses if thinking is off.
    blank = "\n" if after else "\n\n"
    return tags[-1].group(), f"{blank}{close}\n\n"
