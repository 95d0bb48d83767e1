import functools
import pickle

import fake_run
import pytest

from bridge_jax.report import figures

FIGURES = ("accuracy", "budgets", "curve", "difficulties", "domains", "embedding_map")


@pytest.fixture(scope="session", autouse=True)
def drawn_once():
    """Draws each figure once: the same numbers give the same bytes, and most runs have the same."""

    def kept(draw):
        found = {}

        @functools.wraps(draw)
        def drawn(*args, **kwargs):
            key = pickle.dumps((args, kwargs))
            if key not in found:
                found[key] = draw(*args, **kwargs)
            return found[key]

        return drawn

    with pytest.MonkeyPatch.context() as patch:
        for name in FIGURES:
            patch.setattr(figures, name, kept(getattr(figures, name)))
        yield


@pytest.fixture
def workdir(tmp_path):
    fake_run.write(tmp_path / "run")
    return tmp_path / "run"
