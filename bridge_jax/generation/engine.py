"""Generates completions of prompts with continuous batching over slots (Orca, OSDI 2022).

Each slot generates one sequence. When a few sequences have ended, their slots take new requests. If
a slot on the same chip has cached a prefix of a new prompt, that prefix is copied: a task's
instruction, or the whole prompt if one prompt is sampled several times. The rest is prefilled in
blocks. Every host makes the same decisions, because it reads only replicated results.

A completion is a function of its prompt, its settings and its `stream`. It does not depend on the
slot, the order or the other requests. The number of slots can change rounding.

The host always dispatches one call ahead: the next call runs while the host reads the results of
the previous one, unless enough slots wait to be refilled; then it returns at once.
"""

import collections
import functools
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from bridge_jax.config import GenerationConfig
from bridge_jax.errors import UserError
from bridge_jax.generation import slots
from bridge_jax.generation.slots import FORCED, UNLESS, RequestArrays, Size
from bridge_jax.models import decoder, projection
from bridge_jax.models.cache import Places
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.layouts import generation_config
from bridge_jax.parallel.sharding import batch_devices, shard_batch

STEPS = 32  # Maximum decoding steps per call.
COPIES = 8  # Maximum slots copied per chip and call.
LENGTH_STEP = 256  # Slot lengths are multiples of this; above 512, of twice this (`slot_length`).


class Completion(NamedTuple):
    """The tokens that a model generated for a prompt.

    Attributes:
      ids: the tokens, without the end token.
      logprobs: log-probabilities in nats of the ids, and of the end token if it was generated,
        under the model's own distribution (temperature 1, no nucleus).
      end: the end token that was generated; None if the completion was cut.
      sampled_logprobs: like `logprobs`, under the tempered nucleus distribution sampled from.
    """

    ids: list[int]
    logprobs: list[float]
    end: int | None
    sampled_logprobs: Sequence[float] = ()

    @property
    def ended(self) -> bool:
        """Returns whether the completion ended with an end token."""
        return self.end is not None


class Request(NamedTuple):
    """A prompt and its sampling settings; None takes the engine's setting.

    Attributes:
      prompt: token ids.
      limit: maximum number of new tokens.
      temperature, top_p: sampling settings.
      stream: gives the request its own random numbers; None is its index in the call.
      forced: at most `FORCED` tokens that are inserted instead of sampled ones.
      force_at: number of new tokens before the forced ones.
      unless: at most `UNLESS` tokens; generating this sequence before `force_at` cancels `forced`.
    """

    prompt: Sequence[int]
    limit: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: int | None = None
    forced: Sequence[int] = ()
    force_at: int = 0
    unless: Sequence[int] = ()


def check_ids(prompt: Sequence[int], rows: int) -> None:
    """Raises a `UserError` if an id is beyond the embedding table: its embedding would be NaN."""
    if (largest := max(prompt, default=0)) >= rows:
        raise UserError(
            f"a prompt contains token id {largest}, but the model's embedding table has {rows:,} "
            "rows; use the tokenizer that belongs to the checkpoint"
        )


def check_context(prompt: int, new: int, context: int) -> None:
    """Raises a `UserError` if a prompt and its completion, in tokens, exceed the context."""
    if prompt + new > context:
        raise UserError(
            f"a prompt of {prompt} tokens and generation.max_new_tokens={new} exceed the model's "
            f"context of {context}; lower max_prompt_tokens or max_new_tokens"
        )


def slots_of(settings: GenerationConfig, requests: int, mesh: Mesh) -> int:
    """Returns the number of slots: `batch_size`, or fewer if there are few requests.

    A smaller number is rounded up to a power of two, so that tests and samples of a few prompts
    compile few programs. Any number is rounded up to a multiple of the number of parts that the
    mesh splits a batch into. A GPU gets at least two slots: XLA computes one row with slow
    reductions, and two with matrix products.
    """
    few = 1 << max(0, requests - 1).bit_length()
    parts = batch_devices(mesh)
    least = 2 if mesh.devices.flat[0].platform == "gpu" else 1
    return -(-max(least, min(settings.batch_size, few)) // parts) * parts


def slot_length(tokens: int, mesh: Mesh) -> int:
    """Returns the length of a slot for sequences of at most `tokens`.

    A CPU compiles in seconds and reads a whole slot at every token, so short slots have multiples
    of half the step there.
    """
    step = LENGTH_STEP if tokens <= 2 * LENGTH_STEP else 2 * LENGTH_STEP
    if tokens <= LENGTH_STEP and mesh.devices.flat[0].platform == "cpu":
        step = LENGTH_STEP // 2
    return -(-tokens // step) * step


def calls(mesh: Mesh) -> tuple[int, int, int]:
    """Returns the sizes of a call: blocks prefilled, tokens per block, and slots copied.

    There are enough blocks to keep a chip busy; blocks of several short prompts share a call. Few
    tokens keep a CPU busy, so its blocks are shorter: less padding is computed, and longer prefixes
    are shared.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    blocks, tokens = (16, 16) if on_cpu else (32, 32)
    return blocks * batch_devices(mesh), tokens, COPIES * batch_devices(mesh)


def prepare(
    config: DecoderConfig, params: Any, mesh: Mesh, cache: str = "compute"
) -> tuple[DecoderConfig, Any]:
    """Returns the model for generation: adapter merged, in the matmul dtype, placed on `mesh`.

    One program converts the parameters and moves them from their mesh to this one.
    """
    plain = generation_config(config, cache)
    with jax.set_mesh(mesh):
        return plain, _prepared(config, plain, mesh)(params)


@functools.lru_cache(maxsize=4)  # Assistant and student, each in training and as loaded.
def _prepared(config: DecoderConfig, plain: DecoderConfig, mesh: Mesh) -> Any:
    def convert(params: Any) -> Any:
        merged = projection.merged(config.lora, params) if config.lora else params
        return decoder.unstacked(jax.tree.map(lambda a: a.astype(plain.param_dtype), merged))

    places = jax.tree.map(lambda a: a.sharding, decoder.abstract_unstacked(plain, mesh))
    return jax.jit(convert, out_shardings=places)


_NO_SLOTS = Size(0, 0, 0, 0, 1, 0, 0)


class _Slot:
    """Tracks the request in a slot, and the first call that decodes it."""

    def __init__(self) -> None:
        self.request: int | None = None
        self.since = 0


class _Prompts:
    """The prompts whose keys and values are in the cache, one per slot."""

    def __init__(self, count: int, length: int, block: int):
        self._tokens = np.zeros((count, length), np.int32)
        self._block = block  # Tokens per prefilled block.
        self._lengths = np.zeros(count, np.int64)

    def put(self, at: int, prompt: np.ndarray) -> None:
        self._tokens[at, : len(prompt)] = prompt
        self._lengths[at] = len(prompt)

    def drop(self, at: int | slice) -> None:
        self._lengths[at] = 0

    def shared(self, prompt: np.ndarray, whole: bool) -> np.ndarray:
        """Returns int[count]: how many leading tokens of a prompt each slot can supply.

        That is the whole prompt, or the shared prefix in whole blocks. Slots with ring buffers
        (`whole`) supply only an identical prompt: of a longer one, the ring has overwritten the
        beginning.
        """
        same = self._tokens[:, : len(prompt)] == prompt
        ends = np.pad(same, ((0, 0), (0, 1))).argmin(1)  # The first position that differs.
        count = np.minimum(ends, self._lengths)
        if whole:
            return np.where((count == len(prompt)) & (self._lengths == len(prompt)), count, 0)
        return np.where(count == len(prompt), count, count // self._block * self._block)


class Engine:
    """Generator of completions with one model.

    Attributes:
      steps: decoding steps so far; each can generate a token in every slot.
      new_tokens: tokens generated so far.
      blocks: prompt blocks prefilled so far; prefixes copied between slots do not count.
    """

    def __init__(
        self,
        config: DecoderConfig,
        params: Any,
        end_ids: Sequence[int],
        pad_id: int,
        settings: GenerationConfig,
        mesh: Mesh,
        seed: int = 0,
    ):
        """Prepares the model; `end_ids` end a completion, and `pad_id` pads prefill blocks."""
        self._settings, self._mesh, self._pad_id = settings, mesh, pad_id
        self._parts = batch_devices(mesh)
        self._trained = config
        self._config, self._params = prepare(config, params, mesh, settings.cache)
        self._end_ids = set(end_ids)
        self._ends = np.asarray(sorted(self._end_ids), np.int32)
        self._seed = np.uint32(seed)
        self._state: slots.State | None = None
        self._size = _NO_SLOTS  # The size that the programs are compiled for.
        self._programs: Any = None
        self._has_rings = False  # Whether a layer's cache is shorter than the slots.
        self._run_number = 0
        self._slots: list[_Slot] = []
        self._prompts = _Prompts(0, 0, 1)
        self._none: Any = None  # The arguments of a call without fresh requests.
        self._calls = 0
        self.steps = self.new_tokens = self.blocks = self._slot_steps = 0

    @property
    def busy(self) -> float:
        """Returns the share of slot steps that generated a token."""
        return self.new_tokens / max(1, self._slot_steps)

    def update(self, params: Any) -> None:
        """Replaces the parameters with others of the same model; drops all cached prompts.

        No completion may be in progress. One program converts and moves the parameters.
        """
        settings = self._settings
        self._params = prepare(self._trained, params, self._mesh, settings.cache)[1]
        self._prompts.drop(slice(None))

    def release(self) -> None:
        """Frees the slots; the next call allocates those that its own requests need.

        The number and length of slots can change rounding. After a release they do not depend on
        earlier calls.
        """
        self._state, self._size, self._slots = None, _NO_SLOTS, []

    def complete(
        self,
        requests: Sequence[Sequence[int] | Request],
        done: Collection[int] = (),
        steps: int = STEPS,
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Yields lists of (index into `requests`, completion), as requests end.

        Args:
          requests: prompts as token ids, or requests with their own settings.
          done: indices that an interrupted call has already completed.
          steps: maximum decoding steps per call to the devices.

        Raises:
          UserError: a prompt and its completion exceed the model's context, or a token has no row
            in the embedding table. Raised before anything is generated.
        """
        asked = [self._request(request, index) for index, request in enumerate(requests)]
        finished = set(done)
        waiting = collections.deque(i for i in range(len(asked)) if i not in finished)
        if not waiting:
            return
        run = self._begin(asked)
        in_flight: collections.deque[tuple[int, Any]] = collections.deque()
        running = 0
        try:
            while waiting or running:
                self._check_run(run)
                with jax.set_mesh(self._mesh):
                    idle = sum(slot.request is None for slot in self._slots)
                    fresh = None
                    if waiting and idle >= self._refill_threshold:
                        now = [waiting.popleft() for _ in range(min(idle, len(waiting)))]
                        running += len(now)
                        fresh = self._fill(asked, now)
                    in_flight.append(self._call(fresh, max(1, steps), bool(waiting)))
                    if len(in_flight) == 1:
                        continue
                    ended = self._ended(*in_flight.popleft())
                running -= len(ended)
                if ended:
                    yield ended
            # The last call was dispatched ahead, with no active slot: it generated nothing.
        finally:
            self._abandon(run)

    def complete_all(self, requests: Sequence[Sequence[int] | Request]) -> list[Completion]:
        """Returns the completions of all requests, in their order; raises as `complete` does."""
        found = dict(itertools.chain.from_iterable(self.complete(requests)))
        return [found[index] for index in range(len(requests))]

    def stream(self, request: Sequence[int] | Request) -> Iterator[int]:
        """Yields the tokens of one completion as they are generated, without the end token.

        They are the same tokens that `complete` returns.
        """
        asked = [self._request(request, 0)]
        run = self._begin(asked)
        try:
            with jax.set_mesh(self._mesh):
                _, report = self._call(self._fill(asked, [0]), 1)
            at = next(i for i, slot in enumerate(self._slots) if slot.request == 0)
            sent, goes_on = 0, True
            while goes_on:
                self._check_run(run)
                with jax.set_mesh(self._mesh):
                    _, ahead = self._call(None, 1)
                written = self._read(report)
                count, goes_on = int(written.count[at]), bool(written.active[at])
                self.new_tokens += count - sent
                for token in written.tokens[at, sent:count].tolist():
                    if token in self._end_ids:
                        return
                    yield token
                sent, report = count, ahead
        finally:
            self._abandon(run)

    def _begin(self, asked: Sequence[Request]) -> int:
        """Ends an earlier run, makes room for requests, and returns the number of their run."""
        self._abandon(self._run_number)
        self._run_number += 1
        self._make_room(asked)
        return self._run_number

    def _check_run(self, run: int) -> None:
        if run != self._run_number:
            raise RuntimeError(
                "this iterator is stale: the engine has started another request since"
            )

    def _request(self, request: Sequence[int] | Request, index: int) -> Request:
        """Fills in the defaults of a request and checks it."""
        if not isinstance(request, Request):
            request = Request(request)
        how = self._settings
        found = request._replace(
            limit=how.max_new_tokens if request.limit is None else request.limit,
            temperature=how.temperature if request.temperature is None else request.temperature,
            top_p=how.top_p if request.top_p is None else request.top_p,
            stream=index if request.stream is None else request.stream,
        )
        assert found.limit is not None
        check_context(len(found.prompt), found.limit, self._config.max_positions)
        check_ids(found.prompt, self._config.vocab_size)
        if not found.prompt or found.limit < 1:
            raise ValueError("a request needs a non-empty prompt and a limit of at least 1")
        if len(found.forced) > FORCED or len(found.unless) > UNLESS:
            raise ValueError(
                f"a request can have at most {FORCED} `forced` and {UNLESS} `unless` tokens"
            )
        return found

    def _make_room(self, asked: Sequence[Request]) -> None:
        """Allocates new slots if those that exist are too few or too short for the requests."""
        length = slot_length(max(len(r.prompt) + (r.limit or 0) for r in asked), self._mesh)
        new = max(self._settings.max_new_tokens, max(r.limit or 0 for r in asked))
        size = (slots_of(self._settings, len(asked), self._mesh), length, new)  # As in `Size`.
        if all(have >= want for have, want in zip(self._size, size)):
            return
        count, length, new = (max(pair) for pair in zip(self._size, size))
        self.release()  # There may be no room for both the old slots and the new ones.
        made_for = Size(count, length, new, *calls(self._mesh), len(self._ends))
        self._programs = slots.compiled(self._config, self._mesh, made_for)
        self._none = shard_batch((np.zeros(count, bool), _no_rows(count)), self._mesh)
        self._state = self._programs.init_state()
        self._slots = [_Slot() for _ in range(count)]
        self._prompts = _Prompts(count, length, made_for.block_tokens)
        places = (layer.keys.shape[2] for layer in self._programs.state.cache)
        self._has_rings = min(places) < length
        self._size = made_for

    @property
    def _refill_threshold(self) -> int:
        """Returns the number of slots that must be idle before they are refilled."""
        return -(-len(self._slots) // 16)

    def _call(
        self, fresh: tuple[Any, RequestArrays] | None, steps: int, refill: bool = False
    ) -> tuple[int, Any]:
        """Dispatches a decoding call, with any `fresh` requests; returns its number and report."""
        assert self._state is not None
        placed = shard_batch(fresh, self._mesh) if fresh else self._none
        self._state, report = self._programs.decode(
            self._params,
            self._state,
            *placed,
            self._seed,
            self._ends,
            np.int32(self._refill_threshold if refill else len(self._slots)),
            np.int32(steps),
        )
        self._calls += 1
        return self._calls, report

    def _read(self, report: Any) -> Any:
        """Copies a report to the host, and adds its steps to the counters."""
        written = jax.tree.map(np.asarray, report)
        self.steps += int(written.steps)
        self._slot_steps += int(written.steps) * len(self._slots)
        return written

    def _ended(self, call: int, report: Any) -> list[tuple[int, Completion]]:
        """Returns the completions that ended by the given call, and frees their slots."""
        written = self._read(report)
        found = []
        for at, slot in enumerate(self._slots):
            if slot.request is None or slot.since > call or written.active[at]:
                continue
            count = int(written.count[at])
            self.new_tokens += count
            tokens = written.tokens[at, :count].tolist()
            end = tokens.pop() if tokens[-1] in self._end_ids else None
            logprobs = (written.logprobs, written.sampled_logprobs)
            drawn, sampled = (values[at, :count].tolist() for values in logprobs)
            found.append((slot.request, Completion(tokens, drawn, end, sampled)))
            slot.request = None
        return sorted(found)

    def _abandon(self, run: int) -> None:
        """Drops the unfinished requests of a run, after an interruption or at its end."""
        if run != self._run_number or self._state is None:
            return
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(self._state)):
            self.release()  # Interrupted while a call held the donated state.
            return
        if any(slot.request is not None for slot in self._slots):
            none = shard_batch(np.zeros(len(self._slots), bool), self._mesh)
            written = self._state.written._replace(active=none)
            self._state = self._state._replace(written=written)
            for at, slot in enumerate(self._slots):
                slot.request = None
                if slot.since > self._calls:  # Never decoded: idle steps overwrite its prompt.
                    self._prompts.drop(at)
        jax.block_until_ready(self._state)  # A process that exits during a step may crash.

    def _fill(self, asked: list[Request], indices: list[int]) -> tuple[np.ndarray, RequestArrays]:
        """Assigns requests to idle slots, and writes their prompts into the cache.

        A prompt copies the longest prefix that it shares with a prompt in a slot on the same chip.
        If that other prompt is one of these requests, this one is prefilled after it.
        """
        idle = [i for i, slot in enumerate(self._slots) if slot.request is None]
        on_chip = len(self._slots) // self._parts
        fresh, rows = np.zeros(len(self._slots), bool), _no_rows(len(self._slots))
        prefill_now: list[tuple[int, np.ndarray]] = []
        prefill_after: list[tuple[int, np.ndarray]] = []  # They copy from `prefill_now`.
        pending = _Prompts(
            len(self._slots), self._size.length, self._size.block_tokens
        )  # The prompts of `prefill_now`.
        for at, index in zip(idle, indices):
            slot, request = self._slots[at], asked[index]
            slot.request, slot.since = index, self._calls + 1
            fresh[at] = True
            _set(rows, at, request)
            prompt = np.asarray(request.prompt[:-1], np.int32)
            start = at // on_chip * on_chip
            new, old = (
                prompts.shared(prompt, self._has_rings)[start : start + on_chip].max()
                for prompts in (pending, self._prompts)
            )
            if new > old:
                prefill_after.append((at, prompt))
            else:
                prefill_now.append((at, prompt))
                pending.put(at, prompt)
        for group in (prefill_now, prefill_after):
            self._prefill(group, on_chip)
        if self._has_rings:  # Decoding overwrites the beginning of a prompt.
            self._prompts.drop(slice(None))
        return fresh, rows

    def _prefill(self, group: list[tuple[int, np.ndarray]], on_chip: int) -> None:
        """Copies shared prefixes, prefills the rest, and records which prompts are cached."""
        block = self._size.block_tokens
        copies: list[tuple[int, int]] = []
        blocks: list[tuple[int, int, np.ndarray]] = []
        for at, prompt in group:
            start = at // on_chip * on_chip
            shared = self._prompts.shared(prompt, self._has_rings)
            shared[[to for _, to in copies]] = -1  # Already overwritten when this copy runs.
            near = shared[start : start + on_chip]
            source = at if shared[at] == near.max() else start + int(near.argmax())
            if source != at and shared[source]:
                copies.append((source, at))
            starts = range(int(shared[source]), len(prompt), block)
            blocks += [(at, start, prompt[start : start + block]) for start in starts]
        for at, _ in group:  # An interruption may leave them half written.
            self._prompts.drop(at)
        self._copy(copies, on_chip)
        self._compute(blocks, on_chip)
        for at, prompt in group:
            self._prompts.put(at, prompt)

    def _copy(self, copies: list[tuple[int, int]], on_chip: int) -> None:
        assert self._state is not None
        for rows in _dealt(copies, [to // on_chip for _, to in copies], self._parts, COPIES):
            sources, targets = np.full(len(rows), -1, np.int32), np.zeros(len(rows), np.int32)
            for row, pair in enumerate(rows):
                if pair:
                    sources[row], targets[row] = pair[0] % on_chip, pair[1] % on_chip
            placed = shard_batch((sources, targets), self._mesh)
            self._state = self._state._replace(
                cache=self._programs.copy(self._state.cache, *placed)
            )

    def _compute(self, blocks: list[tuple[int, int, np.ndarray]], on_chip: int) -> None:
        assert self._state is not None
        chips = [at // on_chip for at, _, _ in blocks]
        self.blocks += len(blocks)
        size = self._size.block_tokens
        for rows in _dealt(blocks, chips, self._parts, self._size.blocks // self._parts):
            tokens = np.full((len(rows), size), self._pad_id, np.int32)
            positions = np.zeros((len(rows), size), np.int32)
            at, last = np.full(len(rows), on_chip, np.int32), np.full(len(rows), -1, np.int32)
            ends: dict[int, int] = {}
            for row, block in enumerate(rows):
                if block:
                    slot, start, piece = block
                    tokens[row, : len(piece)] = piece
                    positions[row] = start + np.arange(size)
                    at[row] = slot % on_chip
                    ends[slot] = start + size - 1
            for row, block in enumerate(rows):
                if block:
                    last[row] = ends[block[0]]
            placed: Any = shard_batch((tokens, Places(positions, at, last)), self._mesh)  # type: ignore[arg-type]
            cache = self._programs.prefill(self._params, self._state.cache, *placed)
            self._state = self._state._replace(cache=cache)


def _dealt(items: Sequence[Any], chips: Sequence[int], parts: int, size: int) -> list[list[Any]]:
    """Returns the items of each call: `size` for each of `parts` chips, padded with None."""
    queues = [[item for item, chip in zip(items, chips) if chip == part] for part in range(parts)]
    calls = -(-max(map(len, queues), default=0) // size)
    found: list[list[Any]] = []
    for start in range(0, calls * size, size):
        taken = [queue[start : start + size] for queue in queues]
        found.append([item for part in taken for item in [*part, *[None] * (size - len(part))]])
    return found


def _no_rows(count: int) -> RequestArrays:
    ints, floats = np.zeros(count, np.int32), np.zeros(count, np.float32)
    columns = (ints.copy(), ints.copy(), ints.copy(), np.zeros(count, np.uint32))
    forced, unless = (np.full((count, size), -1, np.int32) for size in (FORCED, UNLESS))
    return RequestArrays(*columns, floats.copy(), floats.copy(), forced, ints.copy(), unless)


def _set(rows: RequestArrays, at: int, request: Request) -> None:
    """Writes a request into the row of its slot."""
    rows.length[at], rows.token[at] = len(request.prompt) - 1, request.prompt[-1]
    rows.limit[at], rows.stream[at] = request.limit, request.stream
    rows.temperature[at], rows.top_p[at] = request.temperature, request.top_p
    rows.forced[at, : len(request.forced)] = request.forced
    rows.force_at[at] = request.force_at
    rows.unless[at, UNLESS - len(request.unless) :] = request.unless
