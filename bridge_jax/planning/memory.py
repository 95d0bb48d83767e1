"""Memory of each step per device, found by compiling the step for its mesh."""

import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridge_jax.config import GenerationConfig, TrainConfig
from bridge_jax.generation import engine, slots
from bridge_jax.models import decoder, projection
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.layouts import generation_config, training_config
from bridge_jax.parallel.sharding import BATCH, filled_rows, local_bytes
from bridge_jax.selection.batches import Shape, empty
from bridge_jax.selection.scores import score_batch
from bridge_jax.text.packing import Rows
from bridge_jax.training.objectives import Objective
from bridge_jax.training.objectives.distillation import SoftTargets, predict_batch
from bridge_jax.training.objectives.policy import Policy, PolicyTargets, reference_logprobs
from bridge_jax.training.step import abstract_state, make_optimizer, make_train_step

# XLA does not search for the fastest program. Compared with the default, a 7B training step on v5e
# compiles in a fifth of the CPU time and its program needs 2% less memory; generation with 0.5B, in
# a quarter of the CPU time, with 4% more memory.
FAST_COMPILE: Any = {"exec_time_optimization_effort": -1.0}


# XLA's error for a program that does not fit on a TPU: the total that it needs, in binary units.
_REFUSED = re.compile(r"RESOURCE_EXHAUSTED.*(?:temporaries \(|Used )([\d.]+)([KMGT])\b", re.S)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Memory(NamedTuple):
    """The bytes on each device while a step runs.

    Attributes:
      parameters: trained and frozen.
      optimizer: moments and counters.
      cache: keys and values.
      temporary: all other buffers: activations, gradients, the batch, and the copies of the
        parameters that a training keeps (moving average, best so far).
      program: the compiled code.
      held: arrays that belong to other programs: for generation, the weights as loaded; for a
        training on the model's own replies, what its other programs keep between steps.
      refused: whether XLA refused to compile the step because it does not fit; the total is then
        the amount that XLA reports.
    """

    parameters: int
    optimizer: int
    cache: int
    temporary: int
    program: int
    held: int = 0
    refused: bool = False

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self.parts().values())

    @property
    def kept(self) -> int:
        """The bytes that stay allocated between two runs of the step."""
        return self.parameters + self.optimizer + self.cache

    def parts(self) -> dict[str, int]:
        """Returns the parts by name."""
        return {name: value for name, value in self._asdict().items() if name != "refused"}


def train_step(
    config: DecoderConfig,
    train: TrainConfig,
    objective: Objective,
    targets: int,
    mesh: Mesh,
    soft: int = 0,
) -> Memory:
    """Compiles a training step and returns its memory.

    Args:
      config: the model, including its compute dtype and adapter.
      train: the batch and how it is computed.
      objective: the loss.
      targets: the number of targets per row.
      mesh: the mesh to compile for; its devices may be those of another machine.
      soft: how many of another model's most probable tokens each target has; 0 for none.
    """
    config = dataclasses.replace(training_config(config), remat=train.remat)
    params = decoder.abstract(config, mesh)
    trained, frozen = projection.partition(config, params)
    optimizer = make_optimizer(train)
    averaged = train.ema_decay > 0
    state = abstract_state(optimizer, trained, mesh, averaged, train.keep_best)
    count = filled_rows(train.batch_rows, mesh, train.accumulate)
    weight = _array(mesh, (count, targets), jnp.float32)
    extra_targets: Any = None
    if soft:
        probabilities = _array(mesh, (count, targets, soft), jnp.float32)
        extra_targets = SoftTargets(_ints(mesh, count, targets, soft), probabilities, weight)
    elif isinstance(objective, Policy):
        extra_targets = PolicyTargets(weight, weight, weight, weight)
    rows = _rows(mesh, count, train.row_tokens, targets)._replace(extra_targets=extra_targets)
    places = jax.tree.map(lambda a: a.sharding, state)
    step = make_train_step(
        objective, config, optimizer, accumulate=train.accumulate, shardings=places
    )
    rate: Any = jax.ShapeDtypeStruct((), jnp.float32, sharding=state.step.sharding)
    with jax.set_mesh(mesh):
        lowered = step.lower(state, frozen, rows, rate)
    return _memory(lowered, local_bytes(params), local_bytes(state.opt_state), 0)


def scoring_step(config: DecoderConfig, shape: Shape, mesh: Mesh) -> Memory:
    """Compiles a scoring step for one batch shape and returns its memory."""
    params = decoder.abstract(dataclasses.replace(config, param_dtype=config.matmul_dtype), mesh)
    batch: Any = jax.tree.map(lambda a: _ints(mesh, *a.shape), empty(shape))
    with jax.set_mesh(mesh):
        lowered = score_batch.lower(config, params, batch)
    return _memory(lowered, local_bytes(params), 0, 0)


def reading_step(
    config: DecoderConfig, rows: int, width: int, targets: int, soft: int, mesh: Mesh
) -> Memory:
    """Compiles a forward pass over packed rows by a model that is not trained; returns its memory.

    Args:
      rows: rows per batch.
      width: tokens per row.
      targets: targets per row.
      soft: how many most probable tokens to find per target; 0 for the target's own probability.
      mesh: the mesh to compile for; its devices may be those of another machine.
    """
    config = dataclasses.replace(config, param_dtype=config.matmul_dtype)
    params = decoder.abstract(config, mesh)
    batch = _rows(mesh, filled_rows(rows, mesh), width, targets)
    with jax.set_mesh(mesh):
        if soft:
            lowered = predict_batch.lower(config, params, batch, soft, config.vocab_size)
        else:
            lowered = reference_logprobs.lower(config, params, batch, 1.0)
    return _memory(lowered, local_bytes(params), 0, 0)


def generation_step(
    config: DecoderConfig, settings: GenerationConfig, rows: int, width: int, mesh: Mesh
) -> Memory:
    """Compiles generation from prompts of `width` tokens in `rows` slots, and returns its memory.

    Prefilling and decoding are two programs; the one that needs more memory counts.
    """
    config = generation_config(config, settings.cache)
    new = settings.max_new_tokens
    length = engine.slot_length(width + new, mesh)
    size = slots.Size(rows, length, new, *engine.calls(mesh), 1)
    programs = slots.lowered(config, mesh, size)
    parameters = local_bytes(decoder.abstract_unstacked(config, mesh))
    cache = local_bytes(programs.state.cache)
    needs = (
        _memory(program, parameters, 0, cache) for program in (programs.prefill, programs.decode)
    )
    return max(needs, key=lambda memory: memory.total)


def _memory(lowered: Any, parameters: int, optimizer: int, cache: int) -> Memory:
    """Compiles a step and returns its memory, even if it does not fit on a device."""
    try:
        found = lowered.compile(FAST_COMPILE).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        said = _REFUSED.search(str(error))
        if not said:
            raise
        needed = int(float(said[1]) * _UNITS[said[2]])
        rest = max(0, needed - parameters - optimizer - cache)
        return Memory(parameters, optimizer, cache, rest, program=0, refused=True)
    arguments = found.argument_size_in_bytes + found.output_size_in_bytes
    working = arguments - found.alias_size_in_bytes + found.temp_size_in_bytes
    rest = working - parameters - optimizer - cache
    return Memory(parameters, optimizer, cache, rest, found.generated_code_size_in_bytes)


def _rows(mesh: Mesh, rows: int, width: int, targets: int) -> Any:
    """Returns packed rows as abstract arrays, without extra targets."""
    wide, narrow = _ints(mesh, rows, width), _ints(mesh, rows, targets)
    weight: Any = _array(mesh, (rows, targets), jnp.float32)
    return Rows(wide, wide, wide, narrow, narrow, weight, weight)


def _array(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    sharding = NamedSharding(mesh, PartitionSpec(BATCH))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _ints(mesh: Mesh, *shape: int) -> Any:
    return _array(mesh, shape, jnp.int32)
