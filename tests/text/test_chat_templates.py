"""Chat templates: what they must write, how they are repaired, and what they may not do."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.text import prompts, tokenizer
from bridge_jax.text.chat import Chat, UnwrittenError, default_template
from bridge_jax.text.templates import compile_template
from tests.text.test_tokenizer_kinds import byte_level_bpe, write_gguf
from tests.tiny import CHAT_TEMPLATE

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "  How many pens\n\tare 7 x 12?\n"}
REPLY = {"role": "assistant", "content": "84"}
AGAIN = {"role": "user", "content": "And 8?"}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
EXAMPLE = Example("e1", "How many pens are in 7 boxes of 12?", "84", "numeric")

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARTS_NO_SYSTEM = PARTS.replace(
    "{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"
)
THINKING = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


def render(source, *messages):
    return Chat(source, TOKENS).render(messages).text


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of the tiny checkpoint, whose template may be replaced."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def with_template(folder, source):
    (folder / "chat_template.jinja").write_text(source)
    return tokenizer.load(folder)


@pytest.mark.parametrize("source", [CHAT_TEMPLATE, NO_SYSTEM, PARTS, PARTS_NO_SYSTEM, THINKING])
def test_instruction_and_question_are_in_every_prompt(folder, source):
    tok = with_template(folder, source)
    seen = {}
    for mode in ("reason", "answer"):
        seen[mode] = tok.decode(tok.render_chat(prompts.messages(EXAMPLE, mode)))
        assert seen[mode].count(prompts.INSTRUCTIONS[mode]) == 1
        assert seen[mode].count(EXAMPLE.question) == 1
    assert seen["reason"] != seen["answer"]


def test_a_template_without_a_place_for_the_system_message():
    chat = Chat(NO_SYSTEM, TOKENS)
    (note,) = chat.notes
    assert "does not support a system message" in note
    merged = "<|im_start|>user\nBe brief.\n\n  How many pens\n\tare 7 x 12?\n<|im_end|>\n"
    assert chat.render([SYSTEM, USER]).text == merged + "<|im_start|>assistant\n"
    assert chat.render([SYSTEM, USER, REPLY, AGAIN]).text == (
        merged + "<|im_start|>assistant\n84<|im_end|>\n<|im_start|>user\nAnd 8?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert chat.render([USER]).text == render(CHAT_TEMPLATE, USER)
    assert [chat.render([SYSTEM, USER]).text[a:b] for a, b in chat.render([SYSTEM, USER])[1]] == [
        SYSTEM["content"],
        USER["content"].strip(),
    ]


def test_a_template_that_wants_parts_gets_them():
    for conversation in ([SYSTEM, USER], [USER], [SYSTEM, USER, REPLY, AGAIN]):
        assert render(PARTS, *conversation) == render(CHAT_TEMPLATE, *conversation)
    assert render(PARTS_NO_SYSTEM, SYSTEM, USER) == render(NO_SYSTEM, SYSTEM, USER)
    assert Chat(CHAT_TEMPLATE, TOKENS).repaired is False


def test_the_end_of_a_turn_is_found_where_contents_are_parts(folder):
    tok = with_template(folder, PARTS.replace("<|im_end|>", "<|pad|>"))
    assert tok.name(tok.end_id) == "<|pad|>"


@pytest.mark.parametrize(
    "content",
    [
        "m.content | tojson",
        "m.content | upper",
        "m.content | e",
        "m.content[:20]",
        "m.content | replace('x', '')",
        "m.content.split('7')[0]",
    ],
)
def test_a_changed_content_is_an_error(content):
    chat = Chat(CHAT_TEMPLATE.replace("message['content']", content.replace("m.", "message.")), {})
    asked = {"role": "user", "content": "Is \"7\" x 12 < 100 & 'more' than 80?"}
    with pytest.raises(UnwrittenError, match=r"does not render the (system|user) message verb"):
        chat.render([SYSTEM, asked])


@pytest.mark.parametrize(
    "content", ["m.content | trim", "m.content.strip()", "' ' + m.content", "m.content ~ '\n'"]
)
def test_white_space_may_change(content):
    source = CHAT_TEMPLATE.replace("message['content']", content.replace("m.", "message."))
    text = render(source, SYSTEM, USER)
    assert SYSTEM["content"] in text and USER["content"].strip() in text
    assert "<|im_end|>\n<|im_start|>assistant\n" in text


def test_an_empty_message_is_left_alone():
    source = CHAT_TEMPLATE.replace(
        "<|im_end|>", "{{ '' if message.content else 'NONE' }}<|im_end|>"
    )
    text = render(source, SYSTEM, {"role": "user", "content": ""})
    assert text.count("NONE") == 1 and "user\nNONE" in text


def test_what_an_assistant_thought_before_may_be_left_out():
    source = CHAT_TEMPLATE.replace(
        "message['content']",
        "message.content.split('</think>')[-1].lstrip('\n') if message.role == 'assistant' "
        "else message.content",
    )
    said = {"role": "assistant", "content": "<think>\nSo <|im_end|>\n</think>\n\n84"}
    assert render(source, USER, said, AGAIN) == render(source, USER, REPLY, AGAIN)
    assert "So" in render(CHAT_TEMPLATE, USER, said, AGAIN)  # where the template keeps it


def test_private_characters_of_a_message_are_kept():
    odd = {"role": "user", "content": "\ue000 7 \ue001 \ue002"}
    assert render(CHAT_TEMPLATE, odd) == render(CHAT_TEMPLATE, AGAIN).replace(
        AGAIN["content"], odd["content"]
    )


@pytest.mark.parametrize(
    "opening, closing",
    [
        ("<think>\n", "\n</think>\n\n"),
        ("<think>", "\n\n</think>\n\n"),
        ("[THINK]\n", "\n[/THINK]\n\n"),
        ("<seed:think>\n", "\n</seed:think>\n\n"),
        ("<think>\n\n</think>\n\n", ""),
        ("Thinking <b>hard</b>: ", ""),
    ],
)
def test_thoughts_that_a_prompt_opens_are_closed(opening, closing):
    source = CHAT_TEMPLATE.replace("assistant\n{% endif %}", f"assistant\n{opening}{{% endif %}}\n")
    chat = Chat(source, TOKENS)
    prompt = chat.render([SYSTEM, USER]).text
    assert prompt == render(CHAT_TEMPLATE, SYSTEM, USER) + opening + closing
    assert [f"opens {opening.strip()}" in note for note in chat.notes] == [True] * bool(closing)
    # A finished conversation has no prompt at its end.
    assert chat.render([USER, REPLY], open_turn=False).text.endswith("84<|im_end|>\n")


@pytest.mark.parametrize("source", [NO_SYSTEM, PARTS, PARTS_NO_SYSTEM, THINKING])
def test_transformers_renders_the_exported_template_as_it_was_trained(folder, tmp_path, source):
    tok = with_template(folder, source)
    tok.save(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for chat in ([SYSTEM, USER], [USER], [SYSTEM, USER, REPLY, AGAIN]):
        text = saved.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        assert saved.encode(text, add_special_tokens=False) == tok.render_chat(chat)
    again = tokenizer.load(tmp_path / "saved")
    assert again.render_chat([SYSTEM, USER]) == tok.render_chat([SYSTEM, USER])
    assert again.end_ids == tok.end_ids


@pytest.mark.parametrize(
    "dated",
    [
        "{{ strftime_now('%d %b %Y') }}",
        "{% set now = strftime_now('%Y-%m-%d') %}{{ now }} {{ strftime_now('%d %b %Y') }}",
        "{{ date_string }}",
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d') %}{% endif %}"
        "{{ date_string }}",
        "{% macro head() %}{{ strftime_now('%d %b %Y') }}{% endmacro %}{{ head() }}",
    ],
)
def test_the_date_is_pinned_and_said(dated, tmp_path):
    chat = Chat(dated + CHAT_TEMPLATE, TOKENS)
    assert "26 Jul 2024<|im_start|>" in chat.render([USER]).text
    (note,) = chat.notes
    assert "26 Jul 2024" in note
    path = write_gguf(tmp_path / "a.gguf", byte_level_bpe("qwen2"), "qwen2", dated + CHAT_TEMPLATE)
    assert tokenizer.load(path).notes == [note]


def test_our_rendering_is_that_of_transformers(folder):
    source = (
        "{{- bos_token }}{%- set ns = namespace(n=0) -%}\n"
        "{% for message in messages %}\n"
        "    {%- if loop.first and not tools and documents is none %}{{ loop.length }}{% endif %}\n"
        "    {%- if message.role == 'assistant' %}{% generation %}{{ message.content }}"
        "{% endgeneration %}{% continue %}{% endif %}\n"
        "    {%- set ns.n = ns.n + 2 * 3 %}\n"
        "  {{ '<|im_start|>' + message['role'] ~ ns.n }}\n{{ message.content }}<|im_end|>\n"
        "{% endfor %}{{ {'a': '<é>', 'b': [1, none]} | tojson(indent=1) }}"
        "{% for role in messages | map(attribute='role') | unique %}{{ role | upper }}"
        "{% if loop.last %}.{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}\n"
    )
    tok = with_template(folder, source)
    theirs = AutoTokenizer.from_pretrained(folder)
    for chat in ([SYSTEM, USER], [USER, REPLY, AGAIN]):
        text = theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        assert tok._chat.render(chat).text == text
        assert tok.render_chat(chat) == theirs.encode(text, add_special_tokens=False)


NESTED = "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"
GROWING = "{% set n = namespace(x='xx') %}{% for i in range(60) %}BODY{% endfor %}{{ n.x }}"


@pytest.mark.parametrize(
    "source, message",
    [
        (NESTED, "takes too many steps"),
        ("{% for i in range(10 ** 12) %}x{% endfor %}", "Range too big"),
        ("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
            "{{ f(60) }}",
            "takes too many steps",
        ),
        ("{% for x in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}", "RecursionError"),
        ("{{ 'x' * 10 ** 10 }}", "10,000,000,000 characters"),
        ("{{ 10 ** (10 ** 9) }}", "characters long"),
        (GROWING.replace("BODY", "{% set n.x = n.x ~ n.x %}"), "writes more than"),
        (GROWING.replace("BODY", "{% set n.x = n.x + n.x %}"), "writes more than"),
        (GROWING.replace("BODY", "{% set n.x = [n.x, n.x] | join %}"), "writes more than"),
        (GROWING.replace("BODY", "{% set n.x = '%s%s' | format(n.x, n.x) %}"), "writes more than"),
        (GROWING.replace("BODY", "{% set n.x = n.x.replace('x', 'xx') %}"), "writes more than"),
        (
            GROWING.replace("BODY", "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}"),
            "writes more than",
        ),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ 1 % 0 }}", "ZeroDivisionError"),
        ("{{ 'a' + 1 }}", "TypeError"),
        ("{{ messages[9].content.x }}", "rejects the messages: list object has no element 9"),
        ("{{ raise_exception('no') }}", "rejects the messages: no"),
        ("{% include 'x' %}", "fails: TypeError"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),  # other words every time
    ],
)
def test_a_template_that_fails_or_has_no_end_is_an_error(source, message):
    with pytest.raises(UserError, match=r"the checkpoint's chat template (fails|rejects)") as error:
        render(source + CHAT_TEMPLATE, SYSTEM, USER)
    assert message in str(error.value)
    assert "fix it (chat_template.jinja" in str(error.value)


DEEP = (
    "{% set n = namespace(x=['x']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
)


@pytest.mark.parametrize(
    "source",
    [
        "{{ range(5)|slice(10**7)|list|length }}",
        "{{ 'a'|center(10**9)|length }}",
        "{{ ('%1000000000d'|format(1))|length }}",
        "{{ ('a\\n'*1000)|indent(10**6)|length }}",
        "{{ ('ab'*400000).join(['x']*1000)|length }}",
        "{{ (['x']*1000)|join('ab'*400000)|length }}",
        "{{ range(5)|batch(10**9, 'x')|list|length }}",
        "{{ ('a '*1000)|wordwrap(1, true, 'b'*100000)|length }}",
        "{{ ('a'*1000000)|wordwrap(1)|length }}",
        "{{ ('a'*1000)|replace('a', 'b'*100000)|length }}",
        "{{ ('a'*1000).replace('a', 'b'*100000)|length }}",
        "{{ 'a'.center(10**10) }}",
        "{{ 'a'.ljust(10**10) }}",
        "{{ 'a'.rjust(10**10) }}",
        "{{ 'a'.zfill(10**10) }}",
        "{{ '{:>10000000000}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 10**10) }}",
        "{{ '{a:>{b}}'.format_map({'a': 1, 'b': 10**10}) }}",
        "{{ ('{0}'*100000).format('x'*100000) }}",
        "{{ ('\\t'*1000).expandtabs(10**9) }}",
        "{{ '%*d' % (10**10, 1) }}",
        "{{ '%.9999999999f' % 1.0 }}",
        "{{ ('%(a)s'*10000)|format(a='x'*100000) }}",
        "{{ ['a', 'b']|map('center', 10**9)|list|length }}",
        "{{ [[1]]|tojson(indent=10**10) }}",
        "{{ 1.5|round(10**9, 'floor') }}",
        "{{ (1).to_bytes(10**10, 'big')|length }}",
        "{{ ('a'*100000).translate({97: 'x'*100000}) }}",
        "{{ 'a'.encode().center(10**10)|length }}",
        "{{ ([range(1000)|list] * 2000)|sum(start=[])|length }}",
        DEEP + "{{ n.x }}",
        DEEP + "{{ n.x | string | length }}",
        DEEP + "{{ n.x | tojson | length }}",
        DEEP + "{{ n.x | join | length }}",
        DEEP + "{{ ('a' ~ n.x) | length }}",
        DEEP + "{{ ('%s' % n.x) | length }}",
        DEEP + "{{ '{}'.format(n.x) | length }}",
    ],
)
def test_what_one_filter_or_method_would_write_is_bounded(source):
    with pytest.raises(UserError, match=r"writes more than .*; fix it \(chat_template\.jinja"):
        render(source + CHAT_TEMPLATE, SYSTEM, USER)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 'a' | center(5) }}{{ 'a\\nb' | indent(2) }}", "  a  a\n  b"),
        ("{{ '%5d|%s' | format(3, 'x') }}{{ '%s' % 7 }}{{ 7 % 4 }}", "    3|x73"),
        ("{{ range(3) | join('-') }}{{ messages | join(',', attribute='role') }}", "0-1-2user"),
        ("{{ range(5) | batch(2) | list }}", "[[0, 1], [2, 3], [4]]"),
        ("{{ range(5) | slice(2) | list }}", "[[0, 1, 2], [3, 4]]"),
        ("{{ '{:>3}{}'.format(1, 'b') }}{{ '-'.join(['a', 'b']) }}", "  1ba-b"),
        ("{{ [[1], [2, 3]] | sum(start=[0]) }}{{ [2, 3] | sum }}", "[0, 1, 2, 3]5"),
        ("{{ [{'a': 2}, {'a': 3}] | sum('a', 1) }}{{ [(1,), (2,)] | sum(start=()) }}", "6(1, 2)"),
        ("{{ (['ab', 'c'] | map('list') | sum(start=[])) | join }}", "abc"),
        ("{{ 'aa'.replace('a', 'b', 1) }}{{ 'aa' | replace('a', 'b', 1) }}", "baba"),
        ("{{ [1, 'a'] | tojson(indent=1) }}{{ missing | trim }}", '[\n 1,\n "a"\n]'),
        ("{{ messages | map(attribute='role') | map('center', 6) | join }}", " user "),
    ],
)
def test_filters_and_methods_write_what_they_do_elsewhere(source, text):
    assert compile_template(source, {})([USER], True) == text


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ x",
        "{% for %}",
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{{ 1 | none }}",
    ],
)
def test_a_template_that_is_no_template(source):
    with pytest.raises(UserError, match=r"(?s)not valid jinja2.*; fix it \(chat_template"):
        Chat(source, TOKENS)


def test_a_long_conversation_is_no_endless_one():
    turns = [{"role": r, "content": "word " * 500} for r in ("user", "assistant") * 40]
    source = CHAT_TEMPLATE.replace(
        "{{ message['content'] }}",
        "{% for c in message['content'].split('w') %}{{ '' if loop.first else 'w' }}{{ c }}"
        "{% endfor %}",
    )
    text = render(source, *turns)
    assert text == render(CHAT_TEMPLATE, *turns)
    assert text.count("word") == 80 * 500


@pytest.mark.parametrize(
    "named",
    [
        {"rag": "x", "tool_use": "y"},
        [{"name": "rag", "template": "x"}, {"name": "tool_use", "template": "y"}],
    ],
)
def test_templates_by_name_need_a_default(named):
    with pytest.raises(UserError, match=r"here: .* named rag, tool_use, and none is the default"):
        default_template(named, "here")
    if isinstance(named, dict):
        both = {**named, "default": "z"}
    else:
        both = [*named, {"name": "default", "template": "z"}]
    assert default_template(both, "here") == "z"


@pytest.mark.parametrize("bad", [None, "", {}, [], 7, ["x"], [{"name": "default"}], {"default": 3}])
def test_no_template(bad):
    with pytest.raises(UserError, match="here: no chat template"):
        default_template(bad, "here")


def test_a_checkpoint_whose_templates_have_names(folder, tmp_path):
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    entries = [{"name": "tool_use", "template": "y"}]
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"chat_template": entries}))
    with pytest.raises(UserError, match="named tool_use, and none is the default"):
        tokenizer.load(folder)
    entries.append({"name": "default", "template": NO_SYSTEM})
    file.write_text(json.dumps(settings | {"chat_template": entries}))
    tok = tokenizer.load(folder)
    tok.save(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert set(saved.chat_template) == {"default", "tool_use"}
    text = saved.apply_chat_template([SYSTEM, USER], add_generation_prompt=True, tokenize=False)
    assert saved.encode(text, add_special_tokens=False) == tok.render_chat([SYSTEM, USER])
