"""Compiles chat templates to functions: jinja2 as transformers runs it, in a sandbox with limits.

A template comes with a checkpoint, so it is untrusted code. It cannot read files or the clock. The
steps of loops and calls are counted, and the length of every value is limited: a template that
loops for hours, calls itself, divides by zero or doubles a text is an error. For filters and
methods, an upper bound of the output size is computed before they run.
"""

import datetime
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import ext, filters, nodes, sandbox, visitor

from bridge_jax.errors import UserError

# Some templates, such as Llama 3's, write today's date; it is fixed, so that prompts never change.
TODAY = datetime.datetime(2024, 7, 26)
DATE = TODAY.strftime("%d %b %Y")
_DATED = {"strftime_now", "date_string"}

Messages = Sequence[Mapping[str, Any]]
# (messages, whether to open the assistant's turn after them) -> text.
Template = Callable[[Messages, bool], str]

# Templates take about ten steps a message, and add about a hundred characters to each.
_STEPS, _CHARACTERS = 20_000, 1_000_000
_COUNT, _LIMIT, _JOIN = "count_steps", "limit_size", "join_limited"  # filters that we insert

_SIZED = (str, bytes, list, tuple, dict)

HINT = "fix it (chat_template.jinja, or chat_template in tokenizer_config.json)"


class _TooMuch(jinja2.TemplateRuntimeError):
    """Raised if a template takes too many steps or writes too much."""


def compile_template(source: str, tokens: Mapping[str, Any]) -> Template:
    """Returns a chat template as a function, which only one thread at a time may call.

    Args:
      source: the template, in jinja2.
      tokens: its variables, such as {"bos_token": "<s>"}.

    Raises:
      UserError: the template is not valid jinja2. The function raises one if it fails, or refuses
        the messages.
    """
    env = _Environment()
    try:
        template = env.from_string(_Bounded(env).visit(env.parse(source)))
    except Exception as error:  # Python's compiler limits depth and size.
        raise UserError(f"the chat template is not valid jinja2: {error}; {HINT}") from error

    def render(messages: Messages, open_turn: bool) -> str:
        given = sum(len(str(message.get("content"))) for message in messages)
        env.start(_STEPS + given, _CHARACTERS + 10 * given)
        try:
            pieces = template.generate(
                **{"tools": None, "documents": None, "date_string": DATE, **tokens},
                messages=list(messages),
                add_generation_prompt=open_turn,
            )
            return "".join(env.limit_size(piece, keep=True) for piece in pieces)
        except Exception as error:  # Python's own operators raise their own errors.
            if isinstance(error, _TooMuch):
                fault = f"fails: {error}"
            elif isinstance(error, jinja2.TemplateError):
                fault = f"rejects the messages: {error}"
            else:
                fault = f"fails: {type(error).__name__}: {error}"
            raise UserError(f"the checkpoint's chat template {fault}; {HINT}") from error

    return render


def writes_date(source: str) -> bool:
    """Returns whether a valid template may write the date."""
    names = _Environment().parse(source).find_all(nodes.Name)
    return any(node.name in _DATED for node in names)


class _Generation(ext.Extension):
    """Parses `{% generation %}`, which marks the assistant's text, as a plain block."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Environment(sandbox.ImmutableSandboxedEnvironment):
    """The sandbox of transformers, with limits on steps and sizes."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self):
        # Not optimized: the optimizer would evaluate constants before anything is counted.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, ext.loopcontrols],
            optimized=False,
            finalize=self._check_weight,
        )
        self.globals |= {"raise_exception": _refuse, "strftime_now": TODAY.strftime}
        self.filters |= {"tojson": _to_json, "sum": self._sum}
        self.filters |= {_COUNT: self._count, _LIMIT: self.limit_size, _JOIN: self._join}
        for name, size_of in _FILTER_SIZES.items():
            self.filters[name] = self._bounded(self.filters[name], size_of)
        del self.globals["lipsum"], self.filters["random"]  # Prompts must be deterministic.
        self.start(_STEPS, _CHARACTERS)

    def start(self, steps: int, characters: int) -> None:
        """Resets the counters and sets the limits for one rendering."""
        self._steps, self._characters, self._written = steps, characters, 0

    def limit_size(self, value: Any, keep: bool = False) -> Any:
        """Returns `value`; raises if it is too long together with what was written before.

        With `keep`, it is counted as written.
        """
        size = _length(value)
        self._check_size(size + self._written)
        if keep:
            self._written += size
        return value

    def call(__self, __context, __obj, *args, **kwargs):  # noqa: N805 - jinja2's signature
        __self._step(1)
        # jinja2 wraps `format` and keeps the original as __wrapped__.
        method = getattr(__obj, "__wrapped__", __obj)
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str | bytes | int) and name in _METHOD_SIZES:
            args = __self._listed(args)
            # In a loop, jinja2 adds variables of its own.
            said = {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars")}
            __self._check_size(_METHOD_SIZES[name](owner, *args, **said))
        return __self.limit_size(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and (type(left), type(right)) == (str, str):  # The usual case.
            return self.limit_size(left + right)
        size = 0
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length(), right.bit_length()
            size = bits[0] * abs(right) if operator == "**" else sum(bits)
        elif operator == "*":
            size = _length(left) * right if isinstance(right, int) else _length(right) * left
        elif operator == "%" and isinstance(left, str | bytes):
            self._check_size(_format_size(left, *(right if isinstance(right, tuple) else [right])))
        if size > self._characters:
            raise _TooMuch(f"it computes something {size:,} characters long")
        return self.limit_size(super().call_binop(context, operator, left, right))

    def _bounded(self, function: Callable[..., Any], size_of: Callable[..., int]) -> Any:
        """Returns a filter that raises instead of writing something too long."""
        own = int(hasattr(function, "jinja_pass_arg"))  # jinja2's own argument comes first

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            args = (*args[:own], *self._listed(args[own:]))
            self._check_size(size_of(*args[own:], **kwargs))
            return function(*args, **kwargs)

        return bounded

    def _listed(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Returns the arguments with iterators as lists, since they can be read only once."""
        return tuple(list(self._count(a)) if isinstance(a, Iterator) else a for a in args)

    def _check_size(self, size: int) -> None:
        if size > self._characters:
            raise _TooMuch(f"it writes more than {self._characters:,} characters")

    def _check_weight(self, value: Any) -> Any:
        self._check_size(_weigh(value))
        return value

    def _step(self, count: int) -> None:
        self._steps -= count
        if self._steps < 0:
            raise _TooMuch("it takes too many steps, or has no end")

    def _count(self, values: Any) -> Iterable[Any]:
        """Returns the values that a loop iterates over, and counts each as a step."""
        try:
            self._step(len(values))
        except TypeError:
            return self._one_by_one(values)
        return values

    def _one_by_one(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._step(1)
            yield value

    def _sum(self, values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
        """Adds values like jinja2's filter, but lists in linear time, unlike Python's sum."""
        if attribute is not None:
            values = map(filters.make_attrgetter(self, attribute), values)
        parts = [start, *self._count(values)]
        if not isinstance(start, list | tuple):
            return sum(parts[1:], start)
        self._check_size(sum(map(_length, parts)))
        return type(start)(itertools.chain.from_iterable(parts))

    def _join(self, values: list[Any]) -> str:
        self._check_weight(values)
        return self.limit_size("".join(map(str, values)))


class _Bounded(visitor.NodeTransformer):
    """Inserts the counting and limiting filters into a parsed template."""

    # ruff: noqa: N802 - jinja2's names

    def __init__(self, env: _Environment):
        self._env = env

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._filter(node.iter, _COUNT)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filter(nodes.List(node.nodes, lineno=node.lineno), _JOIN)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self.generic_visit(node)
        return self._filter(node, _LIMIT)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        if node.filter is None:
            node.filter = self._filter(None, _LIMIT, node.lineno)
        return node

    def _filter(self, node: Any, name: str, line: int = 0) -> nodes.Filter:
        made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno if node else line)
        made.set_environment(self._env)
        return made


def _length(value: Any) -> int:
    return len(value) if isinstance(value, _SIZED) else 0


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    # jinja2's own filter escapes HTML.
    options = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


# Upper bounds, in characters, of the output of filters and methods. Each takes the arguments of the
# filter or method; for methods, the first is the string or number that it belongs to.

# A printf directive up to its conversion, or a str.format field up to the next brace.
_DIRECTIVE = re.compile(r"%(?:\([^()]*\))?[^A-Za-z%]*|\{[^{}]*\{?")
_DIGITS = re.compile(r"\d+")
_ENDLESS = 1 << 62  # More than any template may write.
_PARTS = 200_000  # Limits the walk through a value: shared parts can make it arbitrarily large.


def _weigh(value: Any, level: int = 0) -> int:
    """Returns approximately how many characters `value` takes when it is written.

    Args:
      value: a string, or lists and dicts of strings, whose parts may be shared.
      level: characters before each part, for every list or dict around it.
    """
    total, seen, rest = 0, 0, [(value, 0)]
    while rest:
        part, depth = rest.pop()
        seen += 1
        total += level * depth + 1
        if isinstance(part, str | bytes):
            total += len(part) - 1
        elif isinstance(part, Mapping):
            rest += [(each, depth + 1) for pair in part.items() for each in pair]
        elif isinstance(part, list | tuple | set | frozenset):
            rest += [(each, depth + 1) for each in part]
        elif isinstance(part, int):
            total += part.bit_length() // 3
        if seen + len(rest) > _PARTS:
            return _ENDLESS
    return total


def _padded_size(value, *options, **named):
    """Bounds a filter that writes `value` once, padded to at most its integer options."""
    options = (*options, *named.values())
    return _weigh([value, *options]) + sum(abs(o) for o in options if isinstance(o, int))


def _spread_size(value, *options, **named):
    """Bounds a filter that may write its options next to, or for, each character of `value`."""
    return (_weigh(value) + 1) * (1 + _padded_size("", *options, **named))


def _format_size(text: Any, *args: Any, **named: Any) -> int:
    """Bounds printf and str.format: each directive writes one value, padded to its width."""
    values = [*args, *named.values()]
    longest = max(map(_weigh, values), default=0)
    largest = max((abs(value) for value in values if isinstance(value, int)), default=0)
    size = len(text := str(text))
    for directive in _DIRECTIVE.findall(text):
        size += longest + directive.count("*") * largest
        if ":" in directive and directive.endswith("{"):  # width and precision from a value
            size += 2 * largest
        for digits in _DIGITS.findall(directive):
            size += int(digits) if len(digits) < 18 else _ENDLESS
    return size


def _replace_size(text: Any, old: Any, new: Any, count: int | None = None) -> int:
    if not isinstance(text, bytes):
        text, old, new = str(text), str(old), str(new)
    times = text.count(old)
    if count is not None and count >= 0:
        times = min(times, count)
    return len(text) + times * len(new)


def _join_size(values, by="", *_, **__):
    return _weigh(values) + len(str(by)) * len(values)


def _json_size(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    level = len(indent) if isinstance(indent, str) else indent or 0
    return _weigh(value, level + sum(map(len, separators or ())))


_PADDED_FILTERS = (
    "batch", "capitalize", "center", "e", "escape", "forceescape", "lower", "pprint", "round",
    "safe", "slice", "string", "striptags", "title", "trim", "truncate", "upper", "urlencode",
    "wordcount", "xmlattr",
)  # fmt: skip
_FILTER_SIZES: dict[str, Callable[..., int]] = {
    **dict.fromkeys(_PADDED_FILTERS, _padded_size),
    **dict.fromkeys(("indent", "urlize", "wordwrap"), _spread_size),
    "format": _format_size,
    "join": _join_size,
    "replace": _replace_size,
    "tojson": _json_size,
}
_METHOD_SIZES: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "to_bytes", "zfill"), _padded_size),
    **dict.fromkeys(("expandtabs", "translate"), _spread_size),
    "format": _format_size,
    "format_map": lambda text, values: _format_size(text, *values.values()),
    "join": lambda by, values: _join_size(values, by),
    "replace": _replace_size,
}
