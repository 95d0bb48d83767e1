"""Code shared by all API teachers: server, key, errors, and results of batch jobs."""

import abc
import contextlib
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from bridge_jax.config import TeacherConfig, address
from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import TeacherReply, TeacherRequest
from bridge_jax.teachers.http import UNREADABLE, HttpErrors, Refusal
from bridge_jax.teachers.protocol import JobRefused, TeacherError
from bridge_jax.teachers.replies import SCHEMA_BYTES
from bridge_jax.teachers.secret import Secret

_log = logging.getLogger(__name__)

# The vendor's own server, and the environment variable that points its SDK to another server.
_SERVERS = {
    "openai": ("https://api.openai.com/v1", "OPENAI_BASE_URL"),
    "gemini": ("https://generativelanguage.googleapis.com", "GOOGLE_GEMINI_BASE_URL"),
}
_KEYS = {"openai": ["OPENAI_API_KEY"], "gemini": ["GEMINI_API_KEY", "GOOGLE_API_KEY"]}
_PORTS = {"http": 80, "https": 443}


def server_of(config: TeacherConfig) -> str:
    """Returns the server that a teacher asks; "" is the vendor's own server, or none at all.

    Spellings are normalized: `HTTPS://API.OpenAI.com:443/v1/` is OpenAI's own server. User name,
    password and query are left out, because they may be secret.
    """
    if config.kind not in _SERVERS:
        return ""
    own, variable = _SERVERS[config.kind]
    url = config.base_url.strip()
    if not url and config.backend == "google-genai":  # Gemini's other SDK reads no variable.
        url = os.environ.get(variable, "").strip()
    parts = urlsplit(url)
    try:
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # An invalid port: the SDK will report it.
        host, port = "", None
    if not host:
        return url.rstrip("/")
    host = f"[{host}]" if ":" in host else host
    place = host if port in (None, _PORTS.get(parts.scheme)) else f"{host}:{port}"
    found = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
    return "" if found == own else found


def vendor_of(config: TeacherConfig) -> str:
    """Returns the owner of a teacher's batch jobs; no other server is asked about them."""
    server = server_of(config)
    return f"{config.kind} at {server}" if server else config.kind


def may_send_key(teacher: str, secret: Secret, url: str, allow_http: bool) -> None:
    """Raises a `UserError` if the key would be sent unencrypted to another machine.

    Args:
      teacher: the teacher's name, for the message.
      secret: the key; if it is empty, every address is allowed.
      url: the address; empty is the vendor's own.
      allow_http: whether the user has allowed this (`teacher.allow_http`); it is logged then.
    """
    address.check(url, f"the address of teacher {teacher}")
    if not (url and secret.value) or address.is_private(url):
        return
    host = urlsplit(url).hostname
    if not allow_http:
        raise UserError(
            f"teacher {teacher}: the key in {secret.variable} would go to {host} over plain http, "
            f"where anyone on the network can read it; use https, unset {secret.variable} if the "
            "server needs no key, or confirm it with teacher.allow_http=true"
        )
    _log.warning("teacher %s: %s is sent to %s over plain http", teacher, secret.variable, host)


# An upper bound on the tokens that a chat template adds to a message: roles and separators.
_TOKENS_PER_MESSAGE = 16


def worst_case(request: TeacherRequest) -> tuple[int, int]:
    """Returns upper bounds on the input and output tokens that a request can cost.

    A token of the vendors' byte-level vocabularies stands for at least one byte of UTF-8. For
    English, the input bound is about four times too high. The vendor's own counter would need
    another call.
    """
    content = sum(len(m.content.encode()) + _TOKENS_PER_MESSAGE for m in request.messages)
    inputs = content + _TOKENS_PER_MESSAGE + SCHEMA_BYTES * request.structured
    return inputs, request.max_output_tokens


class ApiTeacher(abc.ABC):
    """Base class of the teachers that are asked through an API.

    No key is read and nothing is opened before the first call. A vendor's class adds
    `client`, `ask` and `_refusal`, and for batch jobs the methods of `protocol.BatchTeacher`.

    Args:
      config: the teacher's config; requests name their own model.

    Attributes:
      name: the teacher's name, for messages.
      vendor: the owner of its batch jobs; no other server is asked about them.
    """

    client: Any

    def __init__(self, config: TeacherConfig):
        self.config = config
        self.name = f"{config.kind}/{config.model}"
        self.vendor = vendor_of(config)

    @functools.cached_property
    def secret(self) -> Secret:
        """The key; a server that speaks OpenAI's protocol may need none."""
        is_needed = self.config.kind != "openai" or not self.config.base_url
        return Secret(_KEYS[self.config.kind], is_needed, f"teacher {self.name}")

    @functools.cached_property
    def errors(self) -> HttpErrors:
        """Turns errors of calls into `TeacherError`s."""
        return HttpErrors(self.name, self.secret)

    def key(self) -> str:
        """Returns the key to send, "" for none.

        Raises:
          UserError: the key is missing, or would be sent unencrypted.
        """
        url = self.config.base_url or os.environ.get(_SERVERS[self.config.kind][1], "")
        may_send_key(self.name, self.secret, url, self.config.allow_http)
        return self.secret.value

    def check(self) -> None:
        """Raises a `UserError` if the teacher cannot be asked; sends nothing."""
        _ = self.client

    def estimate_input_tokens(self, request: TeacherRequest) -> int:
        """Returns an upper bound on the input tokens."""
        return worst_case(request)[0]

    async def aclose(self) -> None:
        """Closes the connections of this event loop; a later `ask` opens new ones."""
        if client := vars(self).pop("client", None):
            await client.close()

    def explained(self, *unreadable: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """Returns `HttpErrors.boundary` for the SDK's errors.

        Args:
          *unreadable: errors that the SDK raises in the block if it cannot read an answer.
        """
        return self.errors.boundary(self._refusal, unreadable)

    @abc.abstractmethod
    def _refusal(self, error: Any) -> Refusal | None:
        """Returns the vendor's refusal in an error of its SDK; None for other errors."""

    def job_refused(self, job_id: str, said: Any) -> JobRefused:
        """Returns the error for a batch job that the vendor refused, with its reason."""
        said = said or "it gave no reason"
        return JobRefused(self.secret.redact(f"{self.name} refused batch job {job_id}: {said}"))


def read_results(
    rows: Sequence[tuple[Any, Mapping[str, Any]]],
    requests: Mapping[str, TeacherRequest],
    read: Callable[[TeacherRequest, Mapping[str, Any]], TeacherReply],
    unfinished: str = "",
) -> dict[str, TeacherReply | TeacherError]:
    """Returns the results of a job that has ended, by the key of the request.

    A row that cannot be read may be billed, so its request gets no result. A row without a key may
    belong to any request that has no row, so `unfinished` then applies to none.

    Args:
      rows: key and content of each row; a faulty server may write any JSON value as the key.
      requests: the requests that wait for a result, by key.
      read: returns the reply in a row, or raises its `TeacherError`.
      unfinished: why requests without a row are not billed and may be asked again; "" if they may
        be billed.
    """
    found: dict[str, TeacherReply | TeacherError] = {}
    named = {key for key, _ in rows if isinstance(key, str)}
    for key, row in rows:
        request = requests.get(key) if isinstance(key, str) else None
        if request and (row.get("error") or row.get("response")):
            try:
                found[key] = read(request, row)
            except TeacherError as error:
                found[key] = error
            except UNREADABLE:
                continue
    if unfinished and all(isinstance(key, str) for key, _ in rows):
        for key in requests.keys() - named:
            found[key] = TeacherError(unfinished, "transient")
    return found
