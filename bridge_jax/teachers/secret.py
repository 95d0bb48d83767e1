"""Keeps a vendor's key out of messages, logs, replies and files.

A server may echo the request: in an error, in a reply, or in a header that a library logs. So every
text that a client returns or raises is filtered here.
"""

import base64
import contextlib
import dataclasses
import functools
import html
import itertools
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import TeacherReply

# Shorter keys (EMPTY, none) are not secrets, and hiding them would remove parts of ordinary words.
_SHORTEST = 8
# A truncated key is recognized by this many characters. Fewer would not do: a vendor's keys begin
# alike.
_HEAD = 16
# After the word "bearer", four characters are enough to recognize the key.
_BEARER = re.compile(r"\b(bearer\s{1,4})([!-~]{4,})", re.IGNORECASE)


class Secret:
    """A key that must not appear in any message, log or file.

    Args:
      variables: environment variables; the first one that is set provides the key.
      needed: whether a missing key is an error.
      what_for: what needs the key, for messages.

    Raises:
      UserError: a needed key is missing, or the key cannot be sent. (Libraries would quote such a
        key in their errors, in spellings that `hide` does not know.)
    """

    def __init__(self, variables: Sequence[str], needed: bool, what_for: str):
        found = {name: os.environ.get(name, "") for name in variables}
        self.variable = next((name for name in variables if found[name].strip()), variables[0])
        self.value = found[self.variable] if found[self.variable].strip() else ""
        if not all("!" <= letter <= "~" for letter in self.value):
            raise UserError(
                f"{what_for}: the key in {self.variable} contains a space, a line break or a "
                "character that keys never contain; set it again without extra characters"
            )
        if needed and not self.value:
            raise UserError(
                f"{what_for} needs a key: set the environment variable {' or '.join(variables)} "
                f"(export {variables[0]}=...), never a config or a flag"
            )
        if len(self.value) >= _SHORTEST:
            _keep_from_logs(self)

    @functools.cached_property
    def _forms(self) -> list[str]:
        """The key in plain, URL, JSON, HTML, `repr`, base64 and hex spelling; longest first."""
        key, raw = self.value, self.value.encode()
        forms = {key, quote(key, safe=""), json.dumps(key)[1:-1], html.escape(key), repr(key)[1:-1]}
        if len(key) >= _SHORTEST:
            forms |= {raw.hex(), raw.hex().upper()}
            for before in range(3):
                # In base64, the key's first characters depend on the bytes before it (`user:` or
                # `Bearer `), and its last character on those after it.
                bits = 8 * (before + len(raw))
                for encode in (base64.b64encode, base64.urlsafe_b64encode):
                    text = encode(bytes(before) + raw).decode()
                    forms.add(text[-(-8 * before // 6) : bits // 6])
        return sorted(forms, key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Returns `text` with the key hidden in all its spellings, whole or cut off at its end."""
        if not self.value:
            return text
        return _BEARER.sub(self._without_header, self._without_key(text))

    def _without_header(self, found: re.Match[str]) -> str:
        is_key = found[2].startswith(self.value[:4])
        return f"{found[1]}[{self.variable}]" if is_key else found[0]

    def _without_key(self, text: str) -> str:
        mark = f"[{self.variable}]"
        for form in self._forms:
            text = text.replace(form, mark)
        for head in {form[:_HEAD] for form in self._forms}:
            parts, end = [], 0
            while (start := text.find(head, end)) >= 0:
                parts.append(text[end:start])
                end = start + max(_in_common(form, text, start) for form in self._forms)
            text = mark.join([*parts, text[end:]])
        return text

    def reply(self, reply: TeacherReply) -> TeacherReply:
        """Returns the reply with the key hidden, unless the key is as short as a word."""
        if len(self.value) < _SHORTEST:
            return reply
        return dataclasses.replace(reply, text=self._without_key(reply.text))

    @contextlib.contextmanager
    def redact_errors(self) -> Iterator[None]:
        """Hides the key in errors raised in the block: in their message, notes and causes."""
        try:
            yield
        except Exception as error:
            if self.value and not self._scrub(error):
                said = f"{type(error).__name__}: {self.redact(str(error))}"
                raise RuntimeError(said) from None
            raise

    def _scrub(self, error: BaseException) -> bool:
        """Hides the key in an error and its causes; returns whether this worked for all of them."""
        hidden = True
        for inner in causes(error):
            if inner.__suppress_context__:  # Tracebacks do not show the context.
                inner.__context__ = None
            inner.args = tuple(self.redact(a) if isinstance(a, str) else a for a in inner.args)
            if notes := getattr(inner, "__notes__", None):
                notes[:] = [self.redact(str(note)) for note in notes]
            hidden &= self.redact(str(inner)) == str(inner)
        return hidden


def _in_common(form: str, text: str, start: int) -> int:
    """Returns how many leading characters of `form` match `text` at `start`."""
    pairs = zip(form, text[start : start + len(form)])
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and all errors that it wraps, directly or indirectly."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        error = waiting.pop(0)
        if not isinstance(error, BaseException) or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
        waiting += getattr(error, "exceptions", ())


# The SDKs create log records too, in loggers of their own and for any handler: only the record
# factory sees all of them.
_kept_from_logs: dict[str, Secret] = {}


def _keep_from_logs(secret: Secret) -> None:
    if not _kept_from_logs:
        make = logging.getLogRecordFactory()
        logging.setLogRecordFactory(lambda *args, **kwargs: _hidden(make(*args, **kwargs)))
    _kept_from_logs[secret.value] = secret


def _hidden(record: logging.LogRecord) -> logging.LogRecord:
    """Returns a log record with all keys hidden in its message and traceback."""
    try:
        words = record.getMessage()
    except Exception:  # Logging itself reports a record that cannot be formatted.
        return record
    trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    shown, hidden = words, trace
    for secret in _kept_from_logs.values():
        shown, hidden = secret._without_key(shown), secret._without_key(hidden)
    if shown != words:
        record.msg, record.args = shown, ()
    if hidden != trace:
        record.exc_info, record.exc_text = None, hidden
    return record
