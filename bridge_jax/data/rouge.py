"""ROUGE-L (Lin 2004), the score of free texts, by `tensorflow_text.metrics`."""

import contextlib
import os
import re
from typing import Any

from bridge_jax.errors import UserError

_MOST_WORDS = 2000
_NEEDED_FOR = "data.kind=text is scored by ROUGE-L, which"


def rouge_l(hypothesis: str, reference: str) -> float:
    """Returns the F-measure of two texts, 0 to 1: the harmonic mean of precision and recall.

    They are the longest common subsequence's share of the words of either. A word is a run of
    letters and digits, in any case. What is common is looked for in the first 2,000 words of each,
    for the time grows with the product; words after them count as not common.

    Raises:
      UserError: tensorflow-text is not installed.
    """
    words = [re.findall(r"\w+", text.casefold()) for text in (hypothesis, reference)]
    if not all(words):
        return 0.0
    tf, library = load_tensorflow_text(_NEEDED_FOR)
    compared = [text[:_MOST_WORDS] for text in words]
    f_measure, _, _ = library.metrics.rouge_l(*(tf.ragged.constant([text]) for text in compared))
    share = sum(map(len, compared)) / sum(map(len, words))
    return float(f_measure[0]) * share


def check() -> None:
    """Raises a `UserError` unless tensorflow-text is installed."""
    load_tensorflow_text(_NEEDED_FOR)


def load_tensorflow_text(needed_for: str) -> tuple[Any, Any]:
    """Returns the modules tensorflow and tensorflow_text; `needed_for` begins the error's message.

    Raises:
      UserError: tensorflow-text is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else it reports each absent GPU
    try:
        import tensorflow as tf  # pyright: ignore[reportMissingImports]
        import tensorflow_text  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError(
            f"{needed_for} needs the tensorflow-text package: pip install 'bridge-jax[tf-text]'"
        ) from None
    # TensorFlow would take the memory of the GPUs that JAX runs on.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf, tensorflow_text
