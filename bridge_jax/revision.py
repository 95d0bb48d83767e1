"""Finds the revision of this project if it is a checkout; imports only the standard library."""

import functools
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SECONDS = 10  # git may take this long


@functools.cache
def revision(root: Path = ROOT) -> str:
    """Returns "1234567890ab" or "1234567890ab with changes" for a checkout; else "".

    Args:
      root: the top of the checkout. A folder inside another checkout has no revision of its own.
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
    except (OSError, subprocess.SubprocessError):  # git is not installed, or refuses the folder.
        return ""
    return done.stdout.strip()
