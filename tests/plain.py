"""Reference predictions of a model: texts are not packed, each is a row of its own.

All rows are of one length, so that one program is traced and compiled for them. Attention is
causal: what fills a row up after its text changes nothing before.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bridge_jax.models import decoder
from bridge_jax.text.prompts import TrainingSequence


def rows(texts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (tokens, positions, segments), each int32[B, S]; S is the longest text's length."""
    tokens, segments = np.zeros((2, len(texts), max(map(len, texts))), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)], segments[row, : len(text)] = text, 1
    return tokens, np.zeros_like(tokens) + np.arange(tokens.shape[1], dtype=np.int32), segments


@functools.partial(jax.jit, static_argnums=(0, 3))
def hidden_and_logprobs(config: Any, params: Any, texts: Any, temperature: float = 1.0):
    """Returns f[B, S, D] and f32[B, S, V] of `rows`, from the whole softmax."""
    hidden = decoder.hidden_states(config, params, *texts)
    logits = decoder.output_head(config, params).logits(hidden)
    return hidden, jax.nn.log_softmax(logits / temperature)


def logprobs(
    config: Any, params: Any, sequences: Sequence[TrainingSequence], temperature: float = 1.0
) -> list:
    """Returns f32[T, V] of each sequence, at its targets; numpy unless `params` are traced."""
    texts = rows([s.prompt + s.rationale + s.answer for s in sequences])
    found = hidden_and_logprobs(config, params, texts, temperature)[1]
    if not isinstance(found, jax.core.Tracer):
        found = np.asarray(found)
    starts = [len(s.prompt) - 1 for s in sequences]
    return [row[at : at + s.targets] for row, at, s in zip(found, starts, sequences)]


def nll(config: Any, params: Any, sequences: Sequence[TrainingSequence]) -> list[np.ndarray]:
    """Returns f32[T] of each sequence: its targets' negative log-probabilities."""
    told = [s.rationale + s.answer for s in sequences]
    found = logprobs(config, params, sequences)
    return [-each[np.arange(len(ids)), ids] for each, ids in zip(found, told)]
