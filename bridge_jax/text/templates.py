"""Chat templates as functions: jinja2 as transformers runs it, in a sandbox, and bounded.

A template comes with a checkpoint, so it is a stranger's program. It sees no file and no clock.
Loops and calls are counted, and so is the length of what they make: one that loops for hours, calls
itself, divides by zero or doubles a text is an error. What a filter or a method would write is
bounded before it runs (`template_sizes`).
"""

import datetime
import functools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import ext, nodes, sandbox, visitor

from bridge_jax.errors import UserError
from bridge_jax.text import template_sizes

# Some templates, Llama 3's for one, write the day they are rendered on; no prompt depends on that.
TODAY = datetime.datetime(2024, 7, 26)
DATE = TODAY.strftime("%d %b %Y")
_DATED = {"strftime_now", "date_string"}

Messages = Sequence[Mapping[str, Any]]
# (messages, whether the assistant's turn is opened after them) to text.
Template = Callable[[Messages, bool], str]

# A template takes some ten steps a message, and writes some hundred characters beside each.
_STEPS, _CHARACTERS = 20_000, 1_000_000
_COUNT, _LIMIT, _JOIN = "count_steps", "limit_size", "join_limited"  # filters that are put in

_SIZED = (str, bytes, list, tuple, dict)

WAY_OUT = "correct it (chat_template.jinja, or chat_template in tokenizer_config.json)"


class _TooMuch(jinja2.TemplateRuntimeError):
    """A template that runs too long or writes too much."""


def compile_template(source: str, tokens: Mapping[str, Any]) -> Template:
    """Returns a chat template as a function.

    Args:
      source: the template, in jinja2.
      tokens: its variables, such as {"bos_token": "<s>"}.

    Raises:
      UserError: the template is not valid jinja2; from the function: it fails, or refuses the
        messages.
    """
    env, one_at_a_time = _Environment(), threading.Lock()  # The environment counts the steps.
    try:
        template = env.from_string(_Bounded(env).visit(env.parse(source)))
    except Exception as error:  # Python's compiler has its own, for depth and size.
        raise UserError(f"the chat template is not valid jinja2: {error}; {WAY_OUT}") from error

    def render(messages: Messages, open_turn: bool) -> str:
        with one_at_a_time:
            return render_alone(messages, open_turn)

    def render_alone(messages: Messages, open_turn: bool) -> str:
        given = sum(len(str(message.get("content"))) for message in messages)
        env.start(_STEPS + given, _CHARACTERS + 10 * given)
        try:
            pieces = template.generate(
                **{"tools": None, "documents": None, "date_string": DATE, **tokens},
                messages=list(messages),
                add_generation_prompt=open_turn,
            )
            return "".join(env.limit_size(piece, keep=True) for piece in pieces)
        except Exception as error:  # It runs Python's own operators, which raise their own.
            raise UserError(f"the checkpoint's chat template {_what(error)}; {WAY_OUT}") from error

    return render


def _what(error: Exception) -> str:
    match error:
        case _TooMuch():
            return f"fails: {error}"
        case jinja2.TemplateError():
            return f"refuses the messages: {error}"
        case _:
            return f"fails: {type(error).__name__}: {error}"


def writes_date(source: str) -> bool:
    """Returns whether a valid template can write the date."""
    names = _Environment().parse(source).find_all(nodes.Name)
    return any(node.name in _DATED for node in names)


class _Generation(ext.Extension):
    """Reads `{% generation %}`, by which a template says what an assistant wrote."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Environment(sandbox.ImmutableSandboxedEnvironment):
    """The sandbox of transformers, with bounds."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self):
        # The optimizer would compute constants before anything is counted.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, ext.loopcontrols],
            optimized=False,
            finalize=self._check_weight,
        )
        self.globals |= {"raise_exception": _refuse, "strftime_now": TODAY.strftime}
        more = {"tojson": _to_json, _COUNT: self._count, _LIMIT: self.limit_size, _JOIN: self._join}
        self.filters |= more
        for name, size_of in template_sizes.FILTERS.items():
            self.filters[name] = self._bounded(self.filters[name], size_of)
        del self.globals["lipsum"], self.filters["random"]  # A prompt is the same every time.
        self.start(_STEPS, _CHARACTERS)

    def start(self, steps: int, characters: int) -> None:
        """Sets what a rendering may use."""
        self._steps, self._characters, self._written = steps, characters, 0

    def limit_size(self, value: Any, keep: bool = False) -> Any:
        """Returns `value`; raises if it is too long, or with what was kept before."""
        size = _length(value)
        if size + self._written > self._characters:
            raise _TooMuch(f"it writes more than {self._characters:,} characters")
        self._written += size * keep
        return value

    def call(__self, __context, __obj, *args, **kwargs):  # noqa: N805 - jinja2's signature
        __self._step(1)
        # jinja2 wraps `format`, and says what it wrapped.
        method = getattr(__obj, "__wrapped__", __obj)
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str | bytes | int) and name in template_sizes.METHODS:
            args = __self._listed(args)
            # In a loop jinja2 adds its own variables.
            said = {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars")}
            __self._check_size(template_sizes.METHODS[name](owner, *args, **said))
        return __self.limit_size(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and (type(left), type(right)) == (str, str):  # Nearly all of them.
            return self.limit_size(left + right)
        size = 0
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length(), right.bit_length()
            size = bits[0] * abs(right) if operator == "**" else sum(bits)
        elif operator == "*":
            size = _length(left) * right if isinstance(right, int) else _length(right) * left
        elif operator == "%" and isinstance(left, str | bytes):
            self._check_size(template_sizes.printf(left, right))
        if size > self._characters:
            raise _TooMuch(f"it computes something {size:,} characters long")
        return self.limit_size(super().call_binop(context, operator, left, right))

    def _bounded(self, function: Callable[..., Any], size_of: Callable[..., int]) -> Any:
        """Returns a filter that is refused what it would make too long."""
        own = int(hasattr(function, "jinja_pass_arg"))  # jinja2's argument comes first

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            args = (*args[:own], *self._listed(args[own:]))
            self._check_size(size_of(*args[own:], **kwargs))
            return function(*args, **kwargs)

        return bounded

    def _listed(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Returns arguments, those that can be read only once as lists."""
        return tuple(list(self._count(a)) if isinstance(a, Iterator) else a for a in args)

    def _check_size(self, size: int) -> None:
        if size > self._characters:
            raise _TooMuch(f"it writes more than {self._characters:,} characters")

    def _check_weight(self, value: Any) -> Any:
        self._check_size(template_sizes.weigh(value))
        return value

    def _step(self, count: int) -> None:
        self._steps -= count
        if self._steps < 0:
            raise _TooMuch("it takes too many steps, or has no end")

    def _count(self, values: Any) -> Iterable[Any]:
        """Returns what a loop goes over, counted."""
        try:
            self._step(len(values))
        except TypeError:
            return self._one_by_one(values)
        return values

    def _one_by_one(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._step(1)
            yield value

    def _join(self, values: list[Any]) -> str:
        self._check_weight(values)
        return self.limit_size("".join(map(str, values)))


class _Bounded(visitor.NodeTransformer):
    """Puts the bounds into a parsed template."""

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


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own escapes HTML.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
