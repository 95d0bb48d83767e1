r"""Reads a teacher's replies, and decides which rationales are worth learning from.

A reply is text with an answer line, or JSON with a rationale and an answer. Models write JSON with
thoughts before it, code fences around it, LaTeX inside it and small syntax errors, and each of
these replies is paid for. So thoughts are dropped first, LaTeX gets its backslashes back, and
`json_repair` reads what `json` rejects. An object that never ends was cut off and is not read: its
answer may be incomplete. Reading takes time linear in the reply's length, and does not recurse.

A rationale is kept if its reply was complete, its answer is the gold one, its length is within the
limits, and, if several replies were paid for, enough of them agree (self-consistency, Wang et al.,
2203.11171). `resample` asks for further replies while none is good.
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

# Sends requests and returns their outcomes. The flag says whether they may be skipped if a cap
# leaves no room.
Ask = Callable[[Sequence[TeacherRequest], bool], Sequence[TeacherReply | Failure]]

# In OpenAI's `strict` subset of JSON schema, which Gemini accepts too. The rationale comes first,
# so that the answer can build on it.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"rationale": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["rationale", "answer"],
    "additionalProperties": False,
}
SCHEMA_BYTES = len(json.dumps(SCHEMA))


class JsonNumber(str):
    """A JSON number as written: its decimal mark is a point, even if the task's is a comma."""


# Tags around thoughts: those of DeepSeek and Qwen, Magistral, Kimi, and those that prompts request.
_THOUGHT = re.compile(
    r"<(?P<shut>/?)(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)[ ]?>"
    r"|\[(?P<bracket>/?)THINK\]|◁(?P<triangle>/?)think▷|<\|(?:begin|(?P<end>end))_of_thought\|>"
    r"|<\|channel\|>(?:analysis|commentary|(?P<final>final))[^<]{0,99}<\|message\|>",
    re.IGNORECASE,
)
# End-of-turn tokens that a server has left in, and closing tags, at the very end.
_TRAILING = re.compile(
    r"(?:<\|(?:im_end|eot_id|endoftext|end|return)\|>|</(?:s|think|thinking)>|<end_of_turn>)\Z"
)

_RATIONALES, _ANSWERS = ("rationale", "reasoning", "explanation"), ("answer", "final_answer")
_OR_NAMES = "|".join(_RATIONALES + _ANSWERS)

_DEEPEST = 16  # Most levels of nesting in an object that is read.
_LONGEST = 200_000  # Most characters of an object to repair: `json_repair` takes 5 us for each.
_READINGS = 4  # The search for an object ends after reading this many times the reply's length.
_OBJECTS = 50  # Most objects with our names that are tried; if any object follows, none is read.

_STEP = re.compile(r'\\.|["{}]', re.DOTALL)
# Numbers keep all their digits, exactly as written.
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

# LaTeX commands that begin like a JSON escape. A backspace (\b) or form feed (\f) is never meant; a
# tab, carriage return or newline can be, so the commands with \t, \r and \n are listed.
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
# These can also be a newline and a letter; after one of these characters they are LaTeX.
_SIGNS = tuple(" $({=+-")
_BETWEEN_SIGNS = {"ne", "ni", "nu"}


def read_json(text: str) -> tuple[str, str] | None:
    """Returns (rationale, answer) of the last JSON object in `text` that has both.

    Thoughts before it are dropped. The object may be in a code fence or between sentences. Its keys
    may be in capitals, its answer a number or a list, its syntax slightly wrong.

    Returns:
      The answer is a `JsonNumber` if it is written as a number, without quotation marks. The result
      is None if there is no such object, or if a later object with these keys never ends.
    """
    return _read(without_thoughts(text))[0]


def finish_of(text: str) -> Literal["stop", "length", "malformed"]:
    """Returns how a reply that should be JSON ended, if the vendor did not report a cut.

    That is `length` if its JSON never ends, and `malformed` if it has neither a readable object nor
    words that announce an answer.
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
    """Returns a reply without the model's thoughts.

    Thoughts are enclosed in tags such as `<think>` and `</think>`. Many chat templates write the
    opening tag themselves, so a reply may begin with thoughts and have only the closing tag.
    Thoughts that are never closed extend to the end of the reply.
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
            # Either an extra quotation mark hides the end, or there is none.
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
                return None, False  # One of the several answers may be a quotation.
        found = pair or found
        # An object that is not one of ours may contain one.
        opened = _OPENS.search(text, end if pair else start + 1)
    return (None if opened else found), False


def _parsed(span: str) -> Any:
    """Returns the value of valid JSON; None for other text."""
    try:
        return json.loads(span, strict=False, **_NUMBERS)
    except (ValueError, RecursionError):
        return None


def _end_of_object(text: str, start: int) -> int:
    """Returns the end of the object that opens at `start`.

    If it never ends, that is `len(text) + 1`; if it is nested too deep, the end of the brace that
    exceeds the limit.
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
    """Returns (rationale, answer) of one object, or None if it does not have both."""
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
    """Returns what `json_repair` makes of an object that `json` rejects, or None."""
    if len(span) > _LONGEST:
        return None
    import json_repair

    try:
        value = json_repair.loads(span, skip_json_loads=True)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    # It reads "answer": 12 or 13 as 12; the text as written is left to the answer parser.
    bare = _BARE_ANSWER.search(span)
    return {
        key: _bare(bare[1], content) if bare and isinstance(content, int | float) else content
        for key, content in value.items()
    }


def _bare(written: str, content: Any) -> Any:
    """Returns an unquoted answer as it is written; true and false are left as booleans."""
    if isinstance(content, bool):
        return content
    written = _NEXT_KEY.split(written, maxsplit=1)[0].rstrip(" \t,")
    return JsonNumber(written) if written == str(content) else written


def _with_backslashes(span: str) -> str:
    r"""Returns an object with the single backslashes of LaTeX doubled: \frac, \sqrt, \(."""

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
    """The conditions for keeping a rationale.

    Attributes:
      count_tokens: counts the tokens of a rationale.
      keep_wrong: whether rationales whose answer is not the gold one are kept.
      min_tokens, max_tokens: limits on the rationale's length; a maximum of 0 means no limit.
      samples: number of paid replies per question.
      min_agreement: the smallest fraction of the samples that must give the kept answer.
      limits: the names of the settings for `min_tokens` and `max_tokens`, for messages.
      longest: the name of the setting that limits a reply's length, for messages.
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
    """The content of one reply, and the reason to reject it (None if it is worth learning from)."""

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
            written = WrittenFloat(written)  # JSON's decimal mark is a point, whatever the task's.
        answer = parse_answer(written, example)
    else:
        rationale, answer = answer_in_recorded_text(without_thoughts(outcome.text), example)
    return Reading(rationale, answer, _reason(example, rationale, answer, rules))


def _reason(example: Example, rationale: str, answer: str | None, rules: Rules) -> str | None:
    if not rationale.strip():
        return "no rationale"
    # With `keep_wrong` the gold answer is learned instead, if there is one.
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
      outcomes: the outcomes of the `rules.samples` samples, then those of the retries.
      rules: the conditions for keeping a rationale.
    """
    readings = [read(example, outcome, rules) for outcome in outcomes]
    answers = [reading.answer for reading in readings[: rules.samples]]
    # If none is good, the row shows the first with an answer, or else the first with any rationale.
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

    Which requests are retried depends only on the replies, so a run that is interrupted and
    repeated makes the same requests again, and finds the replies on the ledger.

    Args:
      requests: one per question.
      samples: number of replies to each question.
      retries: the most further replies, requested one at a time while none is good.
      is_good: whether one is good; called with the index of a request and its outcomes so far.
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
