"""Compares mathematical expressions with math-verify, in a process of its own (`data.mathematics`).

Writes "ready", then reads lines, each a JSON list of one or two texts. It answers each with a line:
`true` if the one text is an expression, or if the two are equal expressions; else `false`. Even on
a short text, SymPy may never finish or may use up the memory, within one operation that no Python
signal handler can interrupt. So the operating system ends this process after `CPU_SECONDS` of CPU
time on one line, and its memory is limited. Only TeX is read, with a grammar: the library's parser
of plain expressions evaluates Python.
"""

import json
import resource
import signal
import sys

CPU_SECONDS = 1
MEMORY = 2 * 2**30  # bytes of address space


def main() -> None:
    """Answers lines from stdin until it is closed."""
    # Ctrl-C, Slurm and systemd signal all processes of a run. If that ended this one, a question
    # would stay unanswered. It ends when the run closes stdin.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    from math_verify import LatexExtractionConfig, parse, verify

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # The default action: end the process.

    def read(text: str) -> list:
        found = parse(
            f"${text}$",
            [LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=0,
        )
        return [each for each in found if not isinstance(each, str)]

    def answer(texts: list[str]) -> bool:
        found = [read(text) for text in texts]
        if not all(found):
            return False
        if len(found) == 1:
            return True
        gold, given = found
        return bool(verify(gold, given, timeout_seconds=0))

    print("ready", flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            said = answer(json.loads(line))
        except Exception:  # The library and SymPy raise many kinds of exceptions.
            said = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
