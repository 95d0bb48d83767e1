r"""Removes Markdown, TeX, quotes, and "the answer is" around an answer.

Takes time linear in the length of the text.
"""

import re

# Emphasis opens before a word and closes after one; `2**3` and `a_b` have none.
_EMPHASIS = re.compile(
    r"(?:(?<![^\s(\[\"'$:>-])[*_]{1,3}+(?=[^\s*_]))|(?<=[^\s*_])[*_]{1,3}+(?![\w{])"
)
_HEADING = re.compile(r"^#{1,6}[ \t]++")
_TAG = re.compile(r"<(/?)(?:answer|b|strong|em|i|code|final_answer|final)>", re.IGNORECASE)

_TEX_FRACTION = re.compile(r"\\[dtc]?frac(?: ?\{ ?(-?\d+) ?\} ?\{ ?(\d+) ?\}|(\d)(\d)(?!\d))")
_TEX_POWER = re.compile(r"\^\{([-+]?\d+)\}")
_TEX_DEGREE = re.compile(r"\^(?:\{\\circ\}|\\circ\b)|\\degree\b")
_TEX_BOX = re.compile(
    r"\\(?:boxed|fbox|text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|operatorname|mbox|emph)"
    r" ?\{([^{}]*)\}"
)
_TEX_SIGNS = re.compile(
    r"\\(?:times|cdot|left|right|pi|sqrt|approx|displaystyle|quad|ldots|dots)(?![A-Za-z])"
    r"|\\box(?:ed)?(?=\d)|\\box(?=\{)|\\[%$&#_{},;:! ()\[\]]|\$\$|\{,\}|~"
)
_TEX_PLAIN = {f"\\{char}": char for char in "%$&#_{}"} | {
    "\\times": "×",
    "\\cdot": "·",
    "\\pi": "π",
    "\\sqrt": "√",
    "\\approx": "≈",
    "\\ldots": "…",
    "\\dots": "…",
    "{,}": ",",
}
_PAIRS = dict(zip("\"'`“„«‘「[{$", "\"'`”“»’」]}$"))
_LEAD_IN = re.compile(
    r"(?:(?:so|thus|hence|therefore|the|my|our|final|correct|best|right|most likely)\b[ ,]*+)*+"
    r"(?:(?:answer|option|choice|label|letter)\b[ ]*+"
    r"(?:(?:is|would be|must be|should be)\b[ ]*+:?|[:：=]|[-–—](?=\s))"
    r"|(?:option|choice|label|letter)\b)[ ]*+(?=\S)",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    r"""Returns a text without Markdown, TeX and quotes: "B" for `$\boxed{\text{B}}$`.

    A TeX fraction becomes "1⁄2", with the fraction slash. Parentheses stay, since they may mean a
    negative number. Unknown TeX stays as well.
    """
    text = _EMPHASIS.sub("", _HEADING.sub("", text.strip()))
    if "\\" in text or "{" in text or "~" in text:
        text = _from_tex(text)
    text = _TAG.sub(" ", text)
    return _unquoted(_EMPHASIS.sub("", _unquoted(text)).strip())


def without_lead_ins(text: str) -> list[str]:
    """Returns `plain(text)`, then the rest after "The answer is", "Final answer:" or "Option"."""
    found = [plain(text)]
    for _ in range(3):  # "The answer is: option B" has two
        lead_in = _LEAD_IN.match(found[-1])
        if not lead_in:
            break
        found.append(plain(found[-1][lead_in.end() :]))
    return found


def boxes(text: str) -> list[tuple[int, int, int]]:
    r"""Returns where each `\boxed{...}` begins, and where its content begins and ends, in order."""
    found: list[tuple[int, int, int]] = []
    opened: list[tuple[int, int]] = []
    for mark in re.finditer(r"\\boxed ?\{|\\[{}]|[{}]", text):
        if mark[0] == "}" and opened:
            start, begin = opened.pop()
            if begin - start > 1:
                found.append((start, begin, mark.start()))
        elif mark[0] not in ("}", "\\{", "\\}"):
            opened.append(mark.span())
    return sorted(found)


def _from_tex(text: str) -> str:
    text = _TEX_DEGREE.sub("°", text)
    # Signs that are removed leave a space: "5\\(6\\)" is not 56.
    text = _TEX_SIGNS.sub(lambda sign: _TEX_PLAIN.get(sign[0], " "), text)
    text = _TEX_POWER.sub(r"^\1 ", text)
    text = _TEX_FRACTION.sub(_fraction, text)
    for _ in range(4):  # as deep as anybody nests them
        text, count = _TEX_BOX.subn(r" \1 ", text)
        if not count:
            break
    return text.strip()


def _fraction(match: re.Match[str]) -> str:
    over, under = match[1] or match[3], match[2] or match[4]
    is_glued = match.string[max(0, match.start() - 1) : match.start()].isalnum()
    return f"{' ' if is_glued else ''}{over}⁄{under} "


def _unquoted(text: str) -> str:
    """Returns the text without its outer quotes and brackets, but with outer parentheses."""
    begin, end = 0, len(text)
    while end - begin >= 2:
        if text[begin].isspace():
            begin += 1
        elif text[end - 1].isspace():
            end -= 1
        elif _PAIRS.get(text[begin]) == text[end - 1]:
            begin, end = begin + 1, end - 1
        elif text[end - 1] == "." and _PAIRS.get(text[begin]) == text[end - 2]:
            end -= 1  # "The answer." in quotes, with the period after them
        else:
            break
    return text[begin:end].strip()
