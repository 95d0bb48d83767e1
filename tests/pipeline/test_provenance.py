"""What made a result: the revision, the versions, the machine; and nothing about who or where."""

import getpass
import platform
import subprocess

from bridge_jax.pipeline import provenance
from bridge_jax.revision import revision


def git(folder, *command):
    who = ("-c", "user.name=n", "-c", "user.email=e@example.com")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *command], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_revision_is_that_of_a_checkout_and_says_whether_it_was_changed(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert revision(tmp_path) == commit
    revision.cache_clear()
    (tmp_path / "b").write_text("not ours")
    assert revision(tmp_path) == commit
    revision.cache_clear()
    (tmp_path / "a").write_text("2")
    assert revision(tmp_path) == f"{commit} with changes"
    # What is installed inside somebody's checkout is not of its revision.
    (tmp_path / "site-packages").mkdir()
    assert revision(tmp_path / "site-packages") == ""


def test_what_runs_here_is_told_without_who_and_where():
    found = provenance.made_with()
    assert found["backend"] == "cpu" and found["devices"].endswith(" cpu")
    assert found["python"] == platform.python_version() and found["jax"]
    assert found["machine"].endswith(" cores")
    assert all(text.isprintable() for text in found.values())
    told = " ".join(found.values())
    assert platform.node() not in told and "/" not in found["machine"].replace("w/", "")
    assert getpass.getuser() not in found.values()


def test_values_that_differ_are_all_kept():
    found = provenance.merged([{"jax": "1", "numpy": "2"}, {"jax": ["1", "3"]}])
    assert found == {"jax": ["1", "3"], "numpy": ["2"]}
