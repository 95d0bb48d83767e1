"""The command `bridge`: `bridge run --config=quickstart` is the same as `python -m launch.run ...`.

bridge COMMAND [--help] [--version] ...
"""

import runpy
import sys

from bridge_jax import display
from bridge_jax.errors import nearest
from launch.overrides import version

# The modules of this folder that are commands, in the order of use.
COMMANDS = {
    "convert": "make the files of public data sets ready to read",
    "data": "look at your data, and write a config for it",
    "trim": "cut a model's vocabulary down to what your data needs",
    "plan": "memory, time and dollars before anything is run",
    "run": "distill: everything that a config says, and the report",
    "study": "many runs that answer a question",
    "report": "rebuild a report, or print what was paid",
    "export": "write a trained model as a Hugging Face folder, and push it",
    "predict": "answer the questions of a file",
    "chat": "ask a model in the terminal",
}


def main() -> None:
    """Runs the module that the first argument names, like `python -m`."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv = [f"launch.{name}", *rest]
        runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)
    elif name in ("-h", "--help", "help"):
        print(usage())
    elif name == "--version":
        print(version())
    else:
        display.print_error(
            f"error: unknown command {name}; did you mean bridge {nearest(name, COMMANDS)}? See "
            "bridge --help"
        )
        sys.exit(2)


def usage() -> str:
    """Returns the list of the commands."""
    lines = [f"  bridge {name:<8} {words}" for name, words in COMMANDS.items()]
    return "\n".join(
        [
            "Distills an expensive LLM into a small model that you own, within a budget.",
            "",
            *lines,
            "",
            "bridge COMMAND --help lists the flags of a command; bridge --version says which\n"
            "version this is. A first run, without a key or an accelerator:",
            "",
            "  bridge run --config=quickstart --workdir=runs/quickstart",
        ]
    )


if __name__ == "__main__":
    main()
