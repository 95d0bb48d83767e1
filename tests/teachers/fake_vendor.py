"""A vendor on loopback: the wire protocols of OpenAI and Gemini, faults on request, its own bills.

The vendors' real SDKs talk to it. What it leaves out is intelligence, streaming, and checks of what
it is sent. It bills when it begins to write an answer, whether or not that answer arrives.

In a test: `with FakeVendor() as vendor`. As a process of its own (so that a benchmark of the client
does not measure the server):

python fake_vendor.py BILLS SECONDS_PER_ANSWER FAULT_SHARE [FAULT,FAULT...]    # prints its port
"""

import asyncio
import dataclasses
import functools
import hashlib
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = "sk-test-5ecret5ecret5ecret"

# Not billed: the vendor says that it did not answer.
REFUSED = ("429", "500", "503")
# Billed, and the client cannot know it: no answer, half of one, none in time, one that is no JSON,
# and a proxy that says in its place that there is none.
LOST = ("drop", "cut", "hang", "garbage", "504")
# Billed and answered, but not as hoped.
ODD = ("refusal", "empty", "length", "overreport", "malformed")


@dataclasses.dataclass(frozen=True)
class Bill:
    """One billed answer."""

    prompt: str
    input_tokens: int
    output_tokens: int
    fault: str
    batch: bool = False


@dataclasses.dataclass
class Response:
    """What goes over the wire: nothing at all (`body` None), or `cut` of its bytes."""

    status: int
    body: bytes | None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    cut: int | None = None
    hang: bool = False


class FakeVendor:
    """The server.

    Attributes:
      script: prompt -> faults of its first calls, in order; "" is a call that goes well.
      answer: prompt -> the answer it gives.
      key: the only one that it takes; change it to revoke it.
      retry_after: seconds; what 429 and 503 ask for.
      refuse: request -> the error with which it refuses it (HTTP 400, not billed), or None.
      alter: answer -> what it sends in its place, as JSON or as bytes; it is billed all the same.
      together: it answers none before it has so many to answer.
      calls: requests per prompt, billed or not.
      most_at_once: the highest number of requests that it was working on together.
    """

    def __init__(
        self,
        seconds: float = 0.0,
        fault_share: float = 0.0,
        faults: tuple[str, ...] = (),
        bills: Path | None = None,
    ):
        self.seconds, self.fault_share, self.faults = seconds, fault_share, faults
        self.script: dict[str, list[str]] = {}
        self.answer: Callable[[str], str] = lambda prompt: "4"
        self.key = KEY
        self.retry_after = 0.01
        self.refuse: Callable[[dict[str, Any]], Any] = lambda request: None
        self.alter: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.together = 1
        self.calls: Counter[str] = Counter()
        self.bills: list[Bill] = []
        self.bodies: list[dict[str, Any]] = []
        self.at_work = self.most_at_once = 0
        self.held: list[Callable[[], None]] = []
        self.more: list[Callable[[str, str, dict[str, str], bytes], Response | None]] = []
        self._bills_file = os.open(bills, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if bills else None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()

    def __enter__(self) -> "FakeVendor":
        self._thread = threading.Thread(target=self.serve, daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, port: int = 0, announce: Callable[[int], None] | None = None) -> None:
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Connection(self), "127.0.0.1", port)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        if announce:
            announce(self.port)
        self._loop.run_forever()
        server.close()

    def stop_listening(self) -> None:
        """Dies."""
        self.__exit__()

    def billed(self) -> Counter[str]:
        return Counter(bill.prompt for bill in self.bills)

    def respond(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        openai = "authorization" in headers
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if (given or headers.get("x-goog-api-key")) != self.key:
            return _wrong_key(openai, given or headers.get("x-goog-api-key", ""))
        for route in self.more:
            if found := route(method, path, headers, body):
                return found
        if not (path.endswith("/chat/completions") or ":generateContent" in path):
            return _json(404, {"error": {"message": f"no such path: {path}", "code": 404}})
        request = json.loads(body)
        self.bodies.append(request)
        prompt = prompt_of(request)
        self.calls[prompt] += 1
        if error := self.refuse(request):
            return _json(400, error)
        fault = self._fault(prompt, self.calls[prompt])
        if fault in REFUSED:
            return _error(openai, int(fault), "try again", self.retry_after)
        if fault == "400":
            return _error(openai, 400, "the prompt is too long")
        if fault == "die":
            os._exit(9)
        answer = self.complete(request, fault)
        if fault == "drop":
            return Response(200, None)
        if fault == "hang":
            return Response(200, None, hang=True)
        if fault == "504":
            return Response(504, b"<html>Gateway Time-out</html>")
        if fault == "garbage":
            return Response(200, b'{"choices": [{"mess')
        sent = self.alter(answer)
        response = Response(200, sent) if isinstance(sent, bytes) else _json(200, sent)
        if fault == "cut":
            response.cut = len(response.body or b"") // 2
        return response

    def complete(self, request: dict[str, Any], fault: str = "", batch: bool = False) -> dict:
        """Bills a request and returns the vendor's answer to it."""
        prompt = prompt_of(request)
        inputs = 10 + len(prompt.encode()) // 4
        outputs = 20 + _draw(prompt, "tokens") % 40
        if fault in ("refusal", "empty"):
            outputs = 3
        elif fault == "overreport":
            outputs *= 100
        elif fault == "length":
            outputs = most_tokens(request)
        bill = Bill(prompt, inputs, outputs, fault, batch)
        self.bills.append(bill)
        if self._bills_file is not None:
            line = json.dumps(dataclasses.asdict(bill)) + "\n"
            os.write(self._bills_file, line.encode())
        text = self._text(request, prompt, fault)
        if "messages" in request:
            return _chat_completion(text, fault, inputs, outputs)
        return _generate_content(text, fault, inputs, outputs)

    def _text(self, request: dict[str, Any], prompt: str, fault: str) -> str:
        rationale, answer = f"One thing leads to another in {prompt!r}.", self.answer(prompt)
        text = f"{rationale}\nAnswer: {answer}"
        if is_structured(request):
            text = json.dumps({"rationale": rationale, "answer": answer})
        if fault == "malformed":
            return "I would rather talk about the weather."
        return "" if fault in ("refusal", "empty") else text[:20] if fault == "length" else text

    def _fault(self, prompt: str, call: int) -> str:
        if self.script.get(prompt):
            return self.script[prompt].pop(0)
        if self.faults and _draw(prompt, str(call)) % 1000 < 1000 * self.fault_share:
            return self.faults[_draw(prompt, f"which {call}") % len(self.faults)]
        return ""


def prompt_of(request: dict[str, Any]) -> str:
    """Returns what the user says last."""
    if "messages" in request:
        return request["messages"][-1]["content"]
    return "".join(part["text"] for part in request["contents"][-1]["parts"])


def most_tokens(request: dict[str, Any]) -> int:
    if "messages" in request:
        return request.get("max_completion_tokens") or request["max_tokens"]
    return request["generationConfig"]["maxOutputTokens"]


def is_structured(request: dict[str, Any]) -> bool:
    config = request.get("generationConfig", {})
    return "response_format" in request or config.get("responseMimeType") == "application/json"


def read_bills(path: Path) -> list[Bill]:
    """Returns what a vendor in another process has billed."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Bill(**json.loads(line)) for line in lines]


def _draw(*words: str) -> int:
    return int.from_bytes(hashlib.sha256(" ".join(words).encode()).digest()[:4], "big")


def _chat_completion(text: str, fault: str, inputs: int, outputs: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": text or None, "refusal": None}
    if fault == "refusal":
        message["refusal"] = "I cannot help with that."
    reason = "length" if fault == "length" else "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "finish_reason": reason, "message": message}],
        "usage": {
            "prompt_tokens": inputs,
            "completion_tokens": outputs,
            "total_tokens": inputs + outputs,
        },
    }


def _generate_content(text: str, fault: str, inputs: int, outputs: int) -> dict[str, Any]:
    reason = {"length": "MAX_TOKENS", "refusal": "SAFETY"}.get(fault, "STOP")
    candidate: dict[str, Any] = {"finishReason": reason, "index": 0}
    if text:
        candidate["content"] = {"role": "model", "parts": [{"text": text}]}
    thoughts = min(5, outputs - 1)  # billed as output, and not among the candidates' tokens
    return {
        "candidates": [candidate],
        "modelVersion": "fake",
        "usageMetadata": {
            "promptTokenCount": inputs,
            "candidatesTokenCount": outputs - thoughts,
            "thoughtsTokenCount": thoughts,
            "totalTokenCount": inputs + outputs,
        },
    }


def _wrong_key(openai: bool, given: str) -> Response:
    if openai:
        return _json(401, {"error": {"message": f"Incorrect API key provided: {given}."}})
    details = [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
    ]
    message = f"API key not valid: {given}. Please pass a valid API key."
    error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}
    return _json(400, {"error": error})


def _error(openai: bool, status: int, message: str, retry_after: float = 0.0) -> Response:
    names = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
    error: dict[str, Any] = {"message": message, "code": status}
    headers = {}
    if not openai:
        error["status"] = names.get(status, "INTERNAL")
    if status == 429 and not openai:  # Gemini says it in the body.
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo"}
        error["details"] = [delay | {"retryDelay": f"{retry_after}s"}]
    elif status in (429, 503):
        headers["Retry-After"] = str(retry_after)
    return _json(status, {"error": error}, headers)


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(status, json.dumps(value).encode(), headers or {})


class _Connection(asyncio.Protocol):
    """Reads HTTP/1.1 requests with a Content-Length, one after the other."""

    def __init__(self, vendor: FakeVendor):
        self.vendor, self.buffer = vendor, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        method, path, _ = first.split()
        vendor = self.vendor
        vendor.at_work += 1
        vendor.most_at_once = max(vendor.most_at_once, vendor.at_work)
        response = vendor.respond(method, path, headers, rest[:length])
        vendor.held.append(functools.partial(self._send, response))
        if len(vendor.held) >= vendor.together:
            for send in vendor.held:
                asyncio.get_running_loop().call_later(vendor.seconds, send)
            vendor.held.clear()

    def _send(self, response: Response) -> None:
        self.vendor.at_work -= 1
        if response.hang:
            return
        if response.body is None:
            self.transport.abort()
            return
        headers = {"Content-Type": "application/json"} | response.headers
        headers["Content-Length"] = str(len(response.body))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {response.status} OK\r\n{head}\r\n".encode())
        self.transport.write(response.body[: response.cut])
        if response.cut is not None:
            self.transport.close()


def main(bills: str, seconds: str, fault_share: str, faults: str = "") -> None:
    kinds = tuple(faults.split(",")) if faults else ()
    vendor = FakeVendor(float(seconds), float(fault_share), kinds, Path(bills))
    vendor.serve(announce=lambda port: print(port, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
