"""What all vendors' calls have in common: the key, the size of a request, and what an error means.

The errors matter for the money: a vendor bills no answer that it refused to give, but nobody can
say what it does with one that was lost on the way.
"""

import datetime
import email.utils
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.teachers.protocol import Request, TeacherError, Trouble
from bridge_jax.teachers.structured import SCHEMA_BYTES

# What a chat template adds to the words, generously: roles and separators.
_TOKENS_PER_MESSAGE = 16
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


class Secret:
    """A key, which no message, log or file may hold.

    Args:
      variables: of the environment; the first that is set is taken.
      needed: without one, whether that is an error.

    Raises:
      UserError: none is set, or it cannot be sent. (Libraries would put it into their errors, in
        spellings that `hide` does not know.)
    """

    def __init__(self, variables: Sequence[str], needed: bool, what_for: str):
        self.variable = next((n for n in variables if os.environ.get(n, "").strip()), variables[0])
        found = os.environ.get(self.variable, "")
        self.value = found if found.strip() else ""
        if not all("!" <= letter <= "~" for letter in self.value):
            raise UserError(
                f"{what_for}: the key in {self.variable} has a blank, a line break or a letter "
                "that no key has; set it again, with nothing around it"
            )
        if needed and not self.value:
            raise UserError(
                f"{what_for} needs a key: set the environment variable {' or '.join(variables)} "
                f"(export {variables[0]}=...), never a config or a flag"
            )

    def __repr__(self) -> str:
        return f"Secret({self.variable})"

    def hide(self, text: str) -> str:
        """Returns `text` without the key."""
        return text.replace(self.value, f"[{self.variable}]") if self.value else text


def most_input_tokens(request: Request) -> int:
    """Returns a bound of the input's tokens.

    A token of the vendors' byte-level vocabularies stands for at least one byte of UTF-8, so it is
    about four times too many for English. The vendor's own counter would be a further call.
    """
    content = sum(len(m.content.encode()) + _TOKENS_PER_MESSAGE for m in request.messages)
    return content + _TOKENS_PER_MESSAGE + SCHEMA_BYTES * request.structured


def refused(
    teacher: str, secret: Secret, status: int, headers: Mapping[str, str], body: Any
) -> TeacherError:
    """Returns what an HTTP status above 399 means; of the vendor's own none is billed.

    Args:
      teacher: its name, for the message.
      secret: what the message must not hold.
      status, headers, body: of the response; the body as parsed JSON, if it is such.
    """
    error = body.get("error", body) if isinstance(body, Mapping) else {}
    error = error if isinstance(error, Mapping) else {"message": error}
    said = secret.hide(str(error.get("message") or body or "no reason given"))[:500]
    reasons = {str(error.get("code")), str(error.get("status"))}
    reasons |= {detail.get("reason", "") for detail in _details(error)}
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
    message = f"{teacher} answers HTTP {status}: {said}{way_out}"
    return TeacherError(message, trouble, _retry_after(headers, error))


def broken(teacher: str, secret: Secret, error: BaseException) -> TeacherError | None:
    """Returns what an error of the connection means; None if it is another kind of error."""
    chain = list(_causes(error))
    libraries = {type(e).__module__.split(".")[0] for e in chain}
    names = {cls.__name__ for e in chain for cls in type(e).__mro__}
    last = chain[-1]
    said = secret.hide(" ".join(f"{type(last).__name__}: {last}".split()))[:300]
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


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns Google's `details` of an error."""
    details = error.get("details")
    details = details if isinstance(details, list) else []
    return [detail for detail in details if isinstance(detail, Mapping)]


def _retry_after(headers: Mapping[str, str], error: Mapping[str, Any]) -> float:
    """Returns the seconds that the vendor asks to wait: Retry-After, or Google's RetryInfo."""
    for detail in _details(error):
        if (delay := str(detail.get("retryDelay", ""))).endswith("s"):
            return _seconds(delay[:-1])
    text = headers.get("retry-after") or headers.get("Retry-After") or ""
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return _seconds(text)
    return max(0.0, (date - datetime.datetime.now(date.tzinfo)).total_seconds())


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and those inside it, as the libraries wrap them."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        error = waiting.pop(0)
        if not isinstance(error, BaseException) or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__cause__, error.__context__, getattr(error, "reason", None), *error.args]
