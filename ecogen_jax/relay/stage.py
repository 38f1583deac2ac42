"""A stage: one kind of training at one tier, run in rounds of a fixed size.

A protocol is a list of stages. The loop above knows nothing of what a stage does: it
begins one, runs its rounds (each one compiled, donated program), ends it, and
accounts for the messages and the work.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ecogen_jax import keys, mesh
from ecogen_jax.energy import meter
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.messages import Delivery, Message
from ecogen_jax.relay.parties import Parties
from ecogen_jax.types import Key, PyTree

Counter = int | jax.Array
Metrics = dict[str, jax.Array]


class Mapping(NamedTuple):
    """How parties are mapped to devices, see `mesh.map_clients`."""

    backend: str
    num_devices: int
    chunk: int = 0


class Rounds(NamedTuple):
    """What a stage needs whose round is one program for many parties together.

    Attributes:
      feed: `feed(number) -> inputs` of round `number`, arrays with a leading axis
        over the parties that take part; only they are brought to the devices.
      messages: what crossed links in the last round, given the state.
      events: what went wrong in round `number`, the last one, as JSON objects, given
        the state after it.
      flops: FLOPs by tier of round `number`, given the state and its inputs.
      link_bytes: bytes up and down of round `number`, on the links of the end devices.
    """

    feed: Callable[[int], PyTree]
    messages: Callable[[PyTree], list[Message]]
    events: Callable[[int, PyTree], list[dict[str, Any]]]
    flops: Callable[[int, PyTree, PyTree], dict[str, float]]
    link_bytes: Callable[[int], tuple[int, int]]


class Stage(NamedTuple):
    """One kind of training at one tier.

    Attributes:
      name: unique within a cycle, such as `down/cloud_edge`.
      phase: the part of the cycle it belongs to: `pretrain`, `local_only`, `baseline`,
        `down`, `local`, `up` or `federated`. A hop is a stage of phase `down` or `up`,
        and is called `<phase>/<sender>_<receiver>`.
      tier: who does the work.
      student: the tier whose net is trained.
      rounds: number of rounds.
      num_parties: parties that work side by side.
      begin: `begin(parties, key) -> (state, inputs)`, leaves with a leading
        party axis; the state is what a checkpoint holds, the inputs are rebuilt.
      one: `one(state, inputs, key) -> (state, metrics)`, a round of one party.
      end: `end(parties, state) -> parties`.
      trained: the student's variables inside the state, `[num_parties, ...]`.
      deliveries: the messages that crossed links for this stage, given the parties
        after it.
      setup_flops: FLOPs of all parties before the first round, given the parties
        before it.
      ensemble: the tier whose nets together teach this stage, or "".
      kind: which of the nets of the end tier is trained, where it has several.
      evaluate_every: rounds from one evaluation and checkpoint to the next.
      together: set where a round is one program for all parties; `one` then takes
        the state and the inputs of all of them, and one key.
    """

    name: str
    phase: str
    tier: str
    student: str
    rounds: int
    num_parties: int
    begin: Callable[[Parties, Key], tuple[PyTree, PyTree]]
    one: Callable[[PyTree, PyTree, Key], tuple[PyTree, Metrics]]
    end: Callable[[Parties, PyTree], Parties]
    trained: Callable[[PyTree], Variables]
    deliveries: Callable[[Parties], list[Delivery]]
    setup_flops: Callable[[Parties], float] = lambda parties: 0.0
    ensemble: str = ""
    kind: int = 0
    evaluate_every: int = 1
    together: Rounds | None = None

    @property
    def is_hop(self) -> bool:
        """Whether it distils the nets of one tier into those of another."""
        return self.phase in ("down", "up")

    @property
    def sender(self) -> str:
        """The tier that teaches in a hop."""
        return self.name.partition("/")[2].partition("_")[0]

    @property
    def is_baseline(self) -> bool:
        """Whether nobody keeps what it trains: its cost is none of the relay's."""
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

    Only the backend `loop`, which is there for debugging, has a program a party.

    Returns:
      `round(state, inputs, key, cycle, number) -> (state, metrics)`, metrics
      `[parties, steps]`; the key is the run's, see `party_keys`.
    """
    if stage.together:
        # The state goes out as it came in, or the second round is compiled again.
        state = mesh.everywhere(stage.num_parties, mapping.num_devices)
        one = _with_keys(stage, stage.one)
        return jax.jit(one, donate_argnums=0, out_shardings=(state, None))
    backend = mesh.resolve(mapping.backend)
    if backend == "loop":  # for debugging: one program a party, so an error names it
        one = mesh.map_clients(jax.jit(stage.one), backend=backend, num_devices=1)
        return _with_keys(stage, one)
    mapped = mesh.map_clients(
        stage.one,
        backend=backend,
        num_devices=mapping.num_devices,
        chunk=mapping.chunk,
    )
    return jax.jit(_with_keys(stage, mapped), donate_argnums=0)


def _with_keys(stage: Stage, one: Callable[..., Any]) -> Callable[..., Any]:
    """A round that derives its keys itself: a call for them is as long as a small one.

    Args:
      stage: whose round it is.
      one: `one(state, inputs, keys)`, see `party_keys`.
    """

    def one_round(
        state: PyTree, inputs: PyTree, key: Key, cycle: Counter, number: Counter
    ) -> tuple[PyTree, Metrics]:
        return one(state, inputs, party_keys(stage, key, cycle, number))

    return one_round


def party_keys(stage: Stage, key: Key, cycle: Counter, number: Counter) -> jax.Array:
    """One key a party for round `number` of a cycle's stage, or one for all."""
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
