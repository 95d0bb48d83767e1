"""The flags that choose a config and change it: its file, overlays, and its fields.

Later ones win: the file comes first, then the overlays in their order, then the fields.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from bridge_jax.config.io import Change, read_overlay
from bridge_jax.errors import UserError, nearest

SHIPPED = Path(__file__).parents[1] / "configs"

_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "A Python file with get_config(), or get_study(); or the name of a shipped one, such as "
    "quickstart or studies/selection.",
)
_OVERLAY = flags.DEFINE_multi_string(
    "overlay",
    [],
    "A TOML or YAML file with fields of the config, whose values replace those of the file; may be "
    "given several times.",
)


def file() -> Path:
    """Returns the config's file.

    Raises:
      UserError: no config is named, or the file does not exist; the message may suggest the nearest
        shipped config.
    """
    if not (named := _CONFIG.value):
        raise UserError("--config: name a Python file, or a shipped config such as quickstart")
    given = Path(named)
    shipped = (SHIPPED / given).with_suffix(".py")
    if given.is_file():
        return given
    if not given.suffix and shipped.is_file() and shipped.is_relative_to(SHIPPED):
        return shipped
    meant = ""
    if not given.suffix:
        meant = f", and no config of this name is shipped; did you mean {_nearest(str(given))}?"
    raise UserError(f"--config={given}: no such file{meant}")


def is_given() -> bool:
    """Returns whether `--config` is given."""
    return bool(_CONFIG.value)


def changes(assignments: Sequence[str]) -> list[str | Change]:
    """Returns the changes to the config, in order: overlays, then `assignments`.

    Raises:
      UserError: an overlay cannot be read, or has a wrong value.
    """
    found: list[str | Change] = []
    for path in _OVERLAY.value:
        found += read_overlay(path)
    return [*found, *assignments]


def _nearest(name: str) -> str:
    paths = (path.relative_to(SHIPPED) for path in SHIPPED.rglob("*.py") if _is_config(path))
    return nearest(name, [path.with_suffix("").as_posix() for path in paths])


def _is_config(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return "def get_config(" in text or "def get_study(" in text
