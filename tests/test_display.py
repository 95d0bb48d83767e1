"""What others wrote is shown as it is: it is no markup, steers no terminal and is no formula."""

import ast
import csv
import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from bridge_jax import display

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m\x90q\x9c", r"\x9b31m\x90q\x9c"),  # C1: an escape in one byte
        ("50%\rdone", r"50%\rdone"),
        ("a\b\b\x00\x7f\x0b\x0c", r"a\x08\x08\x00\x7f\x0b\x0c"),
        ("abc\u202egnp.exe\u2066x\u2069", r"abc\u202egnp.exe\u2066x\u2069"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("half \ud83d", r"half \ud83d"),
        ("a\r\nb\n\tc", "a\nb\n\tc"),
        ("Größe 5 µg, ١٢٣, 👩\u200d🔬, \u200fשלום", "Größe 5 µg, ١٢٣, 👩\u200d🔬, \u200fשלום"),
        (ValueError("[/b] \x1b"), r"[/b] \x1b"),
    ],
)
def test_what_would_steer_a_terminal_is_written_out(written, expected):
    assert display.plain(written) == expected
    assert display.plain(expected) == expected


def test_a_name_stays_in_its_line():
    assert display.line("run\nerror: paid\t$5\r\n") == r"run\nerror: paid\t$5\n"


def printed(*parts, width=60, terminal=False):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    display.say(console, *parts)
    return out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "[/b]",
        "[/INST]",
        "[bold]x[/bold]",
        "[link=file:///x]y[/link]",
        ":bug: \\[x]",
        "[red]",
        "[[/]",
    ],
)
def test_no_markup_is_read(text):
    assert printed(f"error: {text}") == f"error: {text}\n"
    out = io.StringIO()
    table = Table(box=None, pad_edge=False)
    table.add_column(display.cell(text), no_wrap=True)
    table.add_row(display.cell(text))
    Console(file=out, width=60).print(table)
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [text, text]


def test_on_a_terminal_the_only_escapes_are_ours():
    out = printed(("name\x1b[2J", "bold"), ": \x1b]52;c;eA==\x07", terminal=True)
    assert out == "name\\x1b[2J: \\x1b]52;c;eA==\\x07\n"  # Without colors there are none.
    assert len(printed("x" * 500).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=1+1", "'=1+1"),
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", r"\r=1"),
        ("\n=1", "'\n=1"),
        (" =1", "' =1"),
        ("＝1", "'＝1"),
        ("-", "'-"),
        ("-5", "-5"),
        ("+5.25", "+5.25"),
        ("-1e-05", "-1e-05"),
        ("0.000370000", "0.000370000"),
        ("a=1", "a=1"),
        ("", ""),
        ("x\x1b[2J", r"x\x1b[2J"),
        (-5, -5),
        (-0.5, -0.5),
        (None, None),
    ],
)
def test_no_cell_of_a_csv_is_a_formula(value, expected):
    assert display.csv_value(value) == expected
    assert type(display.csv_value(value)) is type(expected)
    out = io.StringIO()
    csv.writer(out).writerow([display.csv_value(value)])
    assert next(csv.reader([out.getvalue()])) == ["" if value is None else str(expected)]


def test_a_long_text_is_soon_read():
    for sign in "\x1b [-=\n:'\u202e1":
        text = sign * 200_000
        assert len(display.plain(text)) >= len(text)
        assert len(str(display.csv_value(text))) >= len(text)
        assert len(display.markdown(text)) >= len(text)


def test_markdown_has_no_link_no_html_and_no_new_line():
    name = "a [b](http://x) <script> `c` *d* | e & f \\\n# g"
    assert display.markdown(name) == (
        r"a \[b\](http://x) \<script\> \`c\` \*d\* \| e \& f \\\\n# g"
    )
    assert display.markdown("gpt-4o_mini 2.5") == "gpt-4o_mini 2.5"


def test_log_lines_are_plain():
    formatter = display.PlainFormatter(logging.Formatter("%(levelname)s %(message)s"))
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        said = ("%s", ("the server says \x1b[31m",), sys.exc_info())
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, *said)
    text = formatter.format(record)
    assert text.startswith("WARNING the server says \\x1b[31m\nTraceback")
    assert text.endswith("ValueError: \\x1b[2J")


LAUNCHER = """
import sys
from absl import app, logging
from launch import overrides
from bridge_jax.errors import UserError

kind = sys.argv.pop()

def main(assignments):
    logging.warning("vendor: \\x1b[2J[/b]")
    import logging as standard
    standard.getLogger("bridge_jax.teachers").warning("batch: \\x9b2J")
    error = {"user": UserError("refused: \\x1b[2J [/INST]\\rgone"), "other": KeyError("\\x1b[2J")}
    raise error[kind]

overrides.run_main(main)
"""


@pytest.mark.parametrize(
    ("kind", "code", "last"),
    [("user", 2, r"error: refused: \x1b[2J [/INST]\rgone"), ("other", 1, r"KeyError: '\x1b[2J'")],
)
def test_what_a_launcher_prints_is_plain(kind, code, last):
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, kind], cwd=ROOT, capture_output=True, check=False
    )
    err = done.stderr.decode()
    assert done.returncode == code, err
    assert "\x1b" not in err and "\x9b" not in err and "\r" not in err
    assert "vendor: \\x1b[2J[/b]" in err and "batch: \\x9b2J" in err
    assert err.splitlines()[-1] == last


def test_all_that_is_not_constant_is_printed_here():
    """`console.print` and `print` are given constants and tables; `display` prints the rest."""
    found = []
    for path in sorted([*ROOT.glob("bridge_jax/**/*.py"), *ROOT.glob("launch/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and _is_print(node.func):
                words = ast.unparse(node.args[0])
                is_fine = isinstance(node.args[0], ast.Constant) or words in ALLOWED
                if not is_fine and path.name != "display.py":
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {words}")
    assert found == []


ALLOWED = {
    "table",
    "_bill(bill, run)",
    "layout(reply.text, complete=True)",
    "display.text((text, 'dim'))",
    "json.dumps(result, indent=2)",  # ASCII only, by default
    "json.dumps(planned.to_json(name), indent=2)",
    "json.dumps(seen.to_json(), indent=2)",
    "json.dumps(said)",  # True or false, to the process that asked
    "made",  # a table
    # Of this program's own texts.
    "usage()",
    "version()",
    "_answered(functools.partial(_help, main, group, takes_config))",
    "*lines(parser.parse_known_args(theirs[1:])[0].config, changes)",  # numbers, for scripts
}


def _is_print(function):
    if isinstance(function, ast.Attribute):
        return function.attr == "print"
    return isinstance(function, ast.Name) and function.id == "print"
