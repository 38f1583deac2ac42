"""A stage: one kind of training at one tier, run in rounds of a fixed size.

A protocol is a list of stages. The loop does not depend on what a stage does: it begins
a stage, runs its rounds (each is one compiled program with a donated state), ends it,
and accounts for the messages and the work.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import keys, mesh, packing
from ecogen_jax.energy import meter
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.messages import Delivery, Message
from ecogen_jax.relay.parties import Parties
from ecogen_jax.types import Key, Leaf, PyTree

Counter = int | jax.Array
Metrics = dict[str, jax.Array]


class Mapping(NamedTuple):
    """How parties are mapped to devices, see `mesh.map_clients`."""

    backend: str
    num_devices: int
    chunk: int = 0


class Rounds(NamedTuple):
    """The needs of a stage whose round is one program for many parties together.

    Attributes:
      feed: `feed(number) -> inputs` of round `number`, arrays with a leading axis over
        the parties that take part; the others are not copied to the JAX devices.
      sampled: `sampled(number)`, who they are, int32 `[parties]`.
      messages: what the server would send next and one message that it got, given the
        number of a round, from 0, the state after it and `said`.
      events: the faults of a round as JSON objects, given its number and `said`.
      flops: FLOPs by tier of round `number`.
      link_bytes: bytes up and down of round `number`, on the links of the end devices.
    """

    feed: Callable[[int], PyTree]
    sampled: Callable[[int], np.ndarray]
    messages: Callable[[int, PyTree, PyTree], list[Message]]
    events: Callable[[int, PyTree], list[dict[str, Any]]]
    flops: Callable[[int], dict[str, float]]
    link_bytes: Callable[[int], tuple[int, int]]


class Stage(NamedTuple):
    """One kind of training at one tier.

    Attributes:
      name: unique within a cycle, such as `down/cloud_edge`.
      phase: the part of the cycle it belongs to: `pretrain`, `local_only`, `baseline`,
        `down`, `local`, `up` or `federated`. A hop is a stage of phase `down` or `up`,
        and is called `<phase>/<sender>_<receiver>`.
      tier: the tier that does the work.
      student: the tier whose net is trained.
      rounds: number of rounds.
      num_parties: parties that work in parallel.
      begin: `begin(parties, key) -> (state, inputs)`, leaves with a leading party axis;
        a checkpoint holds the state; the inputs are rebuilt.
      one: `one(state, inputs, key) -> (state, metrics)`, a round of one party; see
        `together`.
      end: `end(parties, state) -> parties`.
      trained: the student's variables inside the state, `[num_parties, ...]`.
      deliveries: the messages that crossed links for this stage, given the parties
        after it.
      setup_flops: FLOPs of all parties before the first round, given the parties
        before it.
      ensemble: the tier whose nets together are the teachers of this stage, or "".
      teachers: `teachers(inputs, images) -> logits` of all teachers of one party of a
        hop together, for images in [0, 1]; None if there is only one.
      kind: which kind of net of the end tier is trained, if it has several.
      members: numbers of the parties in their tier; () for 0, 1, 2 and so on.
      evaluate_every: rounds from one evaluation and checkpoint to the next.
      together: set if a round is one program for all parties; `one` then takes the
        state and the inputs of all parties, and one key, and also returns `said`: what
        only the host reads.
    """

    name: str
    phase: str
    tier: str
    student: str
    rounds: int
    num_parties: int
    begin: Callable[[Parties, Key], tuple[PyTree, PyTree]]
    one: Callable[[PyTree, PyTree, Key], tuple[Any, ...]]
    end: Callable[[Parties, PyTree], Parties]
    trained: Callable[[PyTree], Variables]
    deliveries: Callable[[Parties], list[Delivery]]
    setup_flops: Callable[[Parties], float] = lambda parties: 0.0
    ensemble: str = ""
    teachers: Callable[[PyTree, jax.Array], jax.Array] | None = None
    kind: int = 0
    members: tuple[int, ...] = ()
    evaluate_every: int = 1
    together: Rounds | None = None

    @property
    def is_hop(self) -> bool:
        """Whether it distils the nets of one tier into those of another."""
        return self.phase in ("down", "up")

    @property
    def sender(self) -> str:
        """The tier of the teachers in a hop."""
        return self.name.partition("/")[2].partition("_")[0]

    @property
    def is_baseline(self) -> bool:
        """Whether its net is discarded: its cost is not part of the relay's."""
        return self.phase == "baseline" or self.name == "local_only"


def no_messages(parties: Parties) -> list[Delivery]:
    """For a stage that sends nothing."""
    del parties
    return []


def repeat(
    step: Callable[[PyTree, PyTree, Key], tuple[PyTree, Metrics]], num_steps: int
) -> Callable[[PyTree, PyTree, Key], tuple[PyTree, Metrics]]:
    """A round: `num_steps` steps in one `lax.scan`, metrics stacked over them."""

    def one_round(state: PyTree, inputs: PyTree, key: Key) -> tuple[PyTree, Metrics]:
        return jax.lax.scan(
            lambda state, key: step(state, inputs, key),
            state,
            jax.random.split(key, num_steps),
        )

    return one_round


def compile_round(stage: Stage, mapping: Mapping) -> Callable[..., Any]:
    """The stage's round for all parties: one program, its state donated.

    Only the backend `loop`, for debugging, has one program per party.

    Returns:
      `round(state, inputs, moment) -> (state, metrics)`, metrics `[parties, steps]`;
      see `keys.moment`. If the stage is `together`, it returns `(state, metrics,
      said)`.
    """
    if stage.together:
        # The output state has the sharding of the input, or round 2 is compiled again.
        state = mesh.everywhere(stage.num_parties, mapping.num_devices)
        one = _with_keys(stage, _unpacking(stage.one))
        return jax.jit(one, donate_argnums=0, out_shardings=(state, None, None))
    backend = mesh.resolve(mapping.backend)
    if backend == "loop":  # for debugging: one program per party
        one = mesh.map_clients(jax.jit(stage.one), backend=backend, num_devices=1)
        return _with_keys(stage, one)
    mapped = mesh.map_clients(
        stage.one,
        backend=backend,
        num_devices=mapping.num_devices,
        chunk=mapping.chunk,
    )
    return jax.jit(_with_keys(stage, mapped), donate_argnums=0)


def _unpacking(one: Callable[..., Any]) -> Callable[..., Any]:
    """A round whose inputs may be packed."""
    return lambda state, inputs, key: one(state, packing.unpacked(inputs), key)


def _with_keys(stage: Stage, one: Callable[..., Any]) -> Callable[..., Any]:
    """A round that derives its own keys: another call takes as long as a small round.

    Args:
      stage: whose round it is.
      one: `one(state, inputs, keys)`, see `party_keys`.
    """

    def one_round(state: PyTree, inputs: PyTree, moment: Leaf) -> tuple[Any, ...]:
        return one(state, inputs, party_keys(stage, *keys.of_moment(moment)))

    return one_round


def party_keys(stage: Stage, key: Key, cycle: Counter, number: Counter) -> jax.Array:
    """One key per party for round `number` of a cycle's stage, or one for all."""
    base = keys.stream(key, stage.name, cycle, number)
    if stage.together:
        return base
    return jax.vmap(lambda party: keys.stream(base, "party", party))(
        jnp.arange(stage.num_parties)
    )


def round_flops(stage: Stage, state: PyTree, inputs: PyTree) -> float:
    """FLOPs of one round, all parties, from the program of one party."""
    cost = meter.cost(stage.one, *one_party((state, inputs)), jax.random.key(0))
    return cost.flops * stage.num_parties


def one_party(tree: PyTree) -> PyTree:
    """Shapes of one party's part of arrays with a leading party axis."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree
    )
