"""Requests and teachers for the tests; run as a program, one process that annotates.

python fake_teacher.py LEDGER CALLS FIRST LAST QUERIES_CAP USD_CAP ANSWERED_THEN_HANG [RUN]
"""

import asyncio
import os
import sys
from pathlib import Path

from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import BudgetExceeded, Prices
from bridge_jax.ledger.requests import Message, TeacherReply, TeacherRequest
from bridge_jax.teachers.annotate import annotate

# 1 dollar per 10^6 input tokens, 10 per 10^6 output: `ask(n)` below costs 100 + 10 * 50 = 600
# microdollars, and reserves 100 + 10 * 90 = 1000.
PRICES = Prices(1.0, 10.0)
USED_USD, RESERVED_USD = 600e-6, 1000e-6


def ask(number: int) -> TeacherRequest:
    return TeacherRequest(f"e{number}", "fake-1", (Message("user", f"question {number}"),), 90)


class FakeTeacher:
    """Answers 'reply to question N'; writes every call to a file that processes can share."""

    name = "fake"

    def __init__(self, calls: Path, answered_then_hang: int = -1, seconds: float = 0.0):
        self.calls = calls
        self.answers_left = answered_then_hang
        self.seconds = seconds

    def estimate_input_tokens(self, request: TeacherRequest) -> int:
        return 100

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        hang = self.answers_left == 0
        self.answers_left -= self.answers_left > 0
        line = f"{request.example_id}\n".encode()
        file = os.open(self.calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line)
        os.close(file)
        await asyncio.sleep(600 if hang else self.seconds)
        return TeacherReply(f"reply to {request.messages[-1].content}", 100, 50)

    async def aclose(self) -> None:
        pass

    def asked(self) -> list[str]:
        return self.calls.read_text().split() if self.calls.exists() else []


def main(
    path: str, calls: str, first: str, last: str, queries: str, usd: str, hang: str, run: str = ""
) -> None:
    teacher = FakeTeacher(Path(calls), int(hang), seconds=0.005)
    requests = [ask(number) for number in range(int(first), int(last))]
    with Ledger(path, int(queries), float(usd), PRICES, run) as ledger:
        try:
            annotate(teacher, ledger, requests, 4)
        except BudgetExceeded:
            sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
