"""Compares mathematical expressions by math-verify, in a process of its own (`data.mathematics`).

Reads a JSON list of one or two texts a line, and writes a line for each: `true` if the one is an
expression, or both are and equal. SymPy may take for ever on a short text, or all memory, inside
one operation that no handler interrupts. So the operating system ends this process after
`CPU_SECONDS` of processor time on a line, and memory is limited. TeX alone is read, by a grammar:
the library's reader of plain expressions evaluates Python.
"""

import json
import resource
import signal
import sys

CPU_SECONDS = 1
MEMORY = 2 * 2**30  # bytes of address space


def main() -> None:
    """Answers the lines of stdin until it ends."""
    from math_verify import LatexExtractionConfig, parse, verify

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # It ends the process.

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

    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            said = answer(json.loads(line))
        except Exception:  # The library and SymPy raise many kinds.
            said = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
