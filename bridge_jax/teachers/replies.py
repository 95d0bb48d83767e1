r"""Reads a teacher's replies, and decides which rationales are worth learning from.

A reply is text with an answer line, or JSON with a rationale and an answer. Models write JSON with
thoughts before it, code fences around it, LaTeX inside it and small mistakes of grammar, and each
of these replies is paid. So thoughts are dropped first, LaTeX gets its backslashes back, and
`json_repair` reads what `json` refuses. An object that never ends was cut off and is not read: its
answer would be half of one. Reading takes time linear in the length of the reply, and no recursion.

A rationale is kept if its reply was whole, its answer is the gold one, its length is within the
limits, and, where several replies were paid for, enough of them agree (self-consistency, Wang et
al., 2203.11171). While none is kept, `resample` asks for further ones.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from bridge_jax.data.answers import (
    answer_in_recorded_text,
    is_correct,
    parse_answer,
    split_completion,
    verdict,
)
from bridge_jax.data.example import Example
from bridge_jax.data.formats import WrittenFloat
from bridge_jax.ledger.requests import Failure, TeacherReply, TeacherRequest
from bridge_jax.text.markers import whole_characters

# Asks requests, given whether they may be left out where a cap leaves no room.
Ask = Callable[[Sequence[TeacherRequest], bool], Sequence[TeacherReply | Failure]]

# In OpenAI's `strict` subset of JSON schema, which Gemini reads too. The rationale comes first:
# the answer can build on text that the model wrote before it.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"rationale": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["rationale", "answer"],
    "additionalProperties": False,
}
SCHEMA_BYTES = len(json.dumps(SCHEMA))


class JsonNumber(str):
    """A number of JSON as it is written: with a decimal point, even if the task has a comma."""


# Tags around thoughts: of DeepSeek and Qwen, Magistral, Kimi, and those that prompts ask for.
_THOUGHT = re.compile(
    r"<(?P<shut>/?)(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)[ ]?>"
    r"|\[(?P<bracket>/?)THINK\]|◁(?P<triangle>/?)think▷|<\|(?:begin|(?P<end>end))_of_thought\|>"
    r"|<\|channel\|>(?:analysis|commentary|(?P<final>final))[^<]{0,99}<\|message\|>",
    re.IGNORECASE,
)
# The model's end of turn, where a server leaves it in, and closing tags at the very end.
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
_LATEX = re.compile(
    "tag|tan|tanh|tau|tbinom|text|textbf|textit|textnormal|textrm|textsc|textsf|textstyle|texttt"
    "|textup|tfrac|therefore|theta|thickapprox|thicksim|tilde|times|tiny|to|top|triangle"
    "|triangleleft|triangleq|triangleright|twoheadrightarrow"
    "|rVert|rangle|rarr|rbrace|rbrack|rceil|real|ref|rfloor|rho|right|rightarrow"
    "|rightharpoonup|rightleftharpoons|rightmargin|rm|rtimes|rule|rvert"
    "|nLeftarrow|nRightarrow|nVdash|nabla|natural|nearrow|neg|neq|newcommand|newline|nexists|ngeq"
    "|nleq|nmid|nolimits|nonumber|normalsize|not|notin|nparallel|nprec|nrightarrow|nsim|nsubset"
    "|nsubseteq|nsucc|nwarrow"
)
# These are also words that begin a line; between signs of mathematics they are LaTeX.
_SIGNS = tuple(" $({=+-")
_BETWEEN_SIGNS = {"ne", "ni", "nu"}


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
    """Returns a reply without the thoughts of its model.

    Thoughts stand between tags such as `<think>` and `</think>`. Many chat templates open the tag
    themselves, so a reply may begin with thoughts and hold the closing tag alone. Thoughts that
    never end go on to the end of the reply.
    """
    text = text.rstrip()
    for _ in range(3):
        text = _TRAILING.sub("", text).rstrip()
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
            is_json = pair or _parsed(_with_backslashes(span)) is not None
            if not is_json and len(_ANSWER_KEY.findall(span)) > 1:
                return None, False  # One of the two answers may be a quotation.
        found = pair or found
        # An object that is none of ours may have one inside.
        opened = _OPENS.search(text, end if pair else start + 1)
    return (None if opened else found), False


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
        if step[0] == '"':
            quoted = not quoted
        elif step[0] in ("{", "}") and not quoted:
            depth += 1 if step[0] == "{" else -1
            if depth in (0, _DEEPEST + 1):
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
            is_json = word[0] in "trn" and not _LATEX.fullmatch(word)
        return written if is_json else "\\" + written

    return _ESCAPE.sub(double, span)


_NO_ANSWER = {
    "length": "cut off at {}",
    "refused": "refused",
    "empty": "an empty reply",
    "malformed": "no rationale and answer in the reply",
}


@dataclasses.dataclass(frozen=True)
class Rules:
    """The conditions on which a rationale is kept.

    Attributes:
      count_tokens: counts the tokens of a rationale.
      keep_wrong: whether rationales whose answer is not the gold one are kept.
      min_tokens, max_tokens: of the rationale; a maximum of 0 is none.
      samples: paid replies to each question.
      min_agreement: the lowest share of the samples that gives the same answer.
      limits: the names of the settings of both lengths, for messages.
      longest: the setting at which a reply is cut off, likewise.
    """

    count_tokens: Callable[[str], int]
    keep_wrong: bool = False
    min_tokens: int = 0
    max_tokens: int = 0
    samples: int = 1
    min_agreement: float = 0.0
    limits: tuple[str, str] = ("teacher.min_rationale_tokens", "teacher.max_rationale_tokens")
    longest: str = "teacher.max_output_tokens"


@dataclasses.dataclass(frozen=True)
class Reading:
    """The content of one reply, and the reason to reject it (None: it is worth learning from)."""

    rationale: str
    answer: str | None
    reason: str | None


def read(example: Example, outcome: TeacherReply | Failure, rules: Rules) -> Reading:
    """Reads one reply."""
    if isinstance(outcome, Failure):
        return Reading("", None, outcome.reason)
    if outcome.finish != "stop":
        return Reading("", None, _NO_ANSWER[outcome.finish].format(rules.longest))
    if found := read_json(outcome.text):
        rationale, written = found
        if isinstance(written, JsonNumber) and math.isfinite(float(written)):
            written = WrittenFloat(written)  # Its decimal mark is a point in every task.
        answer = parse_answer(written, example)
    else:
        rationale, answer = answer_in_recorded_text(without_thoughts(outcome.text), example)
    return Reading(rationale, answer, _reason(example, rationale, answer, rules))


def _reason(example: Example, rationale: str, answer: str | None, rules: Rules) -> str | None:
    if not rationale.strip():
        return "no rationale"
    # Without a gold answer there is none to learn instead.
    if answer is None and (example.answer is None or not rules.keep_wrong):
        return "no answer that parses"
    if not rules.keep_wrong and not is_correct(answer, example):
        return f"the answer {answer!r} is not the gold one"
    tokens = rules.count_tokens(rationale)
    lower, upper = rules.limits
    if tokens < rules.min_tokens:
        return f"{tokens} tokens, below {lower}={rules.min_tokens}"
    if rules.max_tokens and tokens > rules.max_tokens:
        return f"{tokens} tokens, above {upper}={rules.max_tokens}"
    return None


def is_good(example: Example, outcomes: Sequence[TeacherReply | Failure], rules: Rules) -> bool:
    """Returns whether one of the replies is worth learning from."""
    return any(read(example, outcome, rules).reason is None for outcome in outcomes)


def annotation(
    example: Example, outcomes: Sequence[TeacherReply | Failure], rules: Rules
) -> dict[str, Any]:
    """Returns the row of `annotations.jsonl`: the first good rationale, or why there is none.

    Args:
      example: the question.
      outcomes: `rules.samples` of them, then those of further attempts.
      rules: the conditions on which a rationale is kept.
    """
    readings = [read(example, outcome, rules) for outcome in outcomes]
    answers = [reading.answer for reading in readings[: rules.samples]]
    # Without a good one, the row shows the first with an answer, or else with any text.
    readings.sort(key=lambda r: (r.reason is not None, r.answer is None, not r.rationale))
    best = readings[0]
    reason = "; ".join(dict.fromkeys(r.reason for r in readings if r.reason))
    row = {
        "id": example.id,
        "question": example.question,
        "rationale": best.rationale,
        "answer": best.answer,
        "gold": example.answer,
        "correct": verdict(best.answer, example),
        "kept": best.reason is None,
        "reason": None if best.reason is None else reason,
        "asked": len(outcomes),
    }
    if rules.samples > 1:
        row["agreement"] = answers.count(best.answer) / rules.samples if best.answer else 0.0
        if row["kept"] and row["agreement"] < rules.min_agreement:
            row["kept"] = False
            row["reason"] = (
                f"{answers.count(best.answer)} of {rules.samples} samples give this answer, below "
                f"teacher.min_agreement={rules.min_agreement}"
            )
    return row


def resample(
    requests: Sequence[TeacherRequest],
    samples: int,
    retries: int,
    is_good: Callable[[int, Sequence[TeacherReply | Failure]], bool],
    ask: Ask,
) -> list[list[TeacherReply | Failure]]:
    """Returns the outcomes of each request: those of its samples, then of its retries.

    Which requests are retried follows from the replies alone, so a run that is interrupted and
    repeated asks the same again, and finds it on the ledger.

    Args:
      requests: one per question.
      samples: replies to each question.
      retries: further ones at most, one after the other, while none is good.
      is_good: called with the index of a request and its outcomes so far.
      ask: sends requests and returns their outcomes.
    """
    first = [dataclasses.replace(r, sample=i) for r in requests for i in range(samples)]
    outcomes = ask(first, False)
    found = [list(outcomes[n * samples : (n + 1) * samples]) for n in range(len(requests))]
    for sample in range(samples, samples + retries):
        again = [n for n, outcomes in enumerate(found) if not is_good(n, outcomes)]
        if not again:
            break
        further = ask([dataclasses.replace(requests[n], sample=sample) for n in again], True)
        for n, outcome in zip(again, further):
            found[n].append(outcome)
    return found
