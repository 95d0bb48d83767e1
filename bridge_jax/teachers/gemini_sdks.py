"""The two SDKs of Gemini behind one face: `google-genai`, and the retired `google-generativeai`."""

import asyncio
import functools
import importlib
import json
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from bridge_jax.teachers.protocol import Request
from bridge_jax.teachers.structured import SCHEMA

Refusal = tuple[int, Any, Any]  # HTTP status (0: the error is of another kind), headers, body


class Sdk(Protocol):
    """What makes the calls of one event loop."""

    async def generate(self, request: Request) -> str | dict[str, Any]:
        """Returns a GenerateContentResponse as JSON, or its text."""
        ...

    async def aclose(self) -> None:
        """Closes the connections; nothing is asked after that."""
        ...

    def refusal(self, error: Any) -> Refusal:
        """Returns what the vendor said in an error of the SDK."""
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
        )
        return self._sdk.Client(vertexai=False, api_key=self._key, http_options=http)

    async def generate(self, request: Request) -> str | dict[str, Any]:
        """Returns the response's text; parsing it here takes less time than the SDK's models."""
        system, contents = contents_of(request)
        try:
            response = await self._asking.aio.models.generate_content(
                model=request.model, contents=contents, config=self._built(request, system)
            )
        except json.JSONDecodeError:  # An error whose body is no JSON, though it says so.
            return {}
        return response.sdk_http_response.body

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
        self._session = self._aiohttp.ClientSession(connector=connector, trust_env=True)
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

    def refusal(self, error: Any) -> Refusal:
        """Returns the status, headers and body of an APIError."""
        if not isinstance(error, self._sdk.errors.APIError):
            return 0, {}, None
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
            from google.api_core.exceptions import GoogleAPICallError
            from google.protobuf.json_format import ParseError

        # It keeps 10 connections and warns of every further one that it closes.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        options = {"api_endpoint": base_url} if base_url else None
        sdk.configure(api_key=key, transport="rest", client_options=options)
        self._sdk, self._timeout = sdk, timeout
        self._errors: Any = GoogleAPICallError
        self._unreadable = ParseError
        # Its calls block. It makes a thread where none is idle: as many as are asked at once.
        self._threads = ThreadPoolExecutor(1000, "google-generativeai")

    async def generate(self, request: Request) -> dict[str, Any]:
        """Returns the response as the REST API's JSON."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._generate, request)

    async def aclose(self) -> None:
        """Ends the threads."""
        self._threads.shutdown()

    def _generate(self, request: Request) -> dict[str, Any]:
        system, contents = contents_of(request)
        config: dict[str, Any] = {"max_output_tokens": request.max_output_tokens}
        if request.temperature is not None:
            config["temperature"] = request.temperature
        if request.structured:
            # Its schemas are an older subset.
            schema = {k: v for k, v in SCHEMA.items() if k != "additionalProperties"}
            config |= {"response_mime_type": "application/json", "response_schema": schema}
        model = self._sdk.GenerativeModel(request.model, system_instruction=system or None)
        try:
            response = model.generate_content(
                contents,
                generation_config=config,
                request_options={"timeout": self._timeout, "retry": None},
            )
        except self._unreadable:
            return {}
        usage = response.usage_metadata
        return {
            "candidates": [
                {
                    "content": {"parts": [{"text": part.text} for part in c.content.parts]},
                    "finishReason": getattr(c.finish_reason, "name", "OTHER"),
                }
                for c in response.candidates
            ],
            "promptFeedback": {"blockReason": int(response.prompt_feedback.block_reason)},
            "usageMetadata": {
                "promptTokenCount": usage.prompt_token_count,
                "totalTokenCount": usage.total_token_count,
            },
        }

    def refusal(self, error: Any) -> Refusal:
        """Returns the status, headers and body of a GoogleAPICallError."""
        if not isinstance(error, self._errors) or error.response is None:
            return 0, {}, None
        try:
            body = error.response.json()
        except ValueError:
            body = error.message
        return int(error.code or 0), error.response.headers, body


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
