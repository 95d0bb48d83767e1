"""The API teachers, as the tests make them: real SDKs, a vendor on loopback."""

import asyncio
import contextlib

import pytest
from fake_vendor import KEY

from bridge_jax.config import TeacherConfig
from bridge_jax.ledger.prices import Prices
from bridge_jax.ledger.requests import Message, TeacherReply, TeacherRequest
from bridge_jax.teachers.gemini_teacher import GeminiTeacher
from bridge_jax.teachers.openai_teacher import OpenAITeacher

KINDS = ("openai", "google-genai", "google-generativeai")
PRICES = Prices(1.25, 10.0)


def make(
    kind: str, url: str, timeout: float = 5.0, allow_http: bool = False
) -> OpenAITeacher | GeminiTeacher:
    """Returns a teacher that asks the vendor at `url`."""
    pytest.importorskip({"openai": "openai"}.get(kind, kind.replace("-", ".", 1)))
    if kind == "openai":
        return OpenAITeacher(config("openai", f"{url}/v1", timeout, allow_http))
    return GeminiTeacher(config("gemini", url, timeout, allow_http, backend=kind))


def config(kind, base_url, timeout=120.0, allow_http=False, **more) -> TeacherConfig:
    return TeacherConfig(
        kind, "fake", base_url=base_url, timeout=timeout, allow_http=allow_http, **more
    )


def reply_of(teacher: OpenAITeacher | GeminiTeacher, request: TeacherRequest) -> TeacherReply:
    """Asks once."""

    async def asking() -> TeacherReply:
        async with contextlib.aclosing(teacher):
            return await teacher.ask(request)

    return asyncio.run(asking())


def set_keys(monkeypatch: pytest.MonkeyPatch, key: str = KEY) -> None:
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, key)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)


def ask(number: int, **settings) -> TeacherRequest:
    words = (Message("system", "Be brief."), Message("user", f"question {number}"))
    return TeacherRequest(f"e{number}", "fake", words, 90, **settings)
