"""A run that is killed again and again, as a program; started by test_vendor_storm.py.

python killed_run.py KIND URL LEDGER REQUESTS KILLS

The SDK is imported once, by a parent that has no threads; each run is a child of it, which opens
the ledger and the teacher anew. The parent kills it (SIGKILL), mostly a random time after its first
answer. The last run may end; how many were killed while they were at work is printed.
"""

import os
import random
import select
import signal
import sys
import time
from pathlib import Path

import tenacity
import vendors

from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.requests import TeacherReply, TeacherRequest
from bridge_jax.teachers import annotate as annotate_module
from bridge_jax.teachers.annotate import annotate

SECONDS_AT_MOST = 0.06


def run(kind: str, url: str, ledger: Path, requests: int, answers: int) -> bool:
    """Writes a byte to `answers` for each call that has ended; returns whether all is answered."""
    annotate_module.BACKOFF = tenacity.wait_random(0, 0.02)
    teacher = vendors.make(kind, url, timeout=2.0)
    ask = teacher.ask

    async def noted(request: TeacherRequest) -> TeacherReply:
        try:
            return await ask(request)
        finally:
            os.write(answers, b".")

    teacher.ask = noted
    with Ledger(ledger, 10**6, 1e6, vendors.PRICES) as opened:
        outcomes = annotate(teacher, opened, [vendors.ask(n) for n in range(requests)], 16)
    return all(isinstance(outcome, TeacherReply) for outcome in outcomes)


def start(*what) -> tuple[int, int]:
    """Returns the process id of a run, and what tells of its answers."""
    told, answers = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os._exit(0 if run(*what, answers) else 1)
    os.close(answers)
    return child, told


def main(kind: str, url: str, ledger: str, requests: str, kills: str) -> None:
    draw = random.Random(0)
    what = (kind, url, Path(ledger), int(requests))
    vendors.make(kind, url).check()
    in_mid_run = 0
    for _ in range(int(kills)):
        child, told = start(*what)
        if draw.random() < 0.9:
            select.select([told], [], [])
        time.sleep(draw.uniform(0, SECONDS_AT_MOST))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(told)
        in_mid_run += os.WIFSIGNALED(status)
    child, told = start(*what)
    while os.read(told, 4096):
        pass
    _, status = os.waitpid(child, 0)
    print(in_mid_run)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(*sys.argv[1:])
