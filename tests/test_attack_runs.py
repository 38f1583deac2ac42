"""Attacks on federations: messages heard as they were sent, tables, guarantees."""

from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ecogen_jax import config as configs
from ecogen_jax import mesh, packing
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.federated import privacy, streaming
from ecogen_jax.relay.stage import party_keys
from ecogen_jax.report import attacks as shown
from ecogen_jax.run import attacks
from ecogen_jax.run.attacks import inversion, membership, overhear
from ecogen_jax.run.attacks.protection import NOTHING, Protection
from ecogen_jax.run.loop import run
from ecogen_jax.run.results import privacy_of

NETS = [f"nets.{tier}=mlp" for tier in ("cloud", "edge", "end")]
TINY = attacks.Sizes(images=12, victims=1, iterations=2, resamples=20)


def config(method, *overrides):
    spec = f"configs/federated/{method}.py:smoke"
    return configs.load(spec, [*NETS, *overrides])


@pytest.fixture(scope="module")
def played():
    """A federation after one round, and what was said in the second."""
    begun = overhear.begun(
        config("fedavg", "federated.compression=int8", "federated.steps=1")
    )
    experiment = begun.experiment
    stage = experiment.plan[-1].stage
    one_round = jax.jit(stage.one)
    states, said = [begun.first], None
    for number in range(2):
        key = party_keys(stage, experiment.key, overhear.CYCLE, number)
        before = jax.tree.map(np.array, states[-1])
        cohort = streaming.handed_out(before, stage.together.feed(number))
        state, _, said = one_round(streaming.core(before), cohort, key)
        device = stage.together.sampled(number)
        states.append(streaming.put_back(before, state, device, said))
    return begun._replace(late=states[1]), said


@pytest.fixture(scope="module")
def heard(played):
    begun, _ = played
    return overhear.overhear(begun, begun.late, np.random.default_rng(0), most=16)


def test_the_message_is_the_one_that_was_sent(played, heard):
    begun, said = played
    assert [one.device for one in heard] == begun.plan.active[1].tolist()
    shown_device = heard[1 % len(heard)]  # the engine keeps the last message
    payload, _ = packing.unpacked(mesh.of_last_share(said.messages))
    sent = jax.tree.map(
        lambda values, scale: np.float32(values) * scale, payload.values, payload.scales
    )
    found = jax.tree.leaves(shown_device.change)
    for one, wanted in zip(found, jax.tree.leaves(sent), strict=True):
        np.testing.assert_allclose(one, wanted[0], rtol=1e-3, atol=1e-6)


def test_members_are_the_devices_own_and_others_are_of_the_validation_split(
    played, heard
):
    begun, _ = played
    experiment = begun.experiment
    data = experiment.plan[-1].stage.together.feed(1).members.data
    held = {
        image.tobytes(): label
        for image, label in zip(*experiment.validation, strict=True)
    }
    for place, one in enumerate(heard):
        size = data.size[place]
        own = {
            image.tobytes(): label
            for image, label in zip(
                data.images[place][:size], data.labels[place][:size], strict=True
            )
        }
        for images, known in ((one.images.members, own), (one.images.others, held)):
            assert len(images) > 0
            labels = [known[image.tobytes()] for image in images]
            assert labels == one.images.labels.tolist()


def test_the_net_of_a_device_is_the_broadcast_one_and_its_update(played, heard):
    begun, _ = played
    one = heard[0]
    found = overhear.rebuilt(begun, one)
    for after, before, change in zip(
        jax.tree.leaves(found.params),
        jax.tree.leaves(begun.late.server.variables.params),
        jax.tree.leaves(one.change.params),
        strict=True,
    ):
        np.testing.assert_allclose(after, before + change)


def test_a_device_begins_with_the_net_in_training_not_with_the_served_average():
    begun = overhear.begun(config("relay_rounds", "federated.steps=1"))
    server = begun.late.server
    served = jax.tree.map(lambda leaf: leaf + 1, server.extra.served)
    server = replace(server, extra=replace(server.extra, served=served))
    late = replace(begun.late, server=server)
    heard = overhear.overhear(begun, late, np.random.default_rng(0), most=4)
    jax.tree.map(np.testing.assert_array_equal, heard[0].reference, server.variables)
    assert heard[0].received.generator is not None


def test_an_update_and_a_broadcast_are_judged_and_protection_changes_one(played, heard):
    begun, _ = played
    rng = np.random.default_rng(0)
    protections = [NOTHING, Protection(0.5, 1.0)]
    rows = pd.DataFrame(membership.rows(begun, heard, protections, rng, resamples=20))
    assert rows["message"].tolist() == ["update"] * 4 + ["broadcast"]
    assert set(rows["protection"]) == {"none", "clip 0.5, noise 1"}
    assert rows["auc"].between(0, 1).all()
    assert (rows["auc_low"] <= rows["auc_high"]).all()
    assert (rows["round"] == 2).all()


def test_one_image_of_an_mlp_is_read_off_and_noise_hides_it(played, heard):
    begun, _ = played
    protections = [NOTHING, Protection(0.5, 1.0)]
    sizes = {"victims": 1, "iterations": 1}
    found = pd.DataFrame(inversion.rows(begun, heard, protections, **sizes))
    # Each of two sizes, in two rounds, plain and protected; one of them in closed form.
    assert len(found) == 2 * 2 * 2 + 2 * 2
    solved = found[found["attack"] == "closed form"]
    plain = solved[solved["protection"] == "none"]
    noisy = solved[solved["protection"] != "none"]
    assert (plain["psnr_db"] > 40).all()
    assert (plain["gain_db"] > 20).all()
    assert (noisy["psnr_db"] < 15).all()
    assert (noisy["gain_db"].abs() < 5).all()


def test_victims_of_one_device_have_their_own_start_images_and_noise(played, heard):
    begun, _ = played
    starts, noises = [], []

    def nothing(before, *rest):
        return jax.tree.map(np.zeros_like, before.params)

    def start(before, update, like, labels, rate, key):
        noises.append(np.asarray(update["dense1"]["kernel"]))
        starts.append(np.asarray(jax.random.uniform(key, like.shape)))
        return starts[-1]

    attack = inversion.Attack("start", nothing, start)
    pairs = inversion._victims(heard[:1], 1, 2)
    assert {pair.device for pair in pairs} == {heard[0].device}
    for pair in pairs:
        inversion._errors(begun, begun.late, pair, Protection(0.5, 1.0), attack)
    for drawn in (starts, noises):
        assert len({one.tobytes() for one in drawn}) == 4  # two images for each pair


def test_the_intervals_of_an_inversion_are_students_over_its_pairs():
    gains = np.array([1.0, 2.0, 4.0, 9.0])
    errors = np.array([[10 + gain, 10.0, 0.1, 0.2] for gain in gains])
    found = inversion._quality(errors)
    wanted = stats.ttest_1samp(gains, 0.0).confidence_interval(0.95)
    assert found["gain_db"] == pytest.approx(4.0)
    assert found["gain_db_low"] == pytest.approx(wanted.low)
    assert found["psnr_db_high"] == pytest.approx(10 + wanted.high)
    alone = inversion._quality(errors[:1])
    assert alone["gain_db"] == pytest.approx(1.0)
    assert np.isnan([alone["gain_db_low"], alone["mse_high"]]).all()


def test_protection_clips_and_adds_noise_of_its_deviation():
    update = {"a": np.full(4000, 1.0, np.float32)}
    key = jax.random.key(0)
    assert NOTHING(update, key) is update
    clipped = Protection(0.5, 0.0)(update, key)["a"]
    assert np.linalg.norm(clipped) == pytest.approx(0.5, rel=1e-5)
    noisy = Protection(0.5, 2.0)(update, key)["a"]
    assert np.std(noisy - clipped) == pytest.approx(1.0, rel=0.1)


# What summary.json says of privacy.


def test_epsilon_is_told_of_private_federations_alone():
    private = config(
        "fedavg",
        "federated.privacy.clip=0.5",
        "federated.statistics=local",
        "federated.privacy.noise_multiplier=2.0",
    )
    rounds, active = private.federated.rounds, private.federated.active
    devices = private.topology.num_edges * private.topology.devices_per_edge
    found = privacy_of(private)
    assert found == {
        "epsilon": privacy.epsilon(
            noise_multiplier=2.0,
            sampling_rate=active / devices,
            rounds=rounds,
            delta=1e-5,
        ),
        "epsilon_fixed_size": privacy.epsilon_of_fixed_size(
            noise_multiplier=2.0,
            active=active,
            clients=devices,
            rounds=rounds,
            delta=1e-5,
        ),
        "delta": 1e-5,
        "noise_multiplier": 2.0,
        "clip": 0.5,
        "sampling": {
            "rate": active / devices,
            "drawn": "fixed_size",
            "accounted_as": "poisson",
        },
    }
    assert 0 < found["epsilon"] < found["epsilon_fixed_size"] < 10
    assert privacy_of(config("fedavg")) is None
    other = configs.load("configs/quickstart.py", ["federated.privacy.clip=0.5"])
    assert privacy_of(other) is None


# Tables and the plot.


def fabricated():
    facts = {"protocol": "fedgen", "synthetic_data": False, "protection": "none"}
    judged = {"auc": 0.61, "auc_low": 0.55, "auc_high": 0.66, "chance_auc": 0.5}
    judged |= {"tpr": 0.031, "tpr_low": 0.01, "tpr_high": 0.05, "chance_tpr": 0.01}
    found = {"steps": 20, "batch": 8, "mse": 0.02, "chance_mse": 0.1}
    for name, value in (("psnr_db", 17.0), ("chance_psnr_db", 10), ("gain_db", 7.0)):
        found |= {name: value, f"{name}_low": value - 2, f"{name}_high": value + 1}
    return pd.DataFrame(
        [
            facts | judged | {"message": "update", "attack": "low loss", "round": 181},
            facts | found | {"message": "update", "attack": "inversion", "round": 1},
        ]
    )


def test_the_tables_hold_the_figures_their_intervals_and_chance():
    table = shown.membership(fabricated())
    assert table.title == "fedgen: membership inference (chance: 0.5 and 1 %)"
    assert table.rows == [
        ("update", "low loss", "181", "0.610 [0.550, 0.660]", "3.1% [1.0%, 5.0%]")
    ]
    (row,) = shown.inversion(fabricated()).rows
    assert row == (
        *("inversion", "20", "8", "1", "17.0", "10.0", "+7.0 [+5.0, +8.0]"),
        *("0.020", "0.100"),
    )


def test_a_single_pair_of_updates_is_shown_without_an_interval():
    rows = fabricated()
    ends = ["psnr_db", "chance_psnr_db", "gain_db"]
    rows[[f"{name}_{end}" for name in ends for end in ("low", "high")]] = np.nan
    (row,) = shown.inversion(rows).rows
    assert row[6] == "+7.0"
    _, axes = shown.draw(rows).axes
    assert [float(line.get_xdata()[0]) for line in axes.lines[::3]] == [17.0, 10.0]


def test_the_plot_has_chance_beside_each_attack_and_a_panel_for_each_quantity():
    rows = fabricated()
    first, second = shown.draw(rows).axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["update: low loss"]
    assert [text.get_text() for text in second.get_yticklabels()] == [
        "inversion: 8 images, 20 steps, round 1"
    ]
    labels = [text.get_text() for text in second.get_legend().get_texts()]
    assert labels == ["attack", "chance"]
    rows["synthetic_data"] = True
    # Where no update is sent, the table has no column of inversion at all.
    figure = shown.draw(rows[rows["auc"].notna()].dropna(axis="columns"))
    assert len(figure.axes) == 1
    assert "SYNTHETIC" in figure.get_suptitle()


# Finished runs, from their folders.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "messages"),
    [
        ("fedgen", {"update", "broadcast", "generator"}),
        ("relay_rounds", {"update", "broadcast", "generator"}),
        ("feddistill", {"logits"}),
        ("scaffold", {"update", "broadcast"}),
        ("fedavg_head", {"update"}),
        ("hierarchical", {"update", "broadcast"}),
    ],
)
def test_what_a_finished_run_sends_is_attacked(tmp_path, method, messages):
    path = run(config(method, f"run.workdir={tmp_path}"))
    found = attacks.attack(path, sizes=TINY, protections=[NOTHING])
    assert set(found["message"]) == messages
    assert found["synthetic_data"].all()
    judged = found["auc"].dropna()
    assert judged.between(0, 1).all()


@pytest.mark.slow
def test_runs_that_cannot_be_heard_say_why(tmp_path):
    workdir = f"run.workdir={tmp_path}"
    silent = run(config("alone", workdir))
    with pytest.raises(ValueError, match="sends nothing"):
        attacks.attack(silent, sizes=TINY, protections=[NOTHING])
    short = run(config("fedavg", workdir, "federated.evaluate_every=2"))
    with pytest.raises(FileNotFoundError, match="evaluate_every below"):
        overhear.finished(short)


def test_variables_alone_are_a_change_of_a_net():
    net = Variables({"a": np.zeros(1)}, {})
    assert overhear._change(net) is net
    assert overhear._change(()) is None
