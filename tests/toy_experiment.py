"""An experiment of nets that give one class to every image: scores known by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from ecogen_jax.data.sources import Dataset
from ecogen_jax.energy import rates
from ecogen_jax.nets.functional import Net, Output, Variables
from ecogen_jax.relay.messages import GeneratorAndStudent
from ecogen_jax.relay.parties import Nets, Parties, Topology
from ecogen_jax.relay.stage import Mapping
from ecogen_jax.run.build import Experiment, Plan
from tests import toy_nets

CLASSES = toy_nets.CLASSES


def answer(variables, *inputs, train):
    """A net that gives the class in its parameters to every image."""
    del train
    (images,) = inputs
    logits = jax.nn.one_hot(variables.params, CLASSES)
    return Output(jnp.broadcast_to(logits[None], (len(images), CLASSES)), {}, {}, ())


def init(key):
    del key
    return Variables(jnp.zeros((), jnp.int32), {})


def always(*classes):
    """Variables of as many parties, each with its own class."""
    return Variables(np.array(classes, np.int32), {})


def labelled(*counts):
    """Blank images, so many of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.zeros((len(labels), *toy_nets.SHAPE), np.uint8), labels


NET = Net(init, answer)
NO_RELAY = GeneratorAndStudent(always(0), always(0), np.zeros((1, CLASSES), np.int32))
RATES = rates.rates(
    devices=dict.fromkeys(rates.TIERS, "t4"),
    links=dict.fromkeys(rates.LINKS, "wifi"),
    country="World",
    contracted_share=dict.fromkeys(rates.TIERS, 0.0),
)


def experiment(test, validation, label_counts, *, plan=(), kinds=1, partition=None):
    """Builds it, with one cloud, two edges and a device for each row of counts.

    Args:
      test: test images of each class.
      validation: validation images of each class.
      label_counts: private images by device and class.
      plan: pairs of cycle and stage.
      kinds: how many kinds of net the devices have.
      partition: arrays of the split, if any matter.
    """
    images, labels = labelled(*test)
    dataset = Dataset("fake", images, labels, images, labels, CLASSES, True, "here")
    topology = Topology(2, len(label_counts) // 2)
    ends = [topology.devices_of_kind(kind, kinds) for kind in range(kinds)]
    return Experiment(
        dataset=dataset,
        validation=labelled(*validation),
        topology=topology,
        nets=Nets(NET, NET, (NET,) * kinds, NET),
        parties=Parties(
            always(0),
            always(1, 2),
            tuple(always(*(some % CLASSES)) for some in ends),
            NO_RELAY,
            NO_RELAY,
        ),
        plan=[Plan(*entry) for entry in plan],
        cycles=1,
        mapping=Mapping("vmap", 1),
        rates=RATES,
        partition=partition or {},
        label_counts=np.array(label_counts),
        key=jax.random.key(0),
    )
