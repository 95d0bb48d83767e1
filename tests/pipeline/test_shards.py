"""Parts of a result: read back in order, whole or not at all."""

import numpy as np
import pytest

from bridge_jax.pipeline.storage import Shards


@pytest.fixture
def two(tmp_path):
    shards = Shards(tmp_path / "shards")
    assert list(shards.read()) == []
    for number in range(2):
        shards.write({"index": np.arange(number, 3), "x": np.full((3 - number, 2), number, "f4")})
    return shards, tmp_path / "shards"


def test_parts_are_read_back_in_order(two):
    first, second = two[0].read()
    np.testing.assert_array_equal(first["index"], [0, 1, 2])
    np.testing.assert_array_equal(second["x"], [[1, 1], [1, 1]])
    assert second["x"].dtype == np.float32
    assert sorted(path.name for path in two[1].iterdir()) == ["000000.npz", "000001.npz"]


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_a_damaged_part_is_left_out_and_its_number_is_not_used_again(two, damage):
    path = two[1] / "000000.npz"
    if damage is None:  # One bit of the data.
        whole = bytearray(path.read_bytes())
        whole[whole.index(b"NUMPY") + 130] ^= 1
        damage = bytes(whole)
    path.write_bytes(damage)
    two[0].write({"index": np.arange(5)})
    assert [len(part["index"]) for part in two[0].read()] == [2, 5]


def test_what_a_kill_left_of_a_part_is_no_part(two):
    (two[1] / ".000002.npz.12.part").write_bytes(b"PK")
    assert len(list(two[0].read())) == 2


def test_the_parts_are_removed(two):
    two[0].clear()
    two[0].clear()
    assert not two[1].exists()
