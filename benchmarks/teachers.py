"""How many answers a second a teacher behind an API gives, every one of them on the ledger.

python -m benchmarks.teachers --json        (some minutes)

Beside it, in the same run: the same SDK as one would use it first, without a ledger, in threads and
with asyncio. The vendor is the one of the tests, on loopback in a process of its own, and answers
after 50 ms. At a concurrency of 64 it could give 1,280 answers a second; on a machine with few
cores the SDKs' own processor time allows less, which is why they stand beside it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bridge_jax.teachers.annotate import annotate
from bridge_jax.teachers.gemini_teacher import GeminiTeacher
from bridge_jax.teachers.ledger import Ledger
from bridge_jax.teachers.openai_teacher import OpenAITeacher
from bridge_jax.teachers.prices import Prices
from bridge_jax.teachers.protocol import Message, Reply, Request

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


def ours(kind: str, url: str, folder: Path) -> Callable[[int], float]:
    """Returns what asks n questions through `annotate` and says how many a second."""
    made = OpenAITeacher("m", f"{url}/v1") if kind == "openai" else GeminiTeacher("m", url)
    made.check()
    turn = iter(range(10**6))

    def rate(count: int) -> float:
        path = folder / f"{kind}-{next(turn)}.sqlite"
        requests = [
            Request(
                f"e{n}", "m", (Message("system", SYSTEM), Message("user", f"{n} {QUESTION}")), 64
            )
            for n in range(count)
        ]
        with Ledger(path, count, 1e6, Prices(1.0, 10.0)) as ledger:
            began = time.perf_counter()
            outcomes = annotate(made, ledger, requests, CONCURRENCY)
            seconds = time.perf_counter() - began
        assert all(isinstance(outcome, Reply) for outcome in outcomes)
        return count / seconds

    return rate


def sdk_in_threads(kind: str, url: str) -> Callable[[int], float]:
    """Returns the same for the SDK's own client in a pool of threads."""
    ask = _openai(url) if kind == "openai" else _gemini(url)

    def rate(count: int) -> float:
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            began = time.perf_counter()
            assert all(pool.map(ask, range(count)))
            return count / (time.perf_counter() - began)

    return rate


def sdk_with_asyncio(kind: str, url: str) -> Callable[[int], float]:
    """Returns the same for the SDK's asynchronous client."""

    async def run(count: int) -> float:
        ask = _openai(url, asynchronous=True) if kind == "openai" else _gemini(url, True)
        turn = asyncio.Semaphore(CONCURRENCY)

        async def one(number: int) -> None:
            async with turn:
                assert await ask(number)

        began = time.perf_counter()
        await asyncio.gather(*map(one, range(count)))
        return count / (time.perf_counter() - began)

    return lambda count: asyncio.run(run(count))


def _openai(url: str, asynchronous: bool = False) -> Callable[[int], Any]:
    import openai

    make = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    client: Any = make(api_key=KEY, base_url=f"{url}/v1", max_retries=0)

    def ask(number: int) -> Any:
        return client.chat.completions.create(
            model="m",
            messages=[
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": f"{number} {QUESTION}"},
            ],
            max_tokens=64,
            temperature=0,
        )

    return ask


def _gemini(url: str, asynchronous: bool = False) -> Callable[[int], Any]:
    from google import genai
    from google.genai import types

    client = genai.Client(vertexai=False, api_key=KEY, http_options=types.HttpOptions(base_url=url))
    models: Any = client.aio.models if asynchronous else client.models
    config = types.GenerateContentConfig(
        system_instruction=SYSTEM, max_output_tokens=64, temperature=0
    )

    def ask(number: int) -> Any:
        _ = client  # which closes its connections when it is let go
        return models.generate_content(model="m", contents=f"{number} {QUESTION}", config=config)

    return ask


def measure(folder: Path, count: int, repeats: int, say: Callable[[str], None]) -> dict:
    """Returns the result as every benchmark prints it."""
    os.environ["OPENAI_API_KEY"] = os.environ["GEMINI_API_KEY"] = KEY
    possible = CONCURRENCY / SECONDS
    absolute: dict[str, Any] = {"possible: answers_per_second": possible}
    ratios = {}
    with vendor(folder) as url:
        for kind in ("openai", "google-genai"):
            ways = {
                "ours": ours(kind, url, folder),
                "SDK in threads": sdk_in_threads(kind, url),
                "SDK with asyncio": sdk_with_asyncio(kind, url),
            }
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for rate in ways.values():
                rate(2 * CONCURRENCY)  # opens connections, imports what is imported late
            for _ in range(repeats):
                for name, rate in ways.items():
                    rates[name].append(rate(count))
            for name, values in rates.items():
                absolute[f"{kind}, {name}: answers_per_second"] = _spread(values)
                say(f"{kind}, {name}: {_spread(values)} answers a second")
            for name in ("SDK in threads", "SDK with asyncio"):
                pairs = zip(rates["ours"], rates[name])
                ratios[f"{kind}: ours / {name}"] = _spread([a / b for a, b in pairs])
            ratios[f"{kind}: ours / possible"] = _spread([a / possible for a in rates["ours"]])
    return {
        "name": "teachers",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "ratios": ratios,
        "absolute": absolute,
        "peak": {"rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024},
    }


def _spread(values: list[float]) -> dict[str, float]:
    rounded = [round(value, 2) for value in (statistics.median(values), min(values), max(values))]
    return dict(zip(("median", "low", "high"), rounded))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )
    parser.add_argument("--answers", type=int, default=3000, help="per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="on which disk; by default that of temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        say = (lambda _: None) if options.json else print
        result = measure(Path(folder), options.answers, options.repeats, say)
    print(json.dumps(result, indent=2) if options.json else result["ratios"])


if __name__ == "__main__":
    main()
