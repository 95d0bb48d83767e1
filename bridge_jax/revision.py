"""Tells the revision of this project, where it is a checkout; nothing else is imported for it."""

import functools
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SECONDS = 10  # that git may take


@functools.cache
def revision(root: Path = ROOT) -> str:
    """Returns "1234567890ab" or "1234567890ab with changes" of a checkout; "" of anything else.

    Args:
      root: the top of the checkout. A folder inside another one has no revision of its own.
    """
    if not (root / ".git").exists():
        return ""
    commit = _git(root, "rev-parse", "HEAD")
    if not re.fullmatch("[0-9a-f]{40,64}", commit):
        return ""
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit[:12] + (" with changes" if changed else "")


def _git(root: Path, *command: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *command],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):  # There is no git, or it refuses the folder.
        return ""
    return done.stdout.strip()
