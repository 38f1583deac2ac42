"""One of two processes that check what they know of each other.

python -m tests.joined COORDINATOR_ADDRESS PROCESS_ID
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import distributed, mesh


class Watched:
    """An array that remembers which parts were asked for."""

    def __init__(self, values):
        self.values, self.shape, self.asked = values, values.shape, []

    def __getitem__(self, index):
        self.asked.append(index[0])
        return self.values[index]


def check_what_process_0_says(me):
    assert distributed.text_from_main("zero" if me == 0 else "another") == "zero"
    assert distributed.text_from_main("" if me == 0 else "another") == ""
    own = {"a": np.full(3, me + 0.5, np.float32), "b": np.array([me == 0, True])}
    told = distributed.from_main(own | {"c": np.uint8([me, 200])})
    np.testing.assert_array_equal(told["a"], np.full(3, 0.5, np.float32))
    np.testing.assert_array_equal(told["b"], [True, True])
    np.testing.assert_array_equal(told["c"], np.uint8([0, 200]))


def check_what_fits_only_here(me):
    distributed.check_everywhere(True, "never seen")
    with pytest.raises(distributed.JoinError, match=r"^no folder \(process 1 of 2\)$"):
        distributed.check_everywhere(me == 0, "no folder")


def check_that_one_writes(me):
    written = []
    distributed.main_only(written.append)(me)
    assert written == [0][: 1 - me]


def check_clients_of_all_processes(me):
    """Six clients on three of four devices: two here, one in the other process."""
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    watched = Watched(values)
    placed = mesh.place({"x": watched}, num_devices=4)
    assert [s.start for s in watched.asked] == ([0, 4] if me == 0 else [2])
    assert placed["x"].sharding.num_devices == 3
    keys = jax.random.split(jax.random.key(0), 6)
    draw = mesh.map_clients(
        lambda own, key: own["x"] + jax.random.normal(key, (2,)),
        backend="auto",
        num_devices=4,
    )
    drawn = jax.jit(draw)(placed, mesh.place(keys, num_devices=4))
    assert not drawn.is_fully_addressable
    alone = values + jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
    whole = mesh.to_host({"x": drawn})["x"]
    np.testing.assert_allclose(whole, alone, rtol=1e-6, atol=1e-6)


def check_what_all_share():
    state = {"w": np.float32([1, 2]), "n": jnp.int32(3)}
    shared = mesh.replicate(state, num_clients=4, num_devices=4)
    assert shared["w"].sharding.num_devices == 4
    jax.tree.map(np.testing.assert_array_equal, mesh.to_host(shared), state)


def check_clients_that_do_not_go_round():
    """One client, or as many as devices do not divide: each process does them all."""
    for count, num_devices in ((1, 4), (3, 2), (5, 3)):
        placed = mesh.place(np.ones((count, 2), np.float32), num_devices=num_devices)
        assert placed.is_fully_addressable
        assert placed.sharding.num_devices == 1
        np.testing.assert_array_equal(mesh.to_host(placed), np.ones((count, 2)))


def main(address: str, me: int) -> None:
    distributed.start(address, 2, me)
    mesh.start(4)
    assert (jax.process_index(), jax.device_count()) == (me, 8)
    check_what_process_0_says(me)
    check_what_fits_only_here(me)
    check_that_one_writes(me)
    check_clients_of_all_processes(me)
    check_what_all_share()
    check_clients_that_do_not_go_round()
    distributed.finish()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
