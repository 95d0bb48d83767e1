"""Divides rows without a split into pool, dev and test, and draws samples of a split.

Both depend on the seed and on the content of the examples, not on their order in the file, so an
added row moves few others.
"""

import collections
import contextlib
import hashlib
import json
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bridge_jax import progress
from bridge_jax.config import DataConfig
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError

# The estimated Jaccard similarity of pieces from which two questions count as near-duplicates, and
# the hash functions of the estimate, whose standard error is at most 0.045. Our defaults.
_ALIKE, _HASHES = 0.8, 128
# Bands, and hashes per band: two questions are compared if they agree in all hashes of a band. Two
# in five of the pairs with a similarity of 0.8 do, and over nine in ten of those with 0.9.
_BANDS, _BAND = 9, 13
_COMPARED = 16  # The most questions of a bucket that another one is compared with. Our default.
_PIECE = 5  # Characters. Words would not work for scripts without spaces between them.
_LONG = 5_000  # From this many examples on, progress is shown.


class Divided(NamedTuple):
    """The three parts, each in file order, and the number of groups of near-duplicates.

    A group has two or more examples, all in one part.
    """

    pool: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    groups: int


def divide(examples: Sequence[Example], config: DataConfig, seed: int) -> Divided:
    """Divides the examples of a file.

    Every label gives its share to dev and test, as far as whole groups of near-duplicates allow. If
    there are several labels, each gives at most half of its examples.

    Args:
      examples: the examples of a file, in file order.
      config: holds the shares; with a `test_path`, none goes to the test.
      seed: the seed of the random order.

    Raises:
      UserError: dev or test has a share but would be empty, or the test has no share.
    """
    groups = group_alike([example.question for example in examples])
    keys = [_key(example, seed) for example in examples]
    by_label: dict[str, list[list[int]]] = collections.defaultdict(list)
    for group in groups:
        first = min(group, key=lambda i: keys[i])
        by_label[_label(examples[first], config)].append(group)
    shares = {"dev": config.dev_share} | ({} if config.test_path else {"test": config.test_share})
    part_of = ["pool"] * len(examples)
    wanted = dict.fromkeys(shares, 0.0)  # Summed over labels, so that roundings do not add up.
    given = dict.fromkeys(shares, 0)
    for _, members in sorted(by_label.items()):
        members.sort(key=lambda group: min(keys[i] for i in group))
        size = sum(map(len, members))
        room = size // 2 if len(by_label) > 1 else size - 1
        for part, share in shares.items():
            wanted[part] += share * size
            quota = min(room, round(wanted[part]) - given[part])
            for group in members:
                if part_of[group[0]] == "pool" and len(group) <= quota:
                    for i in group:
                        part_of[i] = part
                    quota, room = quota - len(group), room - len(group)
                    given[part] += len(group)
    for part, share in shares.items():
        _check_part(part, share, given[part], len(examples), config)
    parts = {
        part: tuple(e for e, of in zip(examples, part_of) if of == part)
        for part in ("pool", "dev", "test")
    }
    return Divided(**parts, groups=sum(len(group) > 1 for group in groups))


def sample(examples: Sequence[Example], count: int, seed: int) -> tuple[Example, ...]:
    """Returns `count` of the examples, drawn with `seed`, in their given order; 0 returns all.

    A smaller sample is part of a larger one.
    """
    if not count or len(examples) <= count:
        return tuple(examples)
    order = sorted(range(len(examples)), key=lambda i: _key(examples[i], seed))
    return tuple(examples[i] for i in sorted(order[:count]))


def group_alike(questions: Sequence[str]) -> list[list[int]]:
    """Returns groups of the indices of questions that nearly repeat each other, in file order.

    Each question is compared with the first one of every group that locality-sensitive hashing of
    MinHash signatures finds near it, in an order that depends on the questions alone. A question
    near several groups merges them. If many questions share a text, such as a disclaimer, each is
    compared with only a few of them. So time and memory grow linearly with the number of questions:
    a question takes 512 bytes for its signature, and about as many for the search.

    Args:
      questions: texts; case and white space are ignored.
    """
    places: dict[bytes, list[int]] = collections.defaultdict(list)
    for i, question in enumerate(questions):
        places[hashlib.sha256(_bytes(_plain(question))).digest()].append(i)
    order = sorted(places)
    leader = _joined(_signatures([questions[places[key][0]] for key in order]))
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for key, first in zip(order, leader):
        groups[first] += places[key]
    return sorted(sorted(group) for group in groups.values())


def _signatures(questions: Sequence[str]) -> np.ndarray:
    """Returns the MinHash signature of each question, uint32[N, _HASHES]."""
    from datasketch import MinHash  # It imports SciPy, which takes a second.

    found = np.empty((len(questions), _HASHES), np.uint32)
    sketch = MinHash(_HASHES, hashfunc=zlib.crc32)
    bar = contextlib.nullcontext(lambda: None)
    if len(questions) >= _LONG:
        bar = progress.track("comparing questions", len(questions), "questions")
    with bar as advance:
        for n, question in enumerate(questions):
            sketch.clear()
            sketch.update_batch(_pieces(_plain(question)))
            found[n] = sketch.hashvalues
            advance()
    return found


def _joined(signatures: np.ndarray) -> list[int]:
    """Returns, for each of N signatures, the index of the first one of its group."""
    leader = list(range(len(signatures)))

    def leader_of(n: int) -> int:
        while leader[n] != n:
            leader[n] = leader[leader[n]]
            n = leader[n]
        return n

    buckets = _buckets(signatures)
    firsts: dict[int, list[int]] = collections.defaultdict(list)
    for n in np.flatnonzero((buckets >= 0).any(axis=1)).tolist():
        mine = [bucket for bucket in buckets[n].tolist() if bucket >= 0]
        found = sorted({m for bucket in mine for m in firsts[bucket]})
        same = (signatures[found] == signatures[n]).mean(axis=1)
        near = [m for m, share in zip(found, same) if share >= _ALIKE]
        for m in near:
            first, second = sorted((leader_of(m), leader_of(n)))
            leader[second] = first
        if not near:
            for bucket in mine:
                if len(firsts[bucket]) < _COMPARED:
                    firsts[bucket].append(n)
    return [leader_of(n) for n in range(len(leader))]


def _buckets(signatures: np.ndarray) -> np.ndarray:
    """Returns the bucket of each of N signatures in each band, int64[N, _BANDS].

    Signatures that agree in a whole band share its bucket. -1 is a bucket of one signature.
    """
    found = np.empty((len(signatures), _BANDS), np.int64)
    factors = np.random.default_rng(0).integers(2**64, size=_BAND, dtype=np.uint64)
    for band in range(_BANDS):
        part = signatures[:, band * _BAND : (band + 1) * _BAND]
        # Different hashes may have the same sum; then a few more signatures are compared.
        sums = (part.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
        _, numbers, counts = np.unique(sums, return_inverse=True, return_counts=True)
        found[:, band] = np.where(counts[numbers] > 1, numbers * _BANDS + band, -1)
    return found


def _check_part(part: str, share: float, count: int, total: int, config: DataConfig) -> None:
    """Raises a `UserError` if a part that the run needs has no examples."""
    setting = f"data.{part}_share={share:g}"
    if part == "test" and not share:
        raise UserError(
            f"{config.path}: no row has a split, and {setting} selects none for the test; raise "
            "it, or name a file of test rows with data.test_path"
        )
    if share and not count:
        hint = ", or set it to 0" if part == "dev" else ", or name a file with data.test_path"
        raise UserError(
            f"{config.path}: no row has a split, and {setting} of {total:,} distinct rows "
            f"selects none; add rows or raise it{hint}"
        )


def _key(example: Example, seed: int) -> bytes:
    """Returns the sort key of an example in the random order of `seed`."""
    return hashlib.sha256(_bytes(json.dumps([seed, example.question, example.id]))).digest()


def _label(example: Example, config: DataConfig) -> str:
    """Returns an example's gold label; "" if it has none, or the rows share no set of labels."""
    is_shared = example.kind == "label" or (example.kind == "choice" and config.choices)
    return (example.answer or "") if is_shared else ""


def _plain(question: str) -> str:
    """Returns a text as it is compared: in lower case, with single spaces."""
    return " ".join(question.casefold().split())


def _pieces(text: str) -> set[bytes]:
    """Returns the overlapping pieces of a text from which its signature is made."""
    return {_bytes(text[i : i + _PIECE]) for i in range(max(1, len(text) - _PIECE + 1))}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
