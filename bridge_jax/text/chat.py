"""What a chat template decides: how a conversation reads, and which token ends a turn."""

from collections.abc import Callable, Mapping, Sequence

import jinja2
from jinja2 import sandbox

from bridge_jax.errors import UserError

Messages = Sequence[dict[str, str]]
# (messages, whether the assistant's turn is opened after them) to text.
Template = Callable[[Messages, bool], str]

# Stands for an assistant's message: one word, so that no template trims or splits it.
_ANSWER = "fourscore"


def compile_template(source: str, tokens: dict[str, str]) -> Template:
    """Returns a jinja2 chat template as a function, run in jinja2's sandbox as transformers does.

    Args:
      source: the template.
      tokens: its variables, such as {"bos_token": "<s>"}.

    Raises:
      UserError: the template is not valid jinja2.
    """

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    env = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    env.globals["raise_exception"] = raise_exception
    try:
        template = env.from_string(source)
    except jinja2.TemplateError as error:
        raise UserError(f"the chat template is not valid jinja2: {error}") from error

    def render(messages: Messages, open_turn: bool) -> str:
        return template.render(
            messages=list(messages),
            add_generation_prompt=open_turn,
            tools=None,
            documents=None,
            **tokens,
        )

    return render


def render_prompt(template: Template, messages: Messages) -> str:
    """Returns the text of the messages, up to where the assistant begins to write.

    The templates of Gemma 1 and 2 and of early Mistral refuse a system message; then it heads the
    user's, an empty line between them, where Gemma 3's template puts it.

    Raises:
      UserError: the template refuses the messages.
    """
    try:
        try:
            return template(messages, True)
        except jinja2.TemplateError:
            if [message["role"] for message in messages[:2]] != ["system", "user"]:
                raise
            system, user, *rest = messages
            merged = {**user, "content": f"{system['content']}\n\n{user['content']}"}
            return template([merged, *rest], True)
    except jinja2.TemplateError as error:
        raise UserError(f"the checkpoint's chat template refuses the messages: {error}") from error


def end_of_turn(
    template: Template, encode: Callable[[str], list[int]], markers: Mapping[int, str]
) -> int | None:
    """Returns the first marker that the template writes after an assistant's message.

    It is often another token than `eos`: `<end_of_turn>` in Gemma, `<|eot_id|>` in Llama 3.

    Args:
      template: the chat template.
      encode: text to ids, markers to single ones.
      markers: the added tokens, id to text. Those of white space alone, as Gemma has, do not count.

    Returns:
      Its id; None where the template ends a turn without a marker.
    """
    turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = template(turn, False)
    except jinja2.TemplateError:
        return None
    _, found, tail = text.rpartition(_ANSWER)
    if not found:
        return None
    marks = {i for i, marker in markers.items() if marker.strip("▁ \t\r\n")}
    return next((i for i in encode(tail) if i in marks), None)
