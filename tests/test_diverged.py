"""What stops the loop: losses that are not finite, generators that collapse."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax.relay.stage import Rounds
from ecogen_jax.run.diverged import (
    COLLAPSE_STEPS,
    CollapsedError,
    DivergedError,
    check_round,
)
from tests.toy_loop import diverging, folder, log, player, read, stage, standing


@pytest.fixture
def play(tmp_path, monkeypatch):
    return player(tmp_path, monkeypatch)


def test_a_loss_that_is_not_finite_names_its_place_and_itself(play):
    bad = stage("down", "edge", metrics=diverging, parties=2)
    with pytest.raises(DivergedError) as error:
        play((1, bad))
    assert not isinstance(error.value, CollapsedError)
    message = str(error.value)
    for words in (
        "adversarial is inf in cycle 1, stage down/cloud_edge, round 2, step 3, ",
        "party 1.",
        f"newest checkpoint in {folder(play) / 'checkpoints'}",
        "lower the learning rates",
    ):
        assert words in message
    assert "balance" not in message  # it was lost one step later
    assert standing(folder(play)) == (1, 1)


def test_a_device_among_those_of_its_kind_is_told_by_its_own_number(play):
    bad = stage(
        "local_only", "end", metrics=diverging, parties=2, kind=1, members=(1, 3)
    )
    with pytest.raises(DivergedError, match=r"round 2, step 3, party 3\. "):
        play((0, bad), counts=np.ones((4, 3), np.int64), kinds=2)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            {"loss": np.nan, "balance": 1.0, "server_distillation": np.inf},
            "loss is nan (mean over the devices of the round), server_distillation is "
            "inf (mean over the steps of the server) in cycle 1, stage federated, "
            "round 2. ",
        ),
        (
            {"loss": 1.0, "one_class_steps": COLLAPSE_STEPS},
            "up to cycle 1, stage federated, round 2. ",
        ),
    ],
)
def test_of_a_federation_s_means_no_step_and_no_party_is_told(
    tmp_path, metrics, message
):
    together = Rounds(*[None] * len(Rounds._fields))
    one = stage("pretrain", "cloud", name="federated", together=together)
    means = {name: np.full((1, 1), value) for name, value in metrics.items()}
    with pytest.raises(DivergedError, match=re.escape(message)):
        check_round(means, cycle=1, stage=one, number=2, checkpoints=tmp_path)


def collapsing(until):
    def metrics(done, party):
        same = jnp.where(party == 1, jnp.minimum(done, until), 0)
        return {"balance": jnp.float32(0), "one_class_steps": same.astype(jnp.float32)}

    return metrics


def test_a_generator_of_one_class_stops_the_hop_and_says_what_to_change(play):
    metrics = collapsing(COLLAPSE_STEPS)
    bad = stage("down", "edge", metrics=metrics, parties=2, steps=30)
    with pytest.raises(CollapsedError) as error:
        play((1, bad))
    message = str(error.value)
    assert "stage down/cloud_edge, round 2, step 20, party 1." in message
    assert "lower down_cloud_edge.generator_learning_rate" in message
    assert "raise down_cloud_edge.weights.balance" in message
    assert standing(folder(play)) == (1, 1)


def test_one_step_less_is_no_collapse_and_the_count_is_no_loss(play):
    metrics = collapsing(COLLAPSE_STEPS - 1)
    path = play((1, stage("down", "edge", metrics=metrics, parties=2, steps=30)))
    names = {name for line in log(path) for name in line if name.endswith("_loss")}
    assert names == {"edge/balance_loss"}
    assert all(line["edge/balance_loss"] == 0 for line in log(path))


def test_the_same_run_fails_again_from_the_kept_state_and_a_mended_one_ends(play):
    bad = stage("down", "edge", metrics=diverging, parties=2, answers=(2, 0, 2))
    messages = []
    for _ in range(2):
        with pytest.raises(DivergedError) as error:
            play((1, bad))
        messages.append(str(error.value))
        assert standing(folder(play)) == (1, 1)
    assert messages[0] == messages[1]
    path = play((1, stage("down", "edge", parties=2, answers=(2, 0, 2))))
    assert path == folder(play)
    summary = read(path)
    # Of two restarts, one saved nothing.
    assert summary["resumed"] == 1
    assert len(read(path, "manifest.json")["resumed"]) == 2
    (hop,) = summary["hops"]
    # The accuracy after round 1 is that of the run that failed.
    assert hop["mean_over_training_validation"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    assert [line["round"] for line in log(path)] == [1, 2, 3]
