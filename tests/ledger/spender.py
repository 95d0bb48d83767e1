"""A process to be killed: threads that reserve, are billed and settle as fast as they can.

python spender.py LEDGER BILLING_LOG REQUESTS

It writes to the log, one `write` each, "ready", "billed N" (what would be on a vendor's bill) and
"kept N" (after `settle` has returned).
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from fake_teacher import PRICES, ask

from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.requests import TeacherReply

THREADS = 16


def reply_to(number: int) -> TeacherReply:
    return TeacherReply(f"answer {number} " * (1 + number % 50), 100 + number % 7, 50 + number % 11)


def main(path: str, log: str, requests: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(line: str) -> None:
        os.write(file, f"{line}\n".encode())

    with Ledger(path, 10**6, 1e6, PRICES) as ledger:
        write("ready")

        def spend(number: int) -> None:
            if (stored := ledger.reserve(ask(number), 100)) is not None:
                assert stored == reply_to(number)
                return
            write(f"billed {number}")
            threading.Event().wait(number % 5 / 1000)
            ledger.settle(ask(number), reply_to(number))
            write(f"kept {number}")

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(spend, range(int(requests))))


if __name__ == "__main__":
    main(*sys.argv[1:])
