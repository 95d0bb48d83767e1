"""Reads the JSON of servers, and classifies the errors of HTTP calls.

The class of an error decides whether the call counts as billed. A vendor does not bill an answer
that it refused to give, but it may bill a call that was lost on the way.
"""

import contextlib
import dataclasses
import datetime
import email.utils
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.teachers.protocol import ErrorKind, TeacherError
from bridge_jax.teachers.secret import Secret, causes

# JSON of servers. Reading takes linear time, and raises only `Unreadable`.

# No vendor nests an answer deeper. Printing deeper JSON would exhaust the stack.
_DEEPEST = 100
# An upper bound on token counts: ten times the longest contexts.
MOST_TOKENS = 100_000_000
# A string (up to the end of the text if it is never closed), or a bracket outside of strings.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class Unreadable(ValueError):  # noqa: N818
    """The server's text is not JSON that we can read."""


def parsed(body: bytes | str) -> Any:
    """Returns the JSON value in `body`; bytes that are not UTF-8 become U+FFFD.

    Raises:
      Unreadable: there is no JSON value, or it is nested deeper than 100 levels.
    """
    text = decoded(body).removeprefix("\ufeff")
    if text.count("{") + text.count("[") > _DEEPEST and _depth(text) > _DEEPEST:
        raise Unreadable(f"it is nested deeper than {_DEEPEST} levels")
    try:
        # Integers longer than any count become floats, and very long ones infinity.
        return json.loads(text, parse_int=lambda d: int(d) if len(d) <= 20 else float(d))
    except ValueError as error:
        raise Unreadable(f"it is not JSON ({error})") from None


def decoded(body: bytes | str) -> str:
    """Returns a body as text; bytes that are not UTF-8 become U+FFFD."""
    return body if isinstance(body, str) else body.decode("utf-8", "replace")


def json_or_text(body: bytes | str) -> Any:
    """Returns the JSON value in `body`, or its text if it is not JSON."""
    try:
        return parsed(body)
    except Unreadable:
        return decoded(body)


def objects(body: bytes | str) -> list[Mapping[str, Any]]:
    """Returns the JSON objects of a response: one, those of a list, or those of an event stream.

    Some servers stream (`data: {...}`) without being asked to.

    Raises:
      Unreadable: there are no objects.
    """
    text = decoded(body)
    if text.lstrip("\ufeff\r\n\t ").startswith(("data:", "event:", "id:", "retry:", ":")):
        lines = [line.strip() for line in text.split("\n")]
        data = [line.removeprefix("data:") for line in lines if line.startswith("data:")]
        values = [parsed(line) for line in data if line.strip() not in ("", "[DONE]")]
    else:
        values = items(parsed(text))
    found = [value for value in values if isinstance(value, Mapping)]
    if not found:
        raise Unreadable("it contains no JSON object")
    return found


def mapping(value: Any) -> Mapping[str, Any]:
    """Returns `value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """Returns a list as it is, no items for None, and any other value as the only item."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def tokens(value: Any) -> int | None:
    """Returns a token count; None unless it is an integer from 0 to `MOST_TOKENS`."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST_TOKENS else None


def _depth(text: str) -> int:
    """Returns the deepest nesting of brackets outside of strings."""
    step = {"[": 1, "{": 1, "]": -1, "}": -1}
    depths = itertools.accumulate(step.get(found[0], 0) for found in _BRACKETS.finditer(text))
    return max(depths, default=0)


# Errors.

# HTTP status, headers and body (as parsed JSON, if it is JSON) of a call that the vendor refused.
Refusal = tuple[int, Mapping[str, str], Any]

# The HTTP status for an error's code, status or type (in lower case); all others stand for 400.
_STATUS_OF = {
    name: status
    for status, names in {
        401: "invalid_api_key authentication_error unauthenticated",
        402: "insufficient_quota billing_error billing_not_active",
        403: "permission_denied permission_error permission_denied_error",
        404: "model_not_found not_found not_found_error",
        429: "rate_limit_exceeded rate_limit_error resource_exhausted too_many_requests tokens"
        " requests",
        500: "server_error api_error internal internal_error internal_server_error"
        " internalservererror",
        503: "overloaded_error overloaded unavailable service_unavailable",
        504: "deadline_exceeded timeout",
    }.items()
    for name in names.split()
}
# Statuses of a proxy in front of the model, which may have answered and billed (520 to 524 are
# Cloudflare's).
_OF_A_PROXY = {408, 502, 504, *range(520, 525)}
# Exceptions that libraries such as an SDK raise on an answer of an unexpected form.
UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError)
# Exceptions raised before a byte of a request is sent, by aiohttp, httpx, urllib3, requests and the
# libraries under them. Subclasses count too.
_NEVER_SENT_BY_AIOHTTP = re.compile(
    "ClientConnectorError|ConnectionTimeoutError|ClientHttpProxyError|ServerFingerprintMismatch"
    "|InvalidURL|NonHttpUrlClientError"
)
_NEVER_SENT = re.compile(
    "ConnectError|ConnectTimeout|PoolTimeout|UnsupportedProtocol|LocalProtocolError|InvalidHeader"
    "|NewConnectionError|ConnectTimeoutError|NameResolutionError|ConnectionRefusedError"
)
_NETWORK = re.compile("aiohttp|httpx2?|httpcore2?|anyio|requests|urllib3|ssl")


@dataclasses.dataclass(frozen=True)
class HttpErrors:
    """Turns the errors of a teacher's calls into `TeacherError`s that do not contain its key.

    Attributes:
      teacher: the teacher's name, for messages.
      secret: the teacher's key, which must not appear in any message.
    """

    teacher: str
    secret: Secret

    @contextlib.contextmanager
    def boundary(
        self,
        refusal: Callable[[Exception], Refusal | None],
        unreadable: tuple[type[Exception], ...] = (),
    ) -> Iterator[None]:
        """Turns errors of calls in the block into `TeacherError`s; hides the key in all errors.

        Args:
          refusal: returns the vendor's refusal in an error of its SDK; None for other errors.
          unreadable: errors that the SDK raises if it cannot read an answer.
        """
        with self.secret.redact_errors():
            try:
                yield
            except UserError:
                raise
            except Exception as error:
                if found := refusal(error):
                    raise self.refused(*found) from None
                if ours := self.broken(error):
                    raise ours from None
                if isinstance(error, unreadable):
                    raise self.unusable(f"{type(error).__name__}: {error}") from None
                raise error from None

    def objects(self, body: bytes | str) -> list[Mapping[str, Any]]:
        """Returns the JSON objects of a response with HTTP status 200.

        Raises:
          TeacherError: there are none, so whether the call is billed is unknown.
        """
        try:
            return objects(body)
        except Unreadable as error:
            raise self.unusable(f"{decoded(body[:500])} ({error})") from None

    def reply(self, found: TeacherReply | None, answer: Mapping[str, Any]) -> TeacherReply:
        """Returns the reply found in an answer, without the key.

        Raises:
          TeacherError: `found` is None: the answer has no reply, and no usage that would be billed.
        """
        if found is None:
            raise self.no_reply(answer)
        return self.secret.reply(found)

    def refused(self, status: int, headers: Mapping[str, str], body: Any) -> TeacherError:
        """Returns the error for an HTTP status other than 200; the vendor's own are not billed.

        Args:
          status, headers, body: those of the response; the body is parsed if it is JSON.
        """
        if 200 <= status < 300:
            return self.unusable(f"HTTP {status}: {body}")
        if 300 <= status < 400:
            return self._redirected(status, headers)
        return self._refused(status, headers, body, f"HTTP {status}")

    def no_reply(self, answer: Mapping[str, Any]) -> TeacherError:
        """Returns the error for an answer with HTTP status 200 that has neither reply nor usage.

        An error inside the answer is classified by its own code. Without one, the cost is unknown.
        """
        choice = mapping(next(iter(items(answer.get("choices"))), None))
        is_error = "error" in (answer.get("object"), answer.get("type"))
        error = answer.get("error") or answer.get("errors") or choice.get("error")
        error = error or answer.get("detail") or (answer if is_error else None)
        if not error:
            return self.unusable(str(answer))
        status = _status_in(error)
        return self._refused(status, {}, {"error": error}, f"HTTP 200 with error {status}")

    def unusable(self, answer: str) -> TeacherError:
        """Returns the error for an unusable answer; whether it is billed is unknown."""
        said = " ".join(self.secret.redact(answer).split())[:200]
        return self._lost(f"the response is not a model reply: {said!r}")

    def broken(self, error: BaseException) -> TeacherError | None:
        """Returns the error for a connection's exception; None for other exceptions."""
        chain = list(causes(error))
        libraries = {type(e).__module__.split(".")[0] for e in chain}
        names = {cls.__name__ for e in chain for cls in type(e).__mro__}
        last = chain[-1]
        said = " ".join(self.secret.redact(f"{type(last).__name__}: {last}").split())[:300]
        # The layer around aiohttp reports a lost answer as httpx's ConnectTimeout.
        never_sent = _NEVER_SENT_BY_AIOHTTP if "aiohttp" in libraries else _NEVER_SENT
        if any(map(never_sent.fullmatch, names)):
            return TeacherError(f"{self.teacher} cannot be reached: {said}", "transient")
        is_network = any(map(_NETWORK.fullmatch, libraries))
        if not is_network and not isinstance(error, ConnectionError | TimeoutError):
            return None
        return self._lost(f"no answer arrived ({said})")

    def _lost(self, what: str) -> TeacherError:
        """Returns the error for a request that was sent but has no usable reply."""
        return TeacherError(f"{self.teacher}: {what}; whether it is billed is unknown", "unknown")

    def _refused(
        self, status: int, headers: Mapping[str, str], body: Any, where: str
    ) -> TeacherError:
        error = _error_in(body)
        said = self.secret.redact(str(error.get("message") or body or "no reason given"))[:500]
        reasons = {str(error.get("code")), str(error.get("status"))}
        reasons |= {str(detail.get("reason", "")) for detail in _details(error)}
        trouble: ErrorKind = "rejected"
        hint = ""
        if status in (401, 403) or "API_KEY_INVALID" in reasons:
            trouble, hint = "fatal", f"; set {self.secret.variable} to a key that it accepts"
        elif status == 402 or "insufficient_quota" in reasons:
            trouble, hint = "fatal", "; add credit to the account"
        elif status == 404:
            trouble, hint = "fatal", "; fix teacher.model or teacher.base_url"
        elif status in _OF_A_PROXY:
            trouble, hint = "unknown", "; whether it is billed is unknown"
        elif status in (409, 425, 429) or status >= 500:
            trouble = "transient"
        message = f"{self.teacher} answers {where}: {said}{hint}"
        return TeacherError(message, trouble, _retry_after(headers, error))

    def _redirected(self, status: int, headers: Mapping[str, str]) -> TeacherError:
        """Returns the error for a redirect, which is not followed: the key would be sent along."""
        location = headers.get("location") or headers.get("Location") or ""
        try:
            host = urlsplit(location).hostname or ""
        except ValueError:
            host = ""
        to = (
            f"host {self.secret.redact(host)[:100]}" if host else "another address of the same host"
        )
        return TeacherError(
            f"{self.teacher} answers HTTP {status} and redirects to {to}; not followed, because "
            "the key would be sent there too: set teacher.base_url to the intended address"
        )


def _error_in(body: Any) -> Mapping[str, Any]:
    """Returns the error object in a body of any shape; another value becomes its `message`."""
    if isinstance(body, list) and len(body) == 1:  # A Google error of a streamed call.
        body = body[0]
    error = body.get("error", body) if isinstance(body, Mapping) else body
    return error if isinstance(error, Mapping) else {"message": error}


def _status_in(error: Any) -> int:
    """Returns the HTTP status that an error's own code stands for; 400 if it has none."""
    found = _error_in(items(error)[0])
    for name in ("code", "status", "status_code", "type"):
        code = str(found.get(name)).strip().lower()
        if code.isdecimal() and len(code) == 3 and 400 <= int(code) < 600:
            return int(code)
        if code in _STATUS_OF:
            return _STATUS_OF[code]
    return 400


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the `details` of a Google error."""
    return [detail for detail in items(error.get("details")) if isinstance(detail, Mapping)]


def _retry_after(headers: Mapping[str, str], error: Mapping[str, Any]) -> float:
    """Returns the seconds that the vendor asks us to wait: Google's RetryInfo, or Retry-After."""
    for detail in _details(error):
        if (delay := str(detail.get("retryDelay", ""))).endswith("s"):
            return _seconds(delay[:-1])
    text = str(headers.get("retry-after") or headers.get("Retry-After") or "")
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, LookupError, OverflowError):
        return _seconds(text)
    if date.tzinfo is None:  # "-0000": UTC, with no statement about the local time zone.
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


def _seconds(text: str) -> float:
    """Parses a number of seconds; any other text, infinity and negative numbers give 0."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
