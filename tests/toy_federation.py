"""Federations of tiny nets on a few images, from a config to states after rounds."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax import config as configs
from ecogen_jax import keys
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.federated import streaming
from ecogen_jax.relay.federated.engine import Federation
from ecogen_jax.relay.learn import Data
from ecogen_jax.relay.messages import ClientUpdate, ServerBroadcast
from ecogen_jax.relay.parties import Nets, Parties, Topology, initialise
from ecogen_jax.relay.protocols.federated import federated
from ecogen_jax.relay.settings import Evidence, Images, ReplaySettings, Route, Settings
from ecogen_jax.relay.stage import Mapping, Stage, compile_round
from ecogen_jax.run import build_federated, together
from tests import toy_nets
from tests.toy_nets import CLASSES, PIXELS, SHAPE

EDGES, PER_EDGE, LENGTH, HIDDEN = 2, 3, 8, 5
DEVICES, ACTIVE, STEPS = EDGES * PER_EDGE, (0, 1, 3, 4), 2
SIZES = np.array([8, 3, 5, 8, 7, 2], np.int32)
RATE, DECAY = 0.1, 0.5
KEY = jax.random.key(7)
HEAD_FLOATS = (HIDDEN + 1) * CLASSES
FLOATS = PIXELS * HIDDEN + HEAD_FLOATS


def net(*, norm: bool = False) -> Net:
    """Dense, BatchNorm if asked for, ReLU, dense; the last layer has its usual name."""

    def init(key):
        first, second = jax.random.split(key)
        params = {
            "hidden": {"kernel": 0.5 * jax.random.normal(first, (PIXELS, HIDDEN))},
            "classifier": {
                "kernel": 0.5 * jax.random.normal(second, (HIDDEN, CLASSES)),
                "bias": jnp.zeros(CLASSES),
            },
        }
        stats = {"norm": {"mean": jnp.zeros(HIDDEN), "var": jnp.ones(HIDDEN)}}
        return Variables(params, stats if norm else {})

    def apply(variables, *inputs, train):
        (images,) = inputs
        stats, head = variables.stats, variables.params["classifier"]
        x = (2 * images - 1).reshape(images.shape[0], PIXELS)
        x = x @ variables.params["hidden"]["kernel"]
        if norm:
            seen = {"mean": jnp.mean(x, 0), "var": jnp.var(x, 0)}
            used = seen if train else stats["norm"]
            x = (x - used["mean"][None]) * jax.lax.rsqrt(used["var"] + 1e-3)[None]
            if train:
                after = jax.tree.map(
                    lambda a, b: 0.9 * a + 0.1 * b, stats["norm"], seen
                )
                stats = {"norm": after}
        features = jax.nn.relu(x)
        logits = features @ head["kernel"] + head["bias"][None]
        return Output(logits, stats, {}, (features,))

    return Net(init, apply)


def mixed() -> Data:
    """Devices with random images of all classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (DEVICES, LENGTH, *SHAPE), np.uint8)
    labels = rng.integers(0, CLASSES, (DEVICES, LENGTH)).astype(np.int32)
    return Data(images, labels, SIZES)


def single() -> Data:
    """Devices with copies of one image each: every batch of theirs is the same."""
    rng = np.random.default_rng(1)
    one = rng.integers(0, 256, (DEVICES, 1, *SHAPE), np.uint8)
    labels = (np.arange(DEVICES, dtype=np.int32) % CLASSES)[:, None]
    return Data(
        np.repeat(one, LENGTH, axis=1), np.repeat(labels, LENGTH, axis=1), SIZES
    )


def config(name, **changes):
    """A config; `changes` are dotted fields of its section, dots as `__`."""
    made = configs.default()
    made.protocol.update(name=name, cycles=1)
    made.topology.update(num_edges=EDGES, devices_per_edge=PER_EDGE)
    made.nets.update(cloud="mlp", edge="mlp", end="mlp")
    made.mesh.update(backend="vmap", num_devices=1)
    made.federated.update(rounds=4, active=len(ACTIVE), steps=STEPS, batch_size=4)
    made.federated.update(learning_rate=RATE, decay=DECAY, evaluate_every=1)
    # So that a device does as many steps as a test wants.
    made.federated.faults.update(straggler=0.5, straggler_share=0.5)
    made.federated.hierarchical.period = 1
    # Adam makes steps of the size of its rate out of rounding errors.
    for method in ("fedgen", "relay_rounds"):
        made.federated[method].update(learning_rate=1e-7)
        made.federated[method].update(steps=2, batch_size=4, noise_size=3)
    made.federated.relay_rounds.update(hop_steps=2, hop_learning_rate=1e-7)
    changes = {
        f"federated.{name.replace('__', '.')}": changes[name] for name in changes
    }
    made.update_from_flattened_dict(changes)
    configs.check(made)
    return made


class Told(NamedTuple):
    """What the host reads of a round, see `engine.Said`."""

    metrics: dict[str, float]
    verdicts: np.ndarray
    down: ServerBroadcast
    up: ClientUpdate


class Toy(NamedTuple):
    """A federation, compiled when it is first played.

    Attributes:
      settings: all of it.
      stage: built from them.
      round: compiled for any data, and any devices if there are as many.
      first: the state before the first round, on the host.
      parties: as shapes, for functions of the stage that ask for them.
    """

    settings: Settings
    stage: Stage
    round: Callable[..., Any]
    first: Federation
    parties: Parties

    @property
    def method(self):
        return self.settings.federated.method

    def on(self, data, active=ACTIVE):
        """The same with other images, or other devices in all of its rounds."""
        federation, chosen = self.settings.federated, np.array(active, np.int32)
        rows = np.tile(chosen, (len(federation.plan.active), 1))
        plan = federation.plan._replace(
            active=rows,
            edge=rows // np.int32(PER_EDGE),
            fault=np.zeros(rows.shape, np.int8),
            steps_share=np.ones(rows.shape, np.float32),
        )
        settings = self.settings._replace(
            images=Images(data, toy_nets.held(data)),
            evidence=Evidence(np.zeros(CLASSES, np.int64), counts(data)),
            federated=federation._replace(plan=plan),
        )
        return self._replace(settings=settings, stage=federated(settings)[1][0])

    def play(self, rounds=2, *, state=None, change=lambda cohort, number: cohort):
        """Plays rounds.

        Args:
          rounds: how many.
          state: before them, if it is not the first; it may be of other devices.
          change: `change(cohort, number)`, of the devices of a round.

        Returns:
          The states on the host, the one before the first round too; and what was told
          of each round.
        """
        states, told = [self.first if state is None else state], []
        state = states[0]
        for number in range(int(state.number), int(state.number) + rounds):
            cohort = change(self.stage.together.feed(number), number)
            before = jax.tree.map(np.array, states[-1])  # its arrays are used up
            cohort = streaming.handed_out(before, cohort)
            core = jax.device_put(streaming.core(before))
            before = streaming.with_rows(core, streaming.rows_of(before))
            moment = keys.moment(keys.data(KEY), 1, number)
            state, seen, said = together.played(
                self.stage, self.round, number, before, cohort, moment
            )
            states.append(jax.device_get(state))
            metrics = {name: value.item() for name, value in seen.items()}
            down, up = self.stage.together.messages(number, state, said)
            told.append(Told(metrics, jax.device_get(said.verdicts), down, up))
        return states, told


@functools.cache
def toy(name, *, norm=False, backend="vmap", num_devices=1, active=ACTIVE, **changes):
    """Builds a federation on `mixed` images, once for all tests.

    Args:
      name: of the method.
      norm: whether the net has BatchNorm.
      backend: of the mapping over devices.
      num_devices: of the machine.
      active: who takes part in every round.
      **changes: of `config`.
    """
    made = config(name, **{"active": len(active), **changes})
    made.mesh.update(backend=backend, num_devices=num_devices)
    one, topology = net(norm=norm), Topology(EDGES, PER_EDGE)
    nets = Nets(one, one, (one,), toy_nets.generator())
    public = np.zeros((4, *SHAPE), np.uint8)
    federation = build_federated.federated(
        made, nets, topology, public=public, num_classes=CLASSES
    )
    data = mixed()
    settings = Settings(
        nets=nets,
        topology=topology,
        images=Images(data, toy_nets.held(data)),
        evidence=Evidence(np.zeros(CLASSES, np.int64), counts(data)),
        learning={},
        hops={},
        replay=ReplaySettings(1, 1),
        route=Route((), (), {}, ()),
        federated=federation,
    )
    (stage,) = federated(settings)[1]
    compiled = compile_round(stage, Mapping(backend, num_devices))
    parties = jax.eval_shape(
        lambda: initialise(KEY, nets, topology, num_classes=CLASSES)
    )
    # Not compiled, unlike `stage.begin`: it is faster for so few numbers.
    cohort = jax.device_put(stage.together.feed(0))
    first = jax.device_get(federation.engine.init(KEY, cohort))
    first = streaming.everybody(first, DEVICES)
    return Toy(settings, stage, compiled, first, parties).on(data, active)


def counts(data):
    """Images of each device by class, `[devices, classes]`."""
    real = np.arange(data.labels.shape[1])[None] < data.size[:, None]
    classes = np.arange(CLASSES)
    return (real[..., None] & (data.labels[..., None] == classes)).sum(axis=1)


def assert_close(one, other, rtol=1e-6, atol=1e-6):
    """Two trees of one structure and, nearly, of the same values."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other
    )


def distance(one, other):
    """Largest difference between two trees."""
    gaps = jax.tree.map(lambda a, b: np.max(np.abs(a - b), initial=0.0), one, other)
    return max(jax.tree.leaves(gaps), default=0.0)
