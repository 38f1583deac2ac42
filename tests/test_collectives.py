"""Bytes that collectives send, by the ring algorithms."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from ecogen_jax.energy import meter


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def mesh(*sizes):
    names = ("client", "model")[: len(sizes)]
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))


@pytest.mark.parametrize(
    ("collective", "times"),
    [
        (lambda x: lax.psum(x, "client"), 2 * 3 / 4),
        (lambda x: lax.pmean(x, "client"), 2 * 3 / 4),
        (lambda x: lax.pmax(x, "client"), 2 * 3 / 4),
        (lambda x: lax.all_gather(x, "client"), 3),
        (lambda x: lax.psum_scatter(x, "client"), 3 / 4),
        (lambda x: lax.all_to_all(x, "client", 0, 0), 3 / 4),
        (lambda x: lax.ppermute(x, "client", [(0, 1), (1, 2), (3, 3)]), 2 / 4),
        (lambda x: lax.psum(x, ("client", "model")), 2 * 7 / 8),
        (lambda x: x * 2.0, 0),
    ],
)
def test_collectives_send_what_rings_send(collective, times):
    sharded = jax.shard_map(
        collective,
        mesh=mesh(4, 2),
        in_specs=P(("client", "model")),
        out_specs=P(("client", "model")),
        check_vma=False,
    )
    # Each of 8 shards holds 4 of 32 rows.
    count = meter.cost(sharded, array(32, 5))
    assert count.wire_bytes == 8 * times * 4 * 5 * 4


def test_collectives_in_a_loop_send_every_trip():
    def average(x):
        return lax.scan(lambda h, _: (lax.pmean(h, "client"), None), x, None, 10)[0]

    sharded = jax.shard_map(
        average, mesh=mesh(8), in_specs=P("client"), out_specs=P(), check_vma=False
    )
    assert meter.cost(sharded, array(8, 5)).wire_bytes == 10 * 2 * 7 * 5 * 4


def test_an_axis_of_vmap_sends_nothing():
    averaged = jax.vmap(lambda x: x - lax.pmean(x, "clients"), axis_name="clients")
    count = meter.cost(averaged, array(8, 5))
    assert count.wire_bytes == 0
    # One for each number added, and the difference; dividing is of the mean alone.
    assert count.flops == 8 * 5 + 5 + 8 * 5


def test_what_vmap_adds_up_is_sent_once():
    def step(x):
        added = jax.vmap(lambda row: lax.psum(row, ("own", "client")), axis_name="own")
        return added(x)

    sharded = jax.shard_map(
        step, mesh=mesh(8), in_specs=P("client"), out_specs=P(), check_vma=False
    )
    # Each shard adds its two rows of 5 numbers, and sends the sum around the ring.
    assert meter.cost(sharded, array(16, 5)).wire_bytes == 8 * 2 * 7 / 8 * 5 * 4
