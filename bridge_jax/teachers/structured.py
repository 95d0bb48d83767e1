r"""Reads replies that should be JSON with a rationale and an answer.

The rationale comes first in the schema: what a model writes before the answer can serve it.

Models write JSON with thoughts before it, code fences around it, LaTeX inside it and small
mistakes of grammar, and each of these replies is paid. So thoughts are dropped first, LaTeX gets
its backslashes back, and `json_repair` reads what `json` refuses. An object that never ends was
cut off and is not read: its answer would be half of one. All of this takes time linear in the
length of the reply, and no recursion.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from bridge_jax.data.answers import split_completion
from bridge_jax.text.markers import whole_characters

# Of OpenAI's `strict` subset of JSON schema, which Gemini reads too.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"rationale": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["rationale", "answer"],
    "additionalProperties": False,
}
SCHEMA_BYTES = len(json.dumps(SCHEMA))


class JsonNumber(str):
    """A number of JSON as it is written: its point parts the decimals, whatever mark a task has."""


# How models mark their thoughts: DeepSeek and Qwen, Magistral, Kimi, and what prompts ask for.
_THOUGHT = re.compile(
    r"<(?P<shut>/?)(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)[ ]?>"
    r"|\[(?P<bracket>/?)THINK\]|◁(?P<triangle>/?)think▷|<\|(?:begin|(?P<end>end))_of_thought\|>"
    r"|<\|channel\|>(?:analysis|commentary|(?P<final>final))[^<]{0,99}<\|message\|>",
    re.IGNORECASE,
)
# What a server leaves of the model's end of turn, and closing tags that nothing follows.
_TRAILING = re.compile(
    r"(?:<\|(?:im_end|eot_id|endoftext|end|return)\|>|</(?:s|think|thinking)>|<end_of_turn>)\Z"
)

_RATIONALES, _ANSWERS = ("rationale", "reasoning", "explanation"), ("answer", "final_answer")
_OR_NAMES = "|".join(_RATIONALES + _ANSWERS)

_DEEPEST = 16  # Levels of an object that is read.
_LONGEST = 200_000  # Characters of an object that is repaired: `json_repair` takes 5 us for each.
_READINGS = 4  # Times the reply's length that is read in all, in search of an object.
_OBJECTS = 50  # In a reply, with the names that we look for; where there are more, none is read.

_STEP = re.compile(r'\\.|["{}]', re.DOTALL)
# Numbers stay as they are written, with their digits and however long.
_NUMBERS: Any = dict.fromkeys(("parse_int", "parse_float", "parse_constant"), JsonNumber)
_ENDS = re.compile(r"[\"'”\]]\s*\}[\s`]*\Z")
_NAMES_RATIONALE = re.compile("|".join(_RATIONALES), re.IGNORECASE)
_NAMES_ANSWER = re.compile("|".join(_ANSWERS), re.IGNORECASE)
_OPENS = re.compile(r"\{\s*[\"'“A-Za-z]")
_OPENS_OURS = re.compile(rf"\{{\s*[\"'“]?(?:{_OR_NAMES})\b", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|([a-zA-Z]+)|.)", re.DOTALL)
_ANSWER_KEY = re.compile(
    rf"(?:\b(?:{'|'.join(_ANSWERS)})[\"'”]|[{{,]\s{{0,9}}(?:{'|'.join(_ANSWERS)}))[ \t]{{0,9}}:",
    re.IGNORECASE,
)
_BARE_ANSWER = re.compile(
    rf"\b(?:{'|'.join(_ANSWERS)})[\"']?[ \t]{{0,9}}:[ \t]{{0,9}}([^\"'\s][^}}\n]*)",
    re.IGNORECASE,
)
_ANNOUNCES = re.compile(r"\banswer is\b|####|\\boxed", re.IGNORECASE)
_NEXT_KEY = re.compile(r",\s*[\"']")

# LaTeX whose first letter is that of an escape of JSON. A backspace or a form feed is never meant;
# a tab, a carriage return or a line break can be, so their commands are listed.
_COMMANDS = {
    "t": "tag tan tanh tau tbinom text textbf textit textnormal textrm textsc textsf textstyle"
    " texttt textup tfrac therefore theta thickapprox thicksim tilde times tiny to top triangle"
    " triangleleft triangleq triangleright twoheadrightarrow",
    "r": "rVert rangle rarr rbrace rbrack rceil real ref rfloor rho right rightarrow"
    " rightharpoonup rightleftharpoons rightmargin rm rtimes rule rvert",
    "n": "nLeftarrow nRightarrow nVdash nabla natural nearrow neg neq newcommand newline nexists"
    " ngeq nleq nmid nolimits nonumber normalsize not notin nparallel nprec nrightarrow nsim"
    " nsubset nsubseteq nsucc nwarrow",
}
# These are also words that begin a line; between signs of mathematics they are LaTeX.
_SIGNS = tuple(" $({=+-")
_BETWEEN_SIGNS = {"ne", "ni", "nu"}
_LATEX = {first: frozenset(words.split()) for first, words in _COMMANDS.items()}


def read_json(text: str) -> tuple[str, str] | None:
    """Returns (rationale, answer) of the last JSON object in `text` that has both.

    Thoughts before it are dropped. It may stand in a code fence or between sentences. Its keys may
    be in capitals, its answer a number or a list, its grammar slightly wrong.

    Returns:
      The answer is a `JsonNumber` where it is written as a number, without quotation marks. None
      where there is no such object, or where one that begins after the last never ends.
    """
    return _read(without_thoughts(text))[0]


def finish_of(text: str) -> Literal["stop", "length", "malformed"]:
    """Returns how a reply that should be JSON ended, where the vendor did not report a cut.

    It is `length` where its JSON never ends, and `malformed` where it holds neither an object that
    can be read nor words that announce an answer.
    """
    text = without_thoughts(text)
    found, cut_off = _read(text)
    if found:
        return "stop"
    if cut_off:
        return "length"
    said = split_completion(text)[1] is not None or _ANNOUNCES.search(text)
    return "stop" if said else "malformed"


def without_thoughts(text: str) -> str:
    """Returns a reply without what its model thought before it wrote.

    Thoughts stand between tags such as `<think>` and `</think>`. Many chat templates open the tag
    themselves, so a reply may begin with thoughts and hold the closing tag alone. Thoughts that
    never end go on to the end of the reply.
    """
    text = _without_end(text)
    kept: list[str] = []
    begin, thinks = 0, False
    for tag in _THOUGHT.finditer(text):
        if any(tag[name] for name in ("shut", "bracket", "triangle", "end", "final")):
            if not thinks:
                kept.clear()
            begin, thinks = tag.end(), False
        elif not thinks:
            kept.append(text[begin : tag.start()])
            thinks = True
    if not thinks:
        kept.append(text[begin:])
    return "".join(kept).strip()


def _without_end(text: str) -> str:
    """Returns a reply without ends of turns and closing tags that nothing follows."""
    text = text.rstrip()
    for _ in range(3):
        text = _TRAILING.sub("", text).rstrip()
    return text


def _read(text: str) -> tuple[tuple[str, str] | None, bool]:
    """Returns (rationale, answer) or None, and whether an object of ours was cut off."""
    found, opened = None, _OPENS.search(text)
    left, objects = _READINGS * len(text), 0
    while opened and left > 0 and objects < _OBJECTS:
        start = opened.start()
        end = _end_of_object(text, start)
        if end > len(text) and _OPENS_OURS.match(text, start):
            # A quotation mark too many hides the end, unless there is none.
            found = _pair(text[start:]) if _ENDS.search(text) else None
            return found, not found
        left -= end - start
        span = text[start:end]
        pair = None
        if _NAMES_RATIONALE.search(span) and _NAMES_ANSWER.search(span):
            objects += 1
            pair = _pair(span)
            if pair is None and _is_ambiguous(span):
                return None, False
        found = pair or found
        # An object that is none of ours may have one inside.
        opened = _OPENS.search(text, end if pair else start + 1)
    return (None if opened else found), False


def _is_ambiguous(span: str) -> bool:
    """Whether an object that is not valid JSON has two answers, of which one may be a quotation."""
    return len(_ANSWER_KEY.findall(span)) > 1 and _parsed(_with_backslashes(span)) is None


def _parsed(span: str) -> Any:
    """Returns the value of valid JSON, or None."""
    try:
        return json.loads(span, strict=False, **_NUMBERS)
    except (ValueError, RecursionError):
        return None


def _end_of_object(text: str, start: int) -> int:
    """Returns where the object ends that opens at `start`.

    Where it never ends, that is one past the text; where it goes too deep, the brace that does.
    """
    depth, quoted = 0, False
    for step in _STEP.finditer(text, start):
        match step[0]:
            case '"':
                quoted = not quoted
            case "{" if not quoted:
                depth += 1
                if depth > _DEEPEST:
                    return step.end()
            case "}" if not quoted:
                depth -= 1
                if not depth:
                    return step.end()
    return len(text) + 1


def _pair(span: str) -> tuple[str, str] | None:
    """Returns (rationale, answer) of one object, or None if it has not both."""
    span = _with_backslashes(span)
    value = _parsed(span)
    if value is None and len(_ANSWER_KEY.findall(span)) == 1:
        value = _repaired(span)
    if not isinstance(value, Mapping):
        return None
    named = {str(key).strip().casefold(): content for key, content in value.items()}
    rationale = next((named[name] for name in _RATIONALES if name in named), None)
    answer = next((named[name] for name in _ANSWERS if name in named), None)
    if isinstance(rationale, list) and all(isinstance(step, str) for step in rationale):
        rationale = "\n".join(rationale)
    if isinstance(answer, list) and all(isinstance(part, str) for part in answer):
        answer = "; ".join(answer)
    if type(rationale) is not str or not isinstance(answer, str):
        return None
    answer = answer if isinstance(answer, JsonNumber) else whole_characters(answer).strip()
    return whole_characters(rationale).strip(), answer


def _repaired(span: str) -> Any:
    """Returns what `json_repair` makes of an object that `json` refuses, or None."""
    if len(span) > _LONGEST:
        return None
    import json_repair

    try:
        value = json_repair.loads(span, skip_json_loads=True)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    # It reads "answer": 12 or 13 as 12; what is written there is for the parser of answers.
    bare = _BARE_ANSWER.search(span)
    return {
        key: _bare(bare[1], content) if bare and isinstance(content, int | float) else content
        for key, content in value.items()
    }


def _bare(written: str, content: Any) -> Any:
    """Returns an answer without quotation marks as it is written; true and false are none."""
    if isinstance(content, bool):
        return content
    written = _NEXT_KEY.split(written, maxsplit=1)[0].rstrip(" \t,")
    return JsonNumber(written) if written == str(content) else written


def _with_backslashes(span: str) -> str:
    r"""Returns an object in which a single backslash before LaTeX is two: \frac, \sqrt, \(."""

    def double(escape: re.Match[str]) -> str:
        written, word = escape[0], escape[1]
        if word is None and written[1] == "'":
            return "'"
        if word is None:
            is_json = written[1] in '"\\/' or written.startswith("\\u")
        elif word in _BETWEEN_SIGNS:
            is_json = span[max(0, escape.start() - 1) : escape.start()] not in _SIGNS
        else:
            is_json = word[0] in _LATEX and word not in _LATEX[word[0]]
        return written if is_json else "\\" + written

    return _ESCAPE.sub(double, span)
