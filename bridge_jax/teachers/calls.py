"""What all vendors' calls have in common: the size of a request, and what an error means.

The errors matter for the money: a vendor bills no answer that it refused to give, but nobody can
say what it does with one that was lost on the way.
"""

import contextlib
import datetime
import email.utils
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from bridge_jax.config import address
from bridge_jax.errors import UserError
from bridge_jax.teachers.protocol import Request, TeacherError, Trouble
from bridge_jax.teachers.secret import Secret, causes
from bridge_jax.teachers.structured import SCHEMA_BYTES
from bridge_jax.teachers.wire import items, mapping

# HTTP status, headers and body (as parsed JSON, if it is such) of a call that the vendor refused.
Refusal = tuple[int, Mapping[str, str], Any]

# What a chat template adds to the words, generously: roles and separators.
_TOKENS_PER_MESSAGE = 16
# What an error's code, status or type (in lower case) is as an HTTP status; others are 400.
_STATUS_OF = {
    **dict.fromkeys(("invalid_api_key", "authentication_error", "unauthenticated"), 401),
    **dict.fromkeys(("permission_denied", "permission_error", "permission_denied_error"), 403),
    **dict.fromkeys(("insufficient_quota", "billing_error", "billing_not_active"), 402),
    **dict.fromkeys(("model_not_found", "not_found", "not_found_error"), 404),
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "resource_exhausted"), 429),
    **dict.fromkeys(("too_many_requests", "tokens", "requests"), 429),
    **dict.fromkeys(("server_error", "api_error", "internal", "internal_error"), 500),
    **dict.fromkeys(("internal_server_error", "internalservererror"), 500),
    **dict.fromkeys(("overloaded_error", "overloaded", "unavailable", "service_unavailable"), 503),
    **dict.fromkeys(("deadline_exceeded", "timeout"), 504),
}
# What reading the answer raises where a library reads it, and it is not what it should be.
UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError)
_log = logging.getLogger(__name__)

# Of a proxy before the model, which may have answered and billed (520 to 524 are Cloudflare's).
_OF_A_PROXY = {408, 502, 504, *range(520, 525)}
# Exceptions raised before a byte of a request is sent: of aiohttp, of httpx, of urllib3 and
# requests, and of what they use. Those derived from them are such too.
_NEVER_SENT_BY_AIOHTTP = {
    *("ClientConnectorError", "ConnectionTimeoutError", "ClientHttpProxyError"),
    *("ServerFingerprintMismatch", "InvalidURL", "NonHttpUrlClientError"),
}
_NEVER_SENT = {
    *("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol"),
    *("LocalProtocolError", "InvalidHeader"),
    *("NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "ConnectionRefusedError"),
}
_NETWORK = {
    *("aiohttp", "httpx", "httpx2", "httpcore", "httpcore2", "anyio", "requests", "urllib3", "ssl"),
}


def most_input_tokens(request: Request) -> int:
    """Returns a bound of the input's tokens.

    A token of the vendors' byte-level vocabularies stands for at least one byte of UTF-8, so it is
    about four times too many for English. The vendor's own counter would be a further call.
    """
    content = sum(len(m.content.encode()) + _TOKENS_PER_MESSAGE for m in request.messages)
    return content + _TOKENS_PER_MESSAGE + SCHEMA_BYTES * request.structured


def may_send_key(teacher: str, secret: Secret, url: str, allow_http: bool) -> None:
    """Raises a `UserError` for a key that others could read on its way.

    Args:
      teacher: its name, for the message.
      secret: what would be sent. Without a key, any address will do.
      url: where to; empty is the vendor's own address.
      allow_http: whether the user has said that this is meant (`teacher.allow_http`).
    """
    address.check(url, f"the address of teacher {teacher}")
    if not (url and secret.value) or address.is_private(url):
        return
    host = urlsplit(url).hostname
    if not allow_http:
        raise UserError(
            f"teacher {teacher}: the key in {secret.variable} would go to {host} over plain http, "
            f"where everybody on the way can read it; use https, unset {secret.variable} if the "
            "server needs no key, or confirm it with teacher.allow_http=true"
        )
    _log.warning("teacher %s: %s goes to %s over plain http", teacher, secret.variable, host)


@contextlib.contextmanager
def boundary(
    teacher: str,
    secret: Secret,
    refusal: Callable[[Exception], Refusal | None],
    unreadable: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Puts whatever is raised inside into our words, without the key.

    Args:
      teacher: its name, for messages.
      secret: what nothing that leaves may hold.
      refusal: what the vendor said in an error of its SDK; None for errors of another kind.
      unreadable: what the SDK raises where it cannot read an answer.
    """
    with secret.guard():
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if found := refusal(error):
                raise refused(teacher, secret, *found) from None
            if ours := broken(teacher, secret, error):
                raise ours from None
            if isinstance(error, unreadable):
                said = f"{type(error).__name__}: {error}"
                raise unusable(teacher, secret, said) from None
            raise error from None


def refused(
    teacher: str, secret: Secret, status: int, headers: Mapping[str, str], body: Any
) -> TeacherError:
    """Returns what an HTTP status other than 200 means; of the vendor's own none is billed.

    Args:
      teacher: its name, for the message.
      secret: what the message must not hold.
      status, headers, body: of the response; the body as parsed JSON, if it is such.
    """
    if 200 <= status < 300:
        return unusable(teacher, secret, f"HTTP {status}: {body}")
    if 300 <= status < 400:
        return _redirected(teacher, secret, status, headers)
    return _refused(teacher, secret, status, headers, body, f"HTTP {status}")


def no_reply(teacher: str, secret: Secret, answer: Mapping[str, Any]) -> TeacherError:
    """Returns what an answer with HTTP status 200 means that holds neither a reply nor usage.

    An error in it is taken by its own code. If there is none, nobody knows what it costs.
    """
    choice = mapping(next(iter(items(answer.get("choices"))), None))
    is_error = "error" in (answer.get("object"), answer.get("type"))
    error = answer.get("error") or answer.get("errors") or choice.get("error")
    error = error or answer.get("detail") or (answer if is_error else None)
    if not error:
        return unusable(teacher, secret, str(answer))
    status = _status_in(error)
    where = f"HTTP 200 with error {status}"
    return _refused(teacher, secret, status, {}, {"error": error}, where)


def unusable(teacher: str, secret: Secret, answer: str) -> TeacherError:
    """Returns the error for an answer that is none; whether it is billed is unknown."""
    said = " ".join(secret.hide(answer).split())[:200]
    return lost(teacher, f"what it answered is no reply of a model: {said!r}")


def _refused(
    teacher: str,
    secret: Secret,
    status: int,
    headers: Mapping[str, str],
    body: Any,
    where: str,
) -> TeacherError:
    error = _error_in(body)
    said = secret.hide(str(error.get("message") or body or "no reason given"))[:500]
    reasons = {str(error.get("code")), str(error.get("status"))}
    reasons |= {str(detail.get("reason", "")) for detail in _details(error)}
    trouble: Trouble = "rejected"
    way_out = ""
    if status in (401, 403) or "API_KEY_INVALID" in reasons:
        trouble, way_out = "fatal", f"; give {secret.variable} a key that it accepts"
    elif status == 402 or "insufficient_quota" in reasons:
        trouble, way_out = "fatal", "; add to the account's credit"
    elif status == 404:
        trouble, way_out = "fatal", "; mend teacher.model or teacher.base_url"
    elif status in _OF_A_PROXY:
        trouble, way_out = "unknown", "; whether it is billed is unknown"
    elif status in (409, 425, 429) or status >= 500:
        trouble = "transient"
    message = f"{teacher} answers {where}: {said}{way_out}"
    return TeacherError(message, trouble, _retry_after(headers, error))


def _redirected(
    teacher: str, secret: Secret, status: int, headers: Mapping[str, str]
) -> TeacherError:
    """Returns the error for a redirect, which is not followed: the key would go along."""
    location = headers.get("location") or headers.get("Location") or ""
    try:
        host = urlsplit(location).hostname or ""
    except ValueError:
        host = ""
    to = f"host {secret.hide(host)[:100]}" if host else "another address of the same host"
    return TeacherError(
        f"{teacher} answers HTTP {status} and sends to {to}; that is not followed, since the key "
        "would go there too: set teacher.base_url to the address that is meant"
    )


def broken(teacher: str, secret: Secret, error: BaseException) -> TeacherError | None:
    """Returns what an error of the connection means; None if it is another kind of error."""
    chain = list(causes(error))
    libraries = {type(e).__module__.split(".")[0] for e in chain}
    names = {cls.__name__ for e in chain for cls in type(e).__mro__}
    last = chain[-1]
    said = " ".join(secret.hide(f"{type(last).__name__}: {last}").split())[:300]
    # What wraps aiohttp calls an answer that was lost a ConnectTimeout of httpx.
    never_sent = _NEVER_SENT_BY_AIOHTTP if "aiohttp" in libraries else _NEVER_SENT
    if never_sent & names:
        return TeacherError(f"{teacher} cannot be reached: {said}", "transient")
    network = libraries & _NETWORK
    if not network and not isinstance(error, ConnectionError | TimeoutError):
        return None
    return lost(teacher, f"no answer arrived ({said})")


def lost(teacher: str, what: str) -> TeacherError:
    """Returns the error for a request that was sent and has no usable reply."""
    return TeacherError(f"{teacher}: {what}; whether it is billed is unknown", "unknown")


def _error_in(body: Any) -> Mapping[str, Any]:
    """Returns the error in a body of any shape, with its words as `message`."""
    if isinstance(body, list) and len(body) == 1:  # Google's, where it streams.
        body = body[0]
    if not isinstance(body, Mapping):
        return {"message": body}
    error = body.get("error", body)
    return error if isinstance(error, Mapping) else {"message": error}


def _status_in(error: Any) -> int:
    """Returns the HTTP status that an error stands for by its own code; 400 if it has none."""
    found = _error_in(items(error)[0])
    for name in ("code", "status", "status_code", "type"):
        code = str(found.get(name)).strip().lower()
        if code.isdecimal() and len(code) == 3 and 400 <= int(code) < 600:
            return int(code)
        if code in _STATUS_OF:
            return _STATUS_OF[code]
    return 400


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns Google's `details` of an error."""
    return [detail for detail in items(error.get("details")) if isinstance(detail, Mapping)]


def _retry_after(headers: Mapping[str, str], error: Mapping[str, Any]) -> float:
    """Returns the seconds that the vendor asks to wait: Retry-After, or Google's RetryInfo."""
    for detail in _details(error):
        if (delay := str(detail.get("retryDelay", ""))).endswith("s"):
            return _seconds(delay[:-1])
    text = str(headers.get("retry-after") or headers.get("Retry-After") or "")
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, LookupError, OverflowError):
        return _seconds(text)
    if date.tzinfo is None:  # "-0000": UTC, of a machine that does not say where it stands.
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


def _seconds(text: str) -> float:
    """Returns a number of seconds; 0 for what is none, for infinity and for less than 0."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
