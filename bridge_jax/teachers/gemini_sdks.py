"""The two SDKs of Gemini behind one face: `google-genai`, and the retired `google-generativeai`."""

import asyncio
import functools
import importlib
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Protocol

from bridge_jax.teachers import wire
from bridge_jax.teachers.calls import Refusal
from bridge_jax.teachers.protocol import Request
from bridge_jax.teachers.structured import SCHEMA


class Sdk(Protocol):
    """What makes the calls of one event loop."""

    async def generate(self, request: Request) -> bytes | str:
        """Returns what the server wrote with HTTP status 200, unread."""
        ...

    async def aclose(self) -> None:
        """Closes the connections; nothing is asked after that."""
        ...

    def refusal(self, error: Any) -> Refusal | None:
        """Returns what the vendor said in an error of the SDK; None if it is of another kind."""
        ...


class GoogleGenai:
    """The maintained SDK."""

    def __init__(self, key: str, base_url: str, timeout: float):
        import aiohttp
        from google import genai
        from google.genai import types

        self._aiohttp, self._sdk, self._types = aiohttp, genai, types
        self._key, self._base_url, self._timeout = key, base_url, timeout
        self._session: Any = None
        self.last_body = b""
        self._configs: dict[tuple, Any] = {}

    def client(self, session: Any = None) -> Any:
        """Returns a client of the SDK.

        Args:
          session: of aiohttp, for its asynchronous calls.
        """
        http = self._types.HttpOptions(
            base_url=self._base_url or None,
            timeout=round(1000 * self._timeout),
            retry_options=self._types.HttpRetryOptions(attempts=1),  # `annotate` retries.
            aiohttp_client=session,
            # A redirect would take the key, in a header of Google's own, to another host.
            async_client_args={"allow_redirects": False},
            client_args={"follow_redirects": False, "event_hooks": {"response": [self._keep]}},
        )
        return self._sdk.Client(vertexai=False, api_key=self._key, http_options=http)

    def _keep(self, response: Any) -> None:
        """Keeps the body of a blocking call, because the SDK rejects values that it does not know.

        (So a job with one odd answer in it could never be collected.)
        """
        self.last_body = response.read()
        if response.status_code != 200:
            raise _Arrived(response.status_code, response.headers, self.last_body)

    async def generate(self, request: Request) -> bytes | str:
        """Returns the response's text; parsing it here takes less time than the SDK's models."""
        system, contents = contents_of(request)
        response = await self._asking.aio.models.generate_content(
            model=request.model, contents=contents, config=self._built(request, system)
        )
        return response.sdk_http_response.body or ""

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    @functools.cached_property
    def _asking(self) -> Any:
        """The client of the event loop that first asks.

        Over aiohttp, which takes two thirds of the processor time of httpx.
        """
        connector = _connector(self._aiohttp, min(30.0, self._timeout / 2))
        self._session = self._aiohttp.ClientSession(
            connector=connector, trust_env=True, response_class=_response_class(self._aiohttp)
        )
        return self.client(self._session)

    def _built(self, request: Request, system: str) -> Any:
        """Returns the SDK's GenerateContentConfig; building it for each request takes time."""
        key = (system, request.max_output_tokens, request.temperature, request.structured)
        if key not in self._configs:
            self._configs[key] = self._types.GenerateContentConfig(**self.config(request, system))
        return self._configs[key]

    def config(self, request: Request, system: str) -> dict[str, Any]:
        """Returns the SDK's GenerateContentConfig as a dict."""
        config: dict[str, Any] = {
            "max_output_tokens": request.max_output_tokens,
            "automatic_function_calling": {"disable": True},
            "should_return_http_response": True,
        }
        if system:
            config["system_instruction"] = system
        if request.temperature is not None:
            config["temperature"] = request.temperature
        if request.structured:
            config |= {"response_mime_type": "application/json", "response_json_schema": SCHEMA}
        return config

    def refusal(self, error: Any) -> Refusal | None:
        """Returns the status, headers and body of a response that the vendor refused."""
        if isinstance(error, _Arrived):
            return error.status, error.headers, _json_or_text(error.body)
        if not isinstance(error, self._sdk.errors.APIError):
            return None
        return error.code, getattr(error.response, "headers", {}), error.details


class GoogleGenerativeai:
    """The retired SDK, over REST, where it says what became of a call as clearly as the other.

    It has one key and one address for the whole process.
    """

    def __init__(self, key: str, base_url: str, timeout: float):
        with warnings.catch_warnings():
            # It announces its end; those who ask for it know.
            warnings.simplefilter("ignore", FutureWarning)
            sdk: Any = importlib.import_module("google.generativeai")

        # It keeps 10 connections and warns of every further one that it closes.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        options = {"api_endpoint": base_url} if base_url else None
        sdk.configure(api_key=key, transport="rest", client_options=options)
        client = importlib.import_module("google.generativeai.client")
        # (`requests` calls it before it would follow a redirect, key and all.)
        hooks = client.get_default_generative_client().transport._session.hooks
        hooks["response"].append(_take_out)
        self._sdk, self._timeout = sdk, timeout
        # Its calls block. It makes a thread where none is idle: as many as are asked at once.
        self._threads = ThreadPoolExecutor(1000, "google-generativeai")

    async def generate(self, request: Request) -> bytes | str:
        """Returns the response's body."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._generate, request)

    async def aclose(self) -> None:
        """Ends the threads."""
        self._threads.shutdown()

    def _generate(self, request: Request) -> bytes:
        system, contents = contents_of(request)
        config: dict[str, Any] = {"max_output_tokens": request.max_output_tokens}
        if request.temperature is not None:
            config["temperature"] = request.temperature
        if request.structured:
            # Its schemas are an older subset.
            schema = {k: v for k, v in SCHEMA.items() if k != "additionalProperties"}
            config |= {"response_mime_type": "application/json", "response_schema": schema}
        model = self._sdk.GenerativeModel(request.model, system_instruction=system or None)
        options = {"timeout": self._timeout, "retry": None}
        try:
            model.generate_content(contents, generation_config=config, request_options=options)
        except _Arrived as response:
            if response.status != 200:
                raise
            return response.body
        raise RuntimeError("google-generativeai answers without a response")

    def refusal(self, error: Any) -> Refusal | None:
        """Returns the status, headers and body of a response that the vendor refused."""
        if not isinstance(error, _Arrived):
            return None
        return error.status, error.headers, _json_or_text(error.body)


class _Arrived(Exception):  # noqa: N818
    """Carries a response out of an SDK, which would follow, or fail to read, some."""

    def __init__(self, status: int, headers: Any, body: bytes):
        super().__init__(f"HTTP {status}")
        self.status, self.headers, self.body = status, headers, body


def _take_out(response: Any, *_: Any, **__: Any) -> NoReturn:
    """Takes a response of `requests` out of the SDK, whatever it is."""
    raise _Arrived(response.status_code, response.headers, response.content)


def contents_of(request: Request) -> tuple[str, list[dict[str, Any]]]:
    """Returns the system instruction and the turns in Gemini's form."""
    system = "\n\n".join(m.content for m in request.messages if m.role == "system")
    roles = {"user": "user", "assistant": "model"}
    turns = [
        {"role": roles[m.role], "parts": [{"text": m.content}]}
        for m in request.messages
        if m.role != "system"
    ]
    return system, turns


def _connector(aiohttp: Any, seconds: float) -> Any:
    """Returns aiohttp's connections, without a bound, that are made in `seconds` or not at all.

    The SDK's own would wait for as long as for the answer, and nobody could tell whether anything
    was sent.
    """
    limits = aiohttp.ClientTimeout(sock_connect=seconds)

    class Connector(aiohttp.TCPConnector):
        async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
            return await super().connect(req, traces, limits)

    return Connector(limit=0)


def _response_class(aiohttp: Any) -> Any:
    """Returns aiohttp's response with bodies that can always be read, as UTF-8 and as JSON.

    The errors of the SDK itself would give neither the status nor the usage.
    """

    class Response(aiohttp.ClientResponse):
        async def text(self, *_: Any, **__: Any) -> str:
            return (await self.read()).decode("utf-8", "replace")

        async def json(self, **_: Any) -> Any:
            return _json_or_text(await self.read())

    return Response


def _json_or_text(body: bytes) -> Any:
    try:
        return wire.parsed(body)
    except wire.Unreadable:
        return body.decode("utf-8", "replace")
