"""What every distiller is: two pure functions over one state."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from flax import struct

from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.bank import Bank
from ecogen_jax.relay.ensemble import Teachers
from ecogen_jax.types import Key, PyTree

Metrics = dict[str, jax.Array]


@struct.dataclass
class HopState:
    """Everything a hop in progress needs; checkpointed whole.

    Attributes:
      student: the net being taught.
      student_optimizer: optax state for `student.params`.
      generator: the image generator.
      generator_optimizer: optax state for `generator.params`.
      bank: recent images with their labels and the teachers' logits.
    """

    student: Variables
    student_optimizer: PyTree
    generator: Variables
    generator_optimizer: PyTree
    bank: Bank


class Distiller(NamedTuple):
    """The algorithm of a hop, for one receiver.

    Attributes:
      init: `init(student, generator) -> HopState`, with an empty bank.
      step: `step(state, teachers, key) -> (HopState, metrics)`: one generator step,
        a write to the bank and the student steps that go with it. The teachers are
        an argument, so no step can change them.
    """

    init: Callable[[Variables, Variables], HopState]
    step: Callable[[HopState, Teachers, Key], tuple[HopState, Metrics]]
