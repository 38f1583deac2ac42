"""The loop's extra work for a stage whose round is one program for many parties."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ecogen_jax import distributed, mesh, packing
from ecogen_jax.data.sources import Dataset
from ecogen_jax.relay.federated import streaming
from ecogen_jax.relay.federated.engine import SERVER, Federation
from ecogen_jax.relay.messages import audit, fingerprints
from ecogen_jax.relay.stage import Stage
from ecogen_jax.types import PyTree


class Auditor:
    """Looks for raw samples of one dataset in messages."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def count(self, messages: Sequence[object]) -> int:
        """Raw samples in all of them; it must stay 0.

        Args:
          messages: arrays that this process has whole.

        Raises:
          TypeError: one of them is not of `messages.MESSAGE_TYPES`.
        """
        size = self._dataset.test_images[0].size
        return sum(audit(each, self._real, size) for each in messages)

    def of_round(self, stage: Stage, number: int, state: PyTree, said: PyTree) -> int:
        """The same in the messages of a round, numbered from 1.

        Each process searches messages of its own; the largest of their counts is
        returned.
        """
        assert stage.together is not None
        messages = stage.together.messages(number - 1, state, said)
        return distributed.largest(self.count(messages))

    @functools.cached_property
    def _real(self) -> set[bytes]:
        train = fingerprints(self._dataset.train_images)
        return train | fingerprints(self._dataset.test_images)


def placed(stage: Stage, state: Federation, num_devices: int) -> Federation:
    """Puts the state of such a stage where its program runs.

    What there is for each device stays on the host, see `streaming`.
    """
    core = mesh.replicate(
        streaming.core(state), num_clients=stage.num_parties, num_devices=num_devices
    )
    return streaming.with_rows(core, streaming.kept_on_host(state))


def of_main(stage: Stage, state: PyTree) -> PyTree:
    """A stage's last state on the host, in every process that of process 0.

    Results of separate processes may differ in the last digit. What a federation needs
    for further rounds alone is left out.
    """
    if stage.together:
        state = replace(state, errors=(), known=())
    return distributed.from_main(mesh.to_host(state))


def inputs(stage: Stage, number: int, state: Federation, num_devices: int) -> PyTree:
    """The parties of round `number`, from 0, their data and what they keep.

    A program on one JAX device takes host arrays directly, in a fraction of the time of
    placing them first.
    """
    assert stage.together is not None
    fed = streaming.handed_out(state, stage.together.feed(number))
    if mesh.num_shards(stage.num_parties, num_devices) == 1:
        return fed
    return mesh.place(packing.packed(fed), num_devices=num_devices)


def played(
    stage: Stage,
    one_round: Callable[..., Any],
    number: int,
    state: Federation,
    given: PyTree,
    moment: PyTree,
) -> tuple[Federation, dict[str, Any], Any]:
    """Plays round `number`, from 0; the state before is used up.

    Args:
      stage: whose `together` is set.
      one_round: from `stage.compile_round`.
      number: of the round.
      state: before it, from `placed` or an earlier round.
      given: its `inputs`.
      moment: its key, see `keys.moment`.

    Returns:
      The state after it, its metrics, and what was said.
    """
    assert stage.together is not None
    after, metrics, said = one_round(streaming.core(state), given, moment)
    state = streaming.put_back(state, after, stage.together.sampled(number), said)
    return state, metrics, replace(said, kept=())


def loss_name(stage: Stage, metric: str) -> str:
    """What a metric of a stage is called in `metrics.jsonl`.

    The server of a federation is the cloud.
    """
    term = metric.removeprefix(SERVER)
    tier = stage.tier if term == metric else "cloud"
    return f"{tier}/{term}_loss"


def lines(stage: Stage, said: PyTree, number: int) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` after a round: its bytes, and its faults.

    Args:
      stage: whose `together` is set.
      said: in the round.
      number: of the round, from 1.
    """
    assert stage.together is not None
    up, down = stage.together.link_bytes(number - 1)
    sent = {"event": "round", "link/up_bytes": up, "link/down_bytes": down}
    wrong = stage.together.events(number - 1, said)
    return [{"round": number} | line for line in (sent, *wrong)]
