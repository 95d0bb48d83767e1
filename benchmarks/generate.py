"""Measures how fast texts are written, beside `generate()` of transformers.

python -m benchmarks.generate --json     (long; --quick for a smoke run, --cases=30M-1 for one case)

Nothing ends a text before its limit. The cases:
- 30M-1, 30M-16, 135M-16: so many prompts of 128 tokens and 128 new ones each, greedy.
- 1B-1, 1B-64: the same on a GPU.
- ragged: 200 prompts of 32 to 128 tokens with 8 to 256 new ones, greedy, with the 30M and 16 at a
  time. Theirs go in batches of 16, sorted by the prompts' lengths, each to its longest limit.
- samples: eight samples of 64 tokens after one prompt of 200, beside eight such prompts, both ours.
- busy: 600 prompts, the lengths of their texts drawn from a gamma distribution of mean 200 and
  coefficient of variation 0.4, over 26 slots: the share of slots and steps that wrote a token.

Random models have close seconds, so texts of equal models part. What is compared is how far, in
nats, the logits of the tokens written are below the highest of transformers' model in f32.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import CompileConfig

from benchmarks import side_by_side
from benchmarks.result import spread
from benchmarks.side_by_side import (
    BF16,
    DEVICE,
    F32,
    OURS,
    DifferError,
    Figures,
    Setup,
    Twins,
    Variant,
    Way,
    by_dtype,
    cut,
)
from bridge_jax.config import GenerationConfig
from bridge_jax.generation.engine import Engine, Request
from bridge_jax.models import costs
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.costs import Cost

CHECKED = 32
# Nats, in bf16: on a GPU, where 64 x 128 tokens are written, some of random models are that close.
CLOSE = BF16 if DEVICE == "cpu" else 0.5


class Asked(NamedTuple):
    """A prompt, and how many tokens are written after it."""

    prompt: list[int]
    limit: int
    temperature: float = 0.0
    samples: int = 1


class Written(NamedTuple):
    """The new tokens of each request and sample, and the share of slots and steps they took."""

    tokens: list[list[int]]
    busy: float


def ours(model: Twins, asked: Sequence[Asked], slots: int) -> Written:
    """Writes with our engine, `slots` texts at a time; what it makes of the weights counts."""
    each = [
        Request(request.prompt, request.limit, request.temperature)
        for request in asked
        for _ in range(request.samples)
    ]
    settings = GenerationConfig(max(request.limit for request in asked), slots)
    engine = Engine(model.config, model.params, [-1], 0, settings, model.mesh)
    tokens = [done.ids for done in engine.complete_all(each)]
    return Written(tokens, engine.busy)


def theirs(
    model: Any, variant: Variant, asked: Sequence[Asked], rows: int
) -> Callable[[], list[list[int]]]:
    """Returns what writes greedily by `generate()`, for `rows` similar prompts at once."""
    order = sorted(range(len(asked)), key=lambda i: len(asked[i].prompt))
    batches = [(part, *padded([asked[i].prompt for i in part])) for part in cut(order, rows)]
    how: dict[str, Any] = {"do_sample": False, "pad_token_id": 0}
    if variant.compiled:
        compiling: Any = CompileConfig(mode="reduce-overhead" if DEVICE == "cuda" else "default")
        compiling._compile_all_devices = True  # Without it, nothing is compiled on a CPU.
        how |= {"cache_implementation": "static", "compile_config": compiling}

    @torch.inference_mode()
    def run() -> list[list[int]]:
        model.set_attn_implementation(variant.attention)
        found: list[list[int]] = [[] for _ in asked]
        for members, ids, mask in batches:
            limit = max(asked[i].limit for i in members)
            out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=limit, **how)
            for index, row in zip(members, out[:, ids.shape[1] :].tolist()):
                found[index] = row[: asked[index].limit]
        return found

    return run


def padded(prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns i64[B, S] prompts, padded on the left, and the mask of their tokens."""
    width = max(map(len, prompts))
    ids, mask = torch.zeros(2, len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids.to(DEVICE), mask.to(DEVICE)


@torch.inference_mode()
def regret(model: Any, asked: Sequence[Asked], written: Sequence[list[int]]) -> np.ndarray:
    """Returns f32[N], nats: how far the worst token's logit is below the highest, given all before.

    Args:
      model: transformers', f32.
      asked, written: what was asked for, and what was written; the first `CHECKED` are looked at.
    """
    found = []
    for request, tokens in list(zip(asked, written, strict=True))[:CHECKED]:
        if len(tokens) != request.limit:
            raise DifferError(f"{len(tokens)} tokens were written, {request.limit} asked for")
        ids = torch.tensor([request.prompt + tokens], device=DEVICE)
        logits = model(ids, use_cache=False, logits_to_keep=len(tokens) + 1).logits[0, :-1]
        chosen = logits.gather(1, ids[0, -len(tokens) :, None])[:, 0]
        found.append(float((logits.max(-1).values - chosen).max()))
    return np.array(found, np.float32)


def random_prompts(vocab: int, lengths: Sequence[int]) -> list[list[int]]:
    """Returns prompts of random tokens."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, vocab, length).tolist() for length in lengths]


def beside(
    setup: Setup, model: Twins, asked: Sequence[Asked], rows: int, phases: Sequence[Cost] = ()
) -> Figures:
    """Returns the figures of both sides, at `rows` texts at a time."""
    models = by_dtype(model.model)

    def checked() -> np.ndarray:
        worst = regret(model.model, asked, ours(model, asked, rows).tokens)
        nothing, f32 = np.zeros_like(worst), model.config.matmul_dtype == np.float32
        side_by_side.check_same(f"{setup.case}, greedy", nothing, worst, F32 if f32 else CLOSE)
        return nothing

    ways = {}
    for v in side_by_side.variants(setup.quick):
        if v.compiled and len({request.limit for request in asked}) > 1:
            continue  # It would be compiled for each batch's longest limit.
        run = theirs(models[v.dtype], v, asked, rows)
        first = partial(lambda run: regret(model.model, asked, run()), run)
        f32 = v.dtype == torch.float32
        ways[v.name] = Way(first, run, setup.tolerance(v) if f32 else CLOSE)
    mine = Way(checked, lambda: ours(model, asked, rows))
    found = side_by_side.compare(setup, mine, ways)
    return side_by_side.figures(setup, found, sum(request.limit for request in asked), phases)


def fixed_case(setup: Setup) -> Figures:
    """Returns the figures of the model and of as many prompts as the case names."""
    shape, _, rows = setup.case.partition("-")
    model = setup.twins(shape)
    width = new = 8 if setup.quick else 128
    prompts = random_prompts(model.config.vocab_size, [width] * int(rows))
    reading = costs.scoring_step(model.config, len(prompts), width, 1, model.mesh)
    a_step = decode_cost(model.config, len(prompts), width + new // 2)
    phases = [Cost(reading.flops, a_step.bytes, 0), a_step.times(new - 1)]
    return beside(setup, model, [Asked(p, new) for p in prompts], len(prompts), phases)


def decode_cost(config: DecoderConfig, rows: int, slots: int) -> Cost:
    """Returns the least cost of one token for each of `rows` texts, with `slots` tokens before it.

    All weights and the whole cache are read once.
    """
    weights = costs.layer_parameters(config) + costs.head_parameters(config)
    attend = 4 * config.num_layers * config.num_heads * config.head_dim * slots
    size = np.dtype(config.matmul_dtype).itemsize
    moved = weights * size + costs.cache_bytes(config, rows, slots)
    return Cost((2 * weights + attend) * rows, moved, 0)


def ragged_case(setup: Setup) -> Figures:
    """Returns the figures of prompts with limits of their own."""
    model = setup.twins("30M")
    count, longest, rows = (6, 16, 2) if setup.quick else (200, 256, 16)
    rng = np.random.default_rng(1)
    lengths = rng.integers(longest // 8, longest // 2, count, endpoint=True).tolist()
    limits = rng.integers(longest // 32 or 1, longest, count, endpoint=True).tolist()
    prompts = random_prompts(model.config.vocab_size, lengths)
    return beside(setup, model, [Asked(p, n) for p, n in zip(prompts, limits)], rows)


def samples_case(setup: Setup) -> Figures:
    """Returns how much longer eight prompts take than eight samples of one."""
    model = setup.twins("30M")
    width, new = (16, 4) if setup.quick else (200, 64)
    prompts = random_prompts(model.config.vocab_size, [width] * 8)
    one = [Asked(prompts[0], new, 1.0, samples=8)]
    eight = [Asked(prompt, new, 1.0) for prompt in prompts]
    for asked in (one, eight):
        written = ours(model, asked, 8).tokens
        if [len(tokens) for tokens in written] != [new] * 8 or written[0] == written[1]:
            raise DifferError(f"{setup.case}: not eight texts of {new} tokens")
    ways = {OURS: lambda: ours(model, one, 8), "eight prompts": lambda: ours(model, eight, 8)}
    found = side_by_side.Found(side_by_side.take_turns(setup, ways), {})
    return Figures(
        {f"{setup.case}: eight prompts / ours": found.ratio("eight prompts")},
        {f"{setup.case}: seconds": {name: spread(s, 4) for name, s in found.seconds.items()}},
    )


def busy_case(setup: Setup) -> Figures:
    """Returns the share of slots and steps that wrote a token of a text."""
    model = side_by_side.twins("tiny", setup.matmul)
    count, slots, mean, variation = (20, 4, 10, 0.4) if setup.quick else (600, 26, 200, 0.4)
    shape = variation**-2
    limits = np.random.default_rng(2).gamma(shape, mean / shape, count)
    prompts = random_prompts(model.config.vocab_size, [8] * count)
    asked = [Asked(p, max(1, round(limit))) for p, limit in zip(prompts, limits)]
    found = ours(model, asked, slots)
    if [len(tokens) for tokens in found.tokens] != [request.limit for request in asked]:
        raise DifferError(f"{setup.case}: a text ends before or after its limit")
    return Figures({f"{setup.case}: share of slots and steps": spread([found.busy])}, {})


CASES = {
    "30M-1": fixed_case,
    "30M-16": fixed_case,
    "135M-16": fixed_case,
    "ragged": ragged_case,
    "samples": samples_case,
    "busy": busy_case,
    "1B-1": fixed_case,
    "1B-64": fixed_case,
}

if __name__ == "__main__":
    side_by_side.main("generate", __doc__ or "", CASES)
