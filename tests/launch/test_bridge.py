"""The command `bridge`: its table, help and version without JAX, flag files, shipped configs."""

import importlib.util
import subprocess
import sys
import tomllib

import pytest

from bridge_jax.errors import UserError
from bridge_jax.revision import revision
from launch import bridge, help, settings
from launch.overrides import split
from tests.launch import commands
from tests.launch.tiny_run import ROOT

SLOW = ("jax", "flax", "numpy", "transformers")


def bridge_process(*arguments, cwd=ROOT):
    """Runs `bridge` in a Python of its own; returns (code, stdout, stderr, slow modules)."""
    code = (
        "import atexit, sys; sys.argv = ['bridge', *sys.argv[1:]];"
        f"atexit.register(lambda: print('LOADED', *({set(SLOW)!r} & set(sys.modules))));"
        "from launch.bridge import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "80"},
    )
    out, _, loaded = done.stdout.rpartition("LOADED")
    return done.returncode, out, done.stderr, loaded.split()


def test_every_command_is_a_module_that_is_there():
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["scripts"] == {"bridge": "launch.bridge:main"}
    for name in bridge.COMMANDS:
        assert importlib.util.find_spec(f"launch.{name}"), name


def test_the_version_has_the_revision_of_a_checkout(tmp_path):
    code, out, err, loaded = bridge_process("--version")
    assert (code, loaded) == (0, []), err
    assert out.startswith("bridge-jax 0.1.0")
    assert revision() in out
    assert bridge_process("run", "--version")[1] == out
    assert revision(tmp_path) == ""


@pytest.mark.parametrize("name", bridge.COMMANDS)
def test_help_of_every_command_fits_80_columns_and_needs_no_jax(name):
    code, out, err, loaded = bridge_process(name, "--help")
    assert (code, err) == (0, "")
    assert "jax" not in loaded and "flax" not in loaded
    assert max(map(len, out.splitlines())) <= 80
    assert "--version" in out
    takes_config = name in ("run", "plan", "study", "data", "trim")
    assert ("--help=all" in out) == takes_config
    assert ("--overlay" in out) == takes_config


def test_help_of_all_has_every_field_in_80_columns():
    code, out, _, loaded = bridge_process("run", "--help=all")
    assert (code, loaded) == (0, [])
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    for flag in (
        "  --data.pool=0  (whole number, 0 or more)",
        "  --config.seed=0  (whole number, 0 or more)",
        "  --warmup.train.remat=full  (full | attention | dots | none)",
        "  --assistant.lora.rank=16  (whole number, 0 or more)",
    ):
        assert flag in lines, flag
    assert any("share of the pool, drawn at random" in line for line in lines)


def test_help_of_one_group_and_of_one_field():
    assert help.config("warmup").splitlines()[:3] == [
        "warmup: The assistant's label-only warm-up.",
        "  --warmup.train.*",
        "      how it is trained. See --help=warmup.train.",
    ]
    assert help.config("budget.usd") == (
        "  --budget.usd=1  (number, 0 or more)\n      US dollars at most."
    )
    assert help.config("seed") == help.config("config.seed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "error: unknown command rnu; did you mean bridge run?"),
        (["run", "--help=teachr"], "unknown config key 'teachr'; did you mean 'teacher'?"),
        (["chat", "--help=teacher"], "--help=teacher: this command takes no config"),
        (["run", "--pahse=all"], "Unknown command line flag 'pahse'"),
        (["run", "--config=quikstart", "--workdir=x"], "did you mean quickstart?"),
        (["run", "--config=../setup", "--workdir=x"], "no such file"),
        (["run", "--config=gone.py", "--workdir=x"], "error: --config=gone.py: no such file\n"),
        (["run", "--config=quickstart", "--workdir=x", "--budget.querys=3"], "'budget.queries'?"),
        (["run", "--config=quickstart", "--workdir=x", "runs/x"], "unexpected argument 'runs/x'"),
        (["run", "--flagfile=gone"], "gone"),
    ],
)
def test_mistakes_are_told_before_jax_is_imported(arguments, message):
    code, _, err, loaded = bridge_process(*arguments)
    assert code == 2
    assert message in err and "Traceback" not in err
    assert "jax" not in loaded


def test_a_shipped_config_has_a_bare_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, path in {
        "quickstart": "quickstart.py", "studies/selection": "studies/selection.py",
    }.items():  # fmt: skip
        monkeypatch.setattr(settings, "_CONFIG", type("Flag", (), {"value": name}))
        assert settings.file() == ROOT / "configs" / path
    # A file of the user comes first.
    (tmp_path / "quickstart").write_text("")
    monkeypatch.setattr(settings, "_CONFIG", type("Flag", (), {"value": "quickstart"}))
    assert settings.file().resolve() == tmp_path / "quickstart"
    monkeypatch.setattr(settings, "_CONFIG", type("Flag", (), {"value": "studies/selecton"}))
    with pytest.raises(UserError, match=r"did you mean studies/selection\?"):
        settings.file()


def test_a_flag_file_may_have_fields_of_the_config(tmp_path, tiny_config):
    more = tmp_path / "more.txt"
    more.write_text("--config.seed=5\n")
    flagfile = tmp_path / "flags.txt"
    flagfile.write_text(
        f"# A comment.\n--config={tiny_config}\n\n--budget.queries=30\n--flagfile={more}\n"
        "--dry_run\n--config.method=direct\n--selection.strategy=random\n--stop_after=teacher\n"
    )
    overlay = tmp_path / "my.toml"
    overlay.write_text("seed = 7\nbudget.queries = 4\nbudget.usd = 3.5\n")
    how = [f"--flagfile={flagfile}", f"--overlay={overlay}", "--budget.queries=6"]
    code, out, err = commands.run("launch.run", *how, f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    assert ": 6 queries at first" in out and not (tmp_path / "run").exists()


def test_assignments_keep_their_order():
    theirs, ours = split(["launch.run", "--config=a.py", "--config.seed=1", "--data.path", "x.y"])
    assert theirs == ["launch.run", "--config=a.py"]
    assert ours == ["seed=1", "data.path=x.y"]
