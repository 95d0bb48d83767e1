"""Measures how fast a training step is beside transformers with torch's AdamW.

python -m benchmarks.train --json        (long; --quick for a smoke run, --cases=30M for one case)

A step is forward, backward, clipping and AdamW, with the same rate, moments and decay. The cases:
- 30M, 135M: 8 rows of 256 tokens, all of them learned. The losses of three steps are compared.
- 1B (GPU): 2 rows of 2,048, so that their model in f32 fits beside ours.
- ragged: an epoch of sequences of 32 to 512 tokens, the second half of each learned, with the 30M.
  Ours are packed. Theirs are padded, in batches sorted by length; beside it unsorted, and packed,
  with positions that restart. The loss of all sequences is compared. Useful tokens are no padding.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import side_by_side
from benchmarks.result import BASE
from benchmarks.side_by_side import DEVICE, Figures, Setup, Twins, Variant, Way, cut
from bridge_jax.config import TrainConfig
from bridge_jax.models import costs
from bridge_jax.models.costs import Cost
from bridge_jax.parallel.sharding import shard_batch
from bridge_jax.text.packing import Rows, pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.batches import batches_in_order
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import copy, init_state, loss_sums, make_optimizer, make_train_step

# All matrix products are kept, as torch keeps them; only what is between them is computed again.
SETTINGS = TrainConfig(learning_rate=1e-3, remat="dots")
SIZES = {"30M": (8, 256), "135M": (8, 256), "1B": (2, 2048)}  # rows and tokens
IGNORED = -100  # a label without loss
Inputs = dict[str, torch.Tensor]


class Ours:
    """Our training of a model: the state between the steps."""

    def __init__(self, model: Twins):
        self._model, optimizer = model, make_optimizer(SETTINGS)
        self._state: Any = init_state(optimizer, copy(model.params), model.mesh)
        places = jax.tree.map(lambda a: a.sharding, self._state)
        self._step = make_train_step(SFT(), model.config, optimizer, shardings=places)

    def train(self, batches: Sequence[Rows]) -> list[float]:
        """Returns the loss of each batch, after a step on each."""
        losses, rate = [], np.float32(SETTINGS.learning_rate)
        with jax.set_mesh(self._model.mesh):
            for rows in batches:
                batch = shard_batch(rows, self._model.mesh)
                self._state, metrics = self._step(self._state, {}, batch, rate)
                losses.append(metrics["loss"])
            jax.block_until_ready(self._state)
        return [float(loss) for loss in losses]

    def loss(self, batches: Sequence[Rows]) -> float:
        """Returns the mean loss of all targets, with the first parameters."""
        total = weight = 0.0
        for rows in batches:
            batch = shard_batch(rows, self._model.mesh)
            sums, weights = loss_sums(SFT(), self._model.config, self._model.params, batch)
            total, weight = total + float(sums["answer"]), weight + float(weights["answer"])
        return total / weight


class Theirs:
    """Their training of a model. One copy serves all variants, one after another."""

    def __init__(self, model: Any):
        self._model, self._compiled = model.train(), torch.compile(model)
        self._first = {name: value.clone() for name, value in model.state_dict().items()}
        self.start()

    def start(self) -> None:
        """Goes back to the first step."""
        self._model.load_state_dict(self._first)
        self._model.zero_grad()
        matrices = [p for p in self._model.parameters() if p.ndim > 1]
        others = [p for p in self._model.parameters() if p.ndim == 1]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": SETTINGS.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=SETTINGS.learning_rate,
            betas=(0.9, 0.95),
            fused=True,
        )

    def train(self, variant: Variant, batches: Sequence[Inputs]) -> list[float]:
        """Returns the loss of each batch, after a step on each."""
        losses = []
        for inputs in batches:
            loss = self._forward(variant, inputs)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), SETTINGS.clip_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()
            losses.append(loss.detach())
        return [float(loss) for loss in losses]

    def loss(self, variant: Variant, batches: Sequence[Inputs]) -> float:
        """Returns the mean loss of all targets, with the first parameters."""
        self.start()
        total = weight = 0.0
        with torch.no_grad():
            for inputs in batches:
                count = int((inputs["labels"][:, 1:] != IGNORED).sum())
                total += float(self._forward(variant, inputs)) * count
                weight += count
        return total / weight

    def _forward(self, variant: Variant, inputs: Inputs) -> torch.Tensor:
        self._model.set_attn_implementation(variant.attention)
        model = self._compiled if variant.compiled else self._model
        with torch.autocast(DEVICE, torch.bfloat16, variant.dtype == torch.bfloat16):
            return model(**inputs, use_cache=False).loss


def fixed(vocab: int, rows: int, width: int) -> tuple[list[Rows], list[Inputs]]:
    """Returns one batch for each side, of random tokens, all but the first of a row learned."""
    tokens = np.random.default_rng(0).integers(0, vocab, (rows, width))
    ours = pack(
        [TrainingSequence([row[0]], [], row[1:]) for row in tokens.tolist()], width, 0, packed=False
    )
    ids = torch.tensor(tokens, device=DEVICE)
    return [ours], [{"input_ids": ids, "labels": ids}]


def ragged(vocab: int, count: int, longest: int) -> list[TrainingSequence]:
    """Returns sequences of random tokens, up to `longest` of them, half of them learned."""
    rng = np.random.default_rng(0)
    found = []
    for length in rng.integers(longest // 16, longest, count, endpoint=True):
        tokens = rng.integers(0, vocab, length).tolist()
        found.append(TrainingSequence(tokens[: length // 2], [], tokens[length // 2 :]))
    return found


def padded(examples: Sequence[TrainingSequence]) -> Inputs:
    """Returns a batch padded on the right."""
    shape = len(examples), max(e.length for e in examples)
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for row, example in enumerate(examples):
        ids[row, : example.length] = torch.tensor(example.prompt + example.answer)
        mask[row, : example.length] = 1
        labels[row, len(example.prompt) : example.length] = torch.tensor(example.answer)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: value.to(DEVICE) for name, value in inputs.items()}


def unpadded(rows: Rows) -> Inputs:
    """Returns packed rows as transformers takes them: sequences begin where positions restart."""
    labels = np.full(rows.tokens.shape, IGNORED)
    row, at = np.nonzero(rows.answer_weight)
    labels[row, rows.target_at[row, at] + 1] = rows.target[row, at]
    inputs = {"input_ids": rows.tokens, "position_ids": rows.positions, "labels": labels}
    return {name: torch.tensor(a, dtype=torch.long, device=DEVICE) for name, a in inputs.items()}


def fixed_case(setup: Setup) -> Figures:
    """Returns the figures of steps on one batch, with the model that the case names."""
    model = setup.twins(setup.case)
    mine, theirs = Ours(model), Theirs(model.model)
    rows, width = (2, 32) if setup.quick else SIZES[setup.case]
    batch, inputs = fixed(model.config.vocab_size, rows, width)

    def first(variant: Variant) -> list[float]:
        theirs.start()
        return theirs.train(variant, inputs * 3)

    found = side_by_side.compare(
        setup,
        Way(lambda: mine.train(batch * 3), lambda: mine.train(batch)),
        {
            v.name: Way(partial(first, v), partial(theirs.train, v, inputs), setup.tolerance(v))
            for v in side_by_side.variants(setup.quick)
        },
    )
    flops = costs.model_flops(model.config, rows, width, width - 1)
    return side_by_side.figures(setup, found, rows * width, [Cost(flops, 0, 0)])


def ragged_case(setup: Setup) -> Figures:
    """Returns the figures of epochs of sequences of many lengths."""
    model = setup.twins("30M")
    mine, theirs = Ours(model), Theirs(model.model)
    count, longest = (8, 32) if setup.quick else (64, 512)
    examples = ragged(model.config.vocab_size, count, longest)
    batches = list(batches_in_order(pack(examples, longest, 0), 4))
    in_order = [padded(part) for part in cut(sorted(examples, key=lambda e: e.length), 8)]
    as_drawn = [padded(part) for part in cut(examples, 8)]
    in_rows = [unpadded(rows) for rows in batches]
    ways = {v.name: (v, in_order) for v in side_by_side.variants(setup.quick)}
    sdpa, _ = ways[BASE]
    ways |= {f"unsorted {BASE}": (sdpa, as_drawn), f"packed {BASE}": (sdpa, in_rows)}
    found = side_by_side.compare(
        setup,
        Way(lambda: mine.loss(batches), lambda: mine.train(batches)),
        {
            name: Way(
                partial(theirs.loss, v, data), partial(theirs.train, v, data), setup.tolerance(v)
            )
            for name, (v, data) in ways.items()
        },
    )
    return side_by_side.figures(setup, found, sum(e.length for e in examples))


CASES = {"30M": fixed_case, "135M": fixed_case, "ragged": ragged_case, "1B": fixed_case}

if __name__ == "__main__":
    side_by_side.main("train", __doc__ or "", CASES)
