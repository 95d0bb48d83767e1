"""Measures how fast a pool is scored beside transformers: NLL and entropy of every answer.

python -m benchmarks.score --json        (long; --quick for a smoke run, --cases=30M for one case)

Ours is `selection.scores.score`, which also returns margins and embeddings. The cases:
- 30M, 135M: 16 sequences of 256 tokens, all but the first of them the answer.
- 1B (GPU): likewise, 8 sequences of 2,048.
- ragged-64, ragged-256: so many prompts of 32 to 512 tokens with answers of 1 to 8, with the 30M.
  Theirs are padded, in batches of 8 sorted by length, and compute the logits of all tokens; beside
  it those of the answers alone (`logits_to_keep`), and so in packed rows.
- memory: what one compiled program of ours takes besides its arguments, with a vocabulary of 150
  thousand tokens and with one of 8 thousand. Nothing is run.

The NLL and entropy of each answer, in nats a token, are compared.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import side_by_side
from benchmarks.result import BASE, spread
from benchmarks.side_by_side import DEVICE, Figures, Setup, Twins, Variant, Way, by_dtype, cut
from bridge_jax.config import SelectionConfig
from bridge_jax.models import costs, decoder, head
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.costs import Cost
from bridge_jax.selection.scores import score
from bridge_jax.text.packing import first_fit, pack
from bridge_jax.text.prompts import TrainingSequence

BATCH_TOKENS = SelectionConfig.batch_tokens
SIZES = {"30M": (16, 256), "135M": (16, 256), "1B": (8, 2048)}  # sequences and tokens
TOGETHER = 8  # of theirs, of up to 512 tokens: as many tokens as a batch of ours has


def ours(model: Twins, examples: Sequence[TrainingSequence]) -> np.ndarray:
    """Returns f32[2, N]: NLL and entropy of each answer, in nats a token."""
    found = score(model.config, model.params, examples, BATCH_TOKENS, 0, model.mesh)
    return np.stack([found.nll, found.entropy])


class Padded(NamedTuple):
    """A batch that is padded on the left, so that answers end together.

    Attributes:
      inputs: of transformers' model.
      targets: i64[B, T], the answers, padded on the left.
      weights: f32[B, T], 1 where there is a target.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    weights: torch.Tensor


def padded(examples: Sequence[TrainingSequence], only_answers: bool) -> Padded:
    """Returns a batch whose model computes logits for all tokens, or for the answers alone."""
    width, longest = (max(n) for n in zip(*((e.length, len(e.answer)) for e in examples)))
    ids, mask = torch.zeros(2, len(examples), width, dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, width - example.length :] = torch.tensor(example.prompt + example.answer)
        mask[row, width - example.length :] = 1
    lengths = torch.tensor([len(e.answer) for e in examples])
    weights = (torch.arange(longest) >= longest - lengths[:, None]).float()
    inputs: dict[str, Any] = {"input_ids": ids}
    if not mask.all():
        inputs |= {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    inputs = {name: value.to(DEVICE) for name, value in inputs.items()}
    if only_answers:
        inputs["logits_to_keep"] = longest + 1
    return Padded(inputs, ids[:, -longest:].to(DEVICE), weights.to(DEVICE))


def statistics(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns f32[2, ...]: NLL and entropy of predictions [..., V]."""
    logprobs = logits.float().log_softmax(-1)
    nll = -logprobs.gather(-1, targets[..., None])[..., 0]
    return torch.stack([nll, -(logprobs.exp() * logprobs).sum(-1)])


def theirs(
    model: Any, variant: Variant, batches: Sequence[Padded], order: Sequence[int]
) -> Callable[[], np.ndarray]:
    """Returns what returns the same as `ours`, for padded batches of the examples in `order`."""

    def means(batch: Padded) -> torch.Tensor:
        logits = model(**batch.inputs, use_cache=False).logits
        logits = logits[:, -batch.targets.shape[1] - 1 : -1]
        sums = (statistics(logits, batch.targets) * batch.weights).sum(-1)
        return sums / batch.weights.sum(-1)

    step = torch.compile(means) if variant.compiled else means

    @torch.inference_mode()
    def run() -> np.ndarray:
        model.set_attn_implementation(variant.attention)
        return np.concatenate([step(batch).cpu().numpy() for batch in batches], 1)[:, back]

    back = np.argsort(order)
    return run


def theirs_packed(
    model: Any, examples: Sequence[TrainingSequence], width: int
) -> Callable[[], np.ndarray]:
    """Returns what returns the same, with several examples in each row, and logits where needed."""
    rows = pack(examples, width, 0)
    order = np.concatenate(first_fit([e.length for e in examples], width))
    lengths = np.array([len(examples[i].answer) for i in order])
    batches = []
    for some in cut(range(len(rows.tokens)), TOGETHER):
        row, at = np.nonzero(rows.answer_weight[some])
        arrays = (
            rows.tokens[some],
            rows.positions[some],
            row,
            rows.target_at[some][row, at],
            rows.target[some][row, at],
        )
        batches.append([torch.tensor(a, dtype=torch.long, device=DEVICE) for a in arrays])

    @torch.inference_mode()
    def run() -> np.ndarray:
        model.set_attn_implementation("sdpa")
        found = []
        for tokens, positions, row, at, target in batches:
            inner = model.model(input_ids=tokens, position_ids=positions, use_cache=False)
            logits = model.lm_head(inner.last_hidden_state[row, at])
            found.append(statistics(logits, target).cpu().numpy())
        starts = np.cumsum(lengths) - lengths
        means = np.add.reduceat(np.concatenate(found, 1), starts, 1) / lengths
        return means[:, np.argsort(order)]

    return run


def _way(setup: Setup, run: Callable[[], np.ndarray], variant: Variant) -> Way:
    return Way(run, run, setup.tolerance(variant))


def fixed_case(setup: Setup) -> Figures:
    """Returns the figures of one batch, with the model that the case names."""
    model = setup.twins(setup.case)
    rows, width = (2, 32) if setup.quick else SIZES[setup.case]
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (rows, width)).tolist()
    examples = [TrainingSequence([row[0]], [], row[1:]) for row in tokens]
    models, batches, order = by_dtype(model.model), [padded(examples, False)], range(rows)
    mine = partial(ours, model.frozen, examples)
    ways = {
        v.name: _way(setup, theirs(models[v.dtype], v, batches, order), v)
        for v in side_by_side.variants(setup.quick)
    }
    found = side_by_side.compare(setup, Way(mine, mine), ways)
    flops = costs.scoring_step(model.config, rows, width, width - 1, model.mesh).flops
    return side_by_side.figures(setup, found, rows * width, [Cost(flops, 0, 0)])


def ragged_case(setup: Setup) -> Figures:
    """Returns the figures of as many prompts as the case names."""
    model = setup.twins("30M")
    longest, rng = 32 if setup.quick else 512, np.random.default_rng(0)
    count = 10 if setup.quick else int(setup.case.removeprefix("ragged-"))
    examples = []
    for _ in range(count):
        prompt, answer = rng.integers((longest // 16, 1), (longest, 9))
        tokens = rng.integers(0, model.config.vocab_size, prompt + answer).tolist()
        examples.append(TrainingSequence(tokens[:prompt], [], tokens[prompt:]))
    order = sorted(range(count), key=lambda i: examples[i].length)
    in_order = [[examples[i] for i in part] for part in cut(order, TOGETHER)]
    models = by_dtype(model.model)
    ways = {}
    for only_answers in (False, True):
        batches = [padded(part, only_answers) for part in in_order]
        for v in side_by_side.variants(setup.quick):
            name = f"answers' logits, {v.name}" if only_answers else v.name
            ways[name] = _way(setup, theirs(models[v.dtype], v, batches, order), v)
    sdpa = next(v for v in side_by_side.variants(setup.quick) if v.name == BASE)
    packed = theirs_packed(model.model, examples, longest + 8)
    mine = partial(ours, model.frozen, examples)
    found = side_by_side.compare(
        setup, Way(mine, mine), ways | {f"packed {BASE}": _way(setup, packed, sdpa)}
    )
    return side_by_side.figures(setup, found, sum(e.length for e in examples))


@partial(jax.jit, static_argnums=0)
def statistics_of_all(config: DecoderConfig, params: Any, tokens: jax.Array) -> Any:
    """Returns the statistics of every token of int32[B, S]."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = decoder.hidden_states(config, params, tokens, positions, jnp.ones_like(tokens))
    flat = hidden.reshape(-1, hidden.shape[-1])
    return head.token_statistics(flat, decoder.output_head(config, params), tokens.reshape(-1))


def memory_case(setup: Setup) -> Figures:
    """Returns the memory of a program for a large and for a small vocabulary."""
    model = setup.twins("30M")
    tokens = jax.ShapeDtypeStruct((2, 32) if setup.quick else (16, 256), jnp.int32)
    found = {}
    for vocab in (8_192, 150_000):
        config = dataclasses.replace(model.config, vocab_size=vocab)
        params = decoder.abstract(config, model.mesh)
        compiled = statistics_of_all.lower(config, params, tokens).compile()
        memory: Any = compiled.memory_analysis()
        found[vocab] = memory.temp_size_in_bytes
    small, large = found.values()
    what = "memory: 150,000 / 8,192 tokens"
    return Figures({what: spread([large / small], 3)}, {"memory: bytes": found})


CASES = {
    "30M": fixed_case,
    "135M": fixed_case,
    "ragged-64": ragged_case,
    "ragged-256": ragged_case,
    "memory": memory_case,
    "1B": fixed_case,
}

if __name__ == "__main__":
    side_by_side.main("score", __doc__ or "", CASES)
