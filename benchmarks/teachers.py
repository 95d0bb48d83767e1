"""Measures how many answers a second an API teacher gives, every one of them on the ledger.

python -m benchmarks.teachers --json        (some minutes)

Beside it, in the same run: the same SDK without a ledger, with asyncio over aiohttp, and sockets
without any SDK, which take what the vendor can give. That one is the tests', on loopback in a
process of its own, and answers after 50 ms: 1,280 answers a second at a concurrency of 64, if
nothing else took time.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.result import Say, result, run, spread
from bridge_jax.config import TeacherConfig
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import Prices
from bridge_jax.ledger.requests import Message, TeacherReply, TeacherRequest
from bridge_jax.teachers.annotate import annotate
from bridge_jax.teachers.gemini_teacher import GeminiTeacher
from bridge_jax.teachers.openai_teacher import OpenAITeacher

SECONDS, CONCURRENCY = 0.05, 64
KEY = "sk-test-5ecret5ecret5ecret"  # of the tests' vendor
VENDOR = Path(__file__).parents[1] / "tests" / "teachers" / "fake_vendor.py"
SYSTEM, QUESTION = "Reason step by step, then write the answer.", "What is two and two? " * 20


@contextlib.contextmanager
def vendor(folder: Path) -> Iterator[str]:
    """Yields the address of a vendor."""
    command = [sys.executable, str(VENDOR), str(folder / "bills.jsonl"), str(SECONDS), "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


class Speed(NamedTuple):
    """Answers a second, and the milliseconds of this process's processor time that one takes."""

    rate: float
    cpu_ms: float


@contextlib.contextmanager
def timed(count: int) -> Iterator[list[Speed]]:
    """Yields the list into which the block's speed is put."""
    found: list[Speed] = []
    began, cpu = time.perf_counter(), time.process_time()
    yield found
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    found.append(Speed(count / seconds, 1000 * cpu / count))


def ours(kind: str, url: str, folder: Path) -> Callable[[int], Speed]:
    """Returns what asks n questions through `annotate`."""
    if kind == "openai":
        made = OpenAITeacher(TeacherConfig("openai", "m", f"{url}/v1"))
    else:
        made = GeminiTeacher(TeacherConfig("gemini", "m", url))
    turn = iter(range(10**6))

    def speed(count: int) -> Speed:
        path = folder / f"{kind}-{next(turn)}.sqlite"
        requests = [
            TeacherRequest(
                f"e{n}", "m", (Message("system", SYSTEM), Message("user", f"{n} {QUESTION}")), 64
            )
            for n in range(count)
        ]
        with Ledger(path, count, 1e6, Prices(1.0, 10.0)) as ledger, timed(count) as found:
            outcomes = annotate(made, ledger, requests, CONCURRENCY)
        assert all(isinstance(outcome, TeacherReply) for outcome in outcomes)
        return found[0]

    return speed


Client = Callable[[str], contextlib.AbstractAsyncContextManager[Callable[[int], Awaitable[Any]]]]


def bare(client: Client, url: str) -> Callable[[int], Speed]:
    """Returns the same for a client without a ledger."""

    async def run(count: int) -> Speed:
        async with client(url) as ask:
            left = iter(range(count))

            async def work() -> None:
                for number in left:
                    assert await ask(number)

            with timed(count) as found:
                await asyncio.gather(*[work() for _ in range(CONCURRENCY)])
        return found[0]

    return lambda count: asyncio.run(run(count))


@contextlib.asynccontextmanager
async def openai_client(url: str) -> AsyncIterator[Callable[[int], Awaitable[Any]]]:
    """Yields what asks one question through `openai`."""
    import openai

    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(
        api_key=KEY, base_url=f"{url}/v1", max_retries=0, http_client=http
    ) as client:
        yield lambda number: client.chat.completions.create(
            model="m",
            messages=[
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": f"{number} {QUESTION}"},
            ],
            max_tokens=64,
            temperature=0,
        )


@contextlib.asynccontextmanager
async def gemini_client(url: str) -> AsyncIterator[Callable[[int], Awaitable[Any]]]:
    """Yields what asks one question through `google-genai`, which takes aiohttp by itself."""
    from google import genai
    from google.genai import types

    config = types.GenerateContentConfig(
        system_instruction=SYSTEM, max_output_tokens=64, temperature=0
    )
    options = types.HttpOptions(base_url=url)
    async with genai.Client(vertexai=False, api_key=KEY, http_options=options).aio as client:
        yield lambda number: client.models.generate_content(
            model="m", contents=f"{number} {QUESTION}", config=config
        )


@contextlib.asynccontextmanager
async def sockets(url: str) -> AsyncIterator[Callable[[int], Awaitable[Any]]]:
    """Yields what asks one question of `/v1/chat/completions` with the least that HTTP needs."""
    host, _, port = url.removeprefix("http://").partition(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(CONCURRENCY)]
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"

    async def ask(number: int) -> bytes:
        reader, writer = connection = idle.pop()
        words = [{"role": "user", "content": f"{number} {QUESTION}"}]
        body = json.dumps({"model": "m", "messages": words, "max_tokens": 64})
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        length = answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        text = await reader.readexactly(int(length))
        idle.append(connection)
        return text

    yield ask
    for _, writer in idle:
        writer.close()


def measure(folder: Path, count: int, repeats: int, say: Say) -> dict:
    """Returns the result as every benchmark prints it."""
    os.environ["OPENAI_API_KEY"] = os.environ["GEMINI_API_KEY"] = KEY
    absolute: dict[str, Any] = {}
    ratios = {}
    with vendor(folder) as url:
        ways = {
            "sockets": bare(sockets, url),
            "openai, ours": ours("openai", url, folder),
            "openai, SDK": bare(openai_client, url),
            "google-genai, ours": ours("google-genai", url, folder),
            "google-genai, SDK": bare(gemini_client, url),
        }
        speeds: dict[str, list[Speed]] = {name: [] for name in ways}
        for speed in ways.values():
            speed(2 * CONCURRENCY)  # imports what is imported late
        for _ in range(repeats):
            for name, speed in ways.items():
                speeds[name].append(speed(count))
    rates = {name: [speed.rate for speed in found] for name, found in speeds.items()}
    for name, found in speeds.items():
        absolute[f"{name}: answers_per_second"] = spread(rates[name])
        absolute[f"{name}: cpu_ms_per_answer"] = spread([speed.cpu_ms for speed in found])
        say(f"{name}: {spread(rates[name])} answers a second")
    for kind in ("openai", "google-genai"):
        mine = rates[f"{kind}, ours"]
        for name in (f"{kind}, SDK", "sockets"):
            ratios[f"{kind}, ours / {name}"] = spread([a / b for a, b in zip(mine, rates[name])])
        ratios[f"{kind}, ours / {CONCURRENCY / SECONDS:.0f}"] = spread(
            [rate / (CONCURRENCY / SECONDS) for rate in mine]
        )
    return result("teachers", ratios, absolute)


def main() -> None:
    """Measures and prints."""

    def all_of_it(options: Any, say: Say) -> dict:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            return measure(Path(folder), options.answers, options.repeats, say)

    run(__doc__ or "", all_of_it, answers=3000, repeats=5, folder=None)


if __name__ == "__main__":
    main()
