"""Federated methods whose server distils: what they share, and what each one is."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecogen_jax import config as configs
from ecogen_jax.relay import bank as banks
from ecogen_jax.relay.augmentation import Augmentation
from ecogen_jax.relay.distillers import DISTILLERS
from ecogen_jax.relay.distillers.base import Generation, Hop, Study, Weights
from ecogen_jax.relay.ensemble import Teachers, ensemble, equal_weights
from ecogen_jax.relay.federated import FEDERATED, streaming
from ecogen_jax.relay.federated.aggregate import mean
from ecogen_jax.relay.federated.base import (
    Arrived,
    Distillation,
    Local,
    Maker,
    Member,
    Task,
)
from ecogen_jax.relay.federated.compression import compression
from ecogen_jax.relay.federated.engine import Cohort, federation
from ecogen_jax.relay.federated.ensemble_rounds import asked_anew
from ecogen_jax.relay.federated.fedftg import hard_terms
from ecogen_jax.relay.federated.fedgen import Facts
from ecogen_jax.relay.federated.received import nets_alone, shares, teachers, told
from ecogen_jax.relay.federated.schedule import DROP, NAN, OK
from ecogen_jax.relay.federated.sharing import possible
from ecogen_jax.relay.learn import CHUNK, Data
from ecogen_jax.relay.stage import Mapping
from tests import toy_nets
from tests.toy_nets import CLASSES, LATENT, SHAPE

NET = toy_nets.classifier(5)
DEVICES, ACTIVE, IMAGES, BATCH, BANK = 4, 3, 12, 6, 20
WEIGHTS = Weights(cross_entropy=1.0, batchnorm=0.1, adversarial=0.5)
OPTIONS = {
    "feddf": {"steps": 3, "batch_size": BATCH, "learning_rate": 0.02},
    "fedftg": {
        "steps": 2,
        "student_steps": 2,
        "batch_size": BATCH,
        "learning_rate": 0.02,
        "generator_learning_rate": 0.01,
        "cross_entropy": 1.0,
        "diversity": 1.0,
    },
}
NAMES = (*OPTIONS, *configs.config_federated.ROUNDS)
RNG = np.random.default_rng(0)
PROXY = RNG.integers(0, 256, (30, *SHAPE), np.uint8)


def distillation(name, shift=0):
    generation = Generation(
        shape=SHAPE,
        num_classes=CLASSES,
        latent_size=LATENT,
        batch_size=BATCH,
        bank_size=BANK,
        learning_rate=0.01,
        weights=WEIGHTS,
        adversarial_mask="none",
        inner_steps=2,
        batchnorm_momentum=1.0,
        augmentation=Augmentation(shift),
    )
    study = Study(2, 4, 0.01, 1.0, keep_statistics=True)
    kind = DISTILLERS[name]
    distiller = kind.build(Hop(NET, (NET,), toy_nets.generator(), generation, study))
    return Distillation(distiller, generation, equal_weights, 2, kind.reads_logits)


def task(name, **changes):
    plain = Task(
        net=NET,
        shape=SHAPE,
        num_classes=CLASSES,
        num_devices=DEVICES,
        active=ACTIVE,
        num_edges=1,
        local=Local(2, 4, 0.1, 1.0, 0.0, stragglers=False),
        share="all",
        keeps_statistics=True,
        aggregate=lambda updates, weights, key: mean(updates, weights),
        options=OPTIONS.get(name, {}),
        proxy=PROXY,
        maker=Maker(toy_nets.generator(), LATENT),
    )
    rounds = configs.config_federated.ROUNDS
    if name in rounds:
        plain = plain._replace(distillation=distillation(rounds[name]))
    return plain._replace(**changes)


class Run:
    """An engine whose round is compiled, and counts its traces."""

    def __init__(self, name, **changes):
        self.traces = 0
        engine = federation(
            FEDERATED[name](task(name, **changes)),
            num_devices=DEVICES,
            compression=compression("none", keep=1.0, like=()),
            clip=0.0,
            linear=True,
            mapping=Mapping("vmap", 1),
        )

        def one_round(state, cohort, key):
            self.traces += 1
            return engine.round(state, cohort, key)

        self._compiled = jax.jit(one_round)
        first = jax.jit(engine.init)(jax.random.key(0), cohort(0))
        self.first = streaming.everybody(first, DEVICES)

    def round(self, state, cohort, key):
        """One round; the state before it stays as it is."""
        given = streaming.handed_out(state, cohort)
        after, *seen, said = self._compiled(streaming.core(state), given, key)
        rows = jax.tree.map(np.array, streaming.rows_of(state))
        state, device = streaming.with_rows(state, rows), cohort.members.device
        return streaming.put_back(state, after, device, said), *seen, said

    def rounds(self, number=2, seed=1, **how):
        """The state and the metrics after some rounds."""
        state, metrics = self.first, {}
        for at in range(number):
            key = jax.random.fold_in(jax.random.key(seed), at)
            state, metrics, _ = self.round(state, cohort(at, **how), key)
        return state, metrics


@functools.cache
def run(name):
    return Run(name)


def cohort(number, fault=(OK, OK, OK), spoilt=False):
    """The first devices; `spoilt` gives the second other images."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (ACTIVE, IMAGES, *SHAPE), np.uint8)
    labels = rng.integers(0, CLASSES, (ACTIVE, IMAGES), np.int32)
    if spoilt:
        images[1], labels[1] = 255 - images[1], 0
    device = np.arange(ACTIVE, dtype=np.int32)
    return Cohort(
        members=Member(
            device=device,
            edge=np.zeros(ACTIVE, np.int32),
            data=Data(images, labels, np.full(ACTIVE, IMAGES, np.int32)),
            counts=np.stack(
                [np.bincount(each, minlength=CLASSES) for each in labels]
            ).astype(np.float32),
            share=np.ones(ACTIVE, np.float32),
            number=np.full(ACTIVE, number, np.int32),
        ),
        fault=np.array(fault, np.int32),
    )


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def are_finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def differ(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(np.any(a != b) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_rounds_are_finite_and_repeatable_and_trace_once(name):
    state, metrics = run(name).rounds()
    assert are_finite((state.server, metrics))
    assert metrics["server_distillation"] > 0
    average, _ = run("fedavg").rounds()
    assert differ(average.server.variables.params, state.server.variables.params)
    again, _ = run(name).rounds()
    same(state.server, again.server)
    other, _ = run(name).rounds(seed=2)
    assert differ(state.server.variables, other.server.variables)
    assert run(name).traces == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_device_does_not_reach_the_server(name):
    # Its numbers are not finite, or it sends nothing, whatever it has learnt.
    refused, metrics = run(name).rounds(fault=(OK, NAN, OK))
    dropped, _ = run(name).rounds(fault=(OK, DROP, OK), spoilt=True)
    assert are_finite((refused.server, metrics))
    same(refused.server, dropped.server)
    everybody, _ = run(name).rounds()
    assert differ(refused.server.variables, everybody.server.variables)


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_hears_nobody_stays_as_it_was(name):
    state, metrics = run(name).rounds(fault=(DROP, DROP, NAN))
    same(state.server, run(name).first.server)
    assert are_finite(metrics)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_server_that_does_not_step_is_fedavg(name):
    options = {**OPTIONS[name], "learning_rate": 0.0}
    still, _ = Run(name, options=options).rounds()
    average, _ = run("fedavg").rounds()
    close(still.server.variables.params, average.server.variables.params)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"feddf"}))
def test_generated_images_leave_the_averaged_statistics(name):
    state, _ = run(name).rounds(number=1)
    average, _ = run("fedavg").rounds(number=1)
    close(state.server.variables.stats, average.server.variables.stats)


def close(one, other):
    """To rounding: one server adds up what comes, the other keeps it for its hop."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other
    )


def of(device, tree):
    return jax.tree.map(lambda leaf: leaf[device], tree)


def arrived(given, weights=(2.0, 0.0, 1.0)):
    """Made up; what the second device sends is NaN."""
    sent = NET.init(jax.random.key(1))
    keeps = given.keeps_statistics
    shape = replace(sent, stats={}) if keeps else sent

    def made(leaf):
        values = RNG.normal(size=(ACTIVE, *leaf.shape)).astype(np.float32)
        return jnp.asarray(values).at[1].set(jnp.nan)

    updates = jax.tree.map(made, shape)
    stats = jax.tree.map(made, sent.stats if keeps else {})
    stats = jax.tree.map(jnp.abs, stats)  # variances are not negative
    counts = jnp.array([[3.0, 0, 1], [jnp.nan, 1, 1], [1, 0, 0]])
    return sent, Arrived((), (), updates, Facts(stats, counts), jnp.array(weights))


@pytest.mark.parametrize("keeps_statistics", [True, False])
def test_teachers_are_the_nets_of_those_who_were_heard(keeps_statistics):
    given = task("feddf", keeps_statistics=keeps_statistics)
    sent, found = arrived(given)
    weights = jnp.array([[0.5, 0.25, 1.0], [0, 0, 0], [0.5, 0.75, 0]])
    ensembled = teachers(given, sent, nets_alone(found), weights)
    (nets,) = ensembled.groups
    for device in (0, 2):
        own, update = of(device, nets), of(device, found.updates)
        same(own.params, jax.tree.map(jnp.add, sent.params, update.params))
        stats = of(device, found.facts.stats)
        if not keeps_statistics:
            stats = possible(jax.tree.map(jnp.add, sent.stats, update.stats))
        same(own.stats, stats)
    same(of(1, nets), sent)
    # As with the others alone.
    images = jax.random.uniform(jax.random.key(3), (4, *SHAPE))
    kept = np.array([0, 2])
    alone = Teachers((jax.tree.map(lambda leaf: leaf[kept], nets),), weights[kept])
    np.testing.assert_allclose(
        ensemble([NET], ensembled, images).logits,
        ensemble([NET], alone, images).logits,
        rtol=1e-5,
    )


def test_weights_of_a_class_sum_to_one_over_the_devices_that_hold_it():
    _, found = arrived(task("fedftg"))
    np.testing.assert_array_equal(told(found), [[3, 0, 1], [0, 0, 0], [1, 0, 0]])
    weights = shares(found, told(found))
    np.testing.assert_allclose(weights, [[0.75, 0, 1], [0, 0, 0], [0.25, 0, 0]])
    # A plain ensemble is one of those who were heard.
    alike = shares(found, equal_weights(told(found)))
    np.testing.assert_allclose(alike, [[0.5, 0, 0.5], [0, 0, 0], [0.5, 0, 0.5]])


def test_feddf_draws_the_average_to_the_ensemble():
    options = {"steps": 60, "batch_size": 20, "learning_rate": 0.02}
    short = {**options, "steps": 1, "learning_rate": 1e-9}
    losses = [
        Run("feddf", options=each).rounds(1)[1]["server_distillation"]
        for each in (short, options)
    ]
    assert losses[1] < 0.7 * losses[0]


def test_feddf_needs_images():
    with pytest.raises(ValueError, match="public_fraction"):
        FEDERATED["feddf"](task("feddf", proxy=PROXY[:0]))


def test_fedftg_mines_images_on_which_the_average_errs():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 5, 3)).astype(np.float32)
    guess = rng.normal(size=(5, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 2, 1], np.int32)
    weights = rng.uniform(size=(2, 5)).astype(np.float32)
    given = [jnp.asarray(each) for each in (logits, guess, labels, weights)]
    found = hard_terms(*given)
    apart = np.abs(guess[None] - logits).mean(2)
    np.testing.assert_allclose(
        found["adversarial"], -(weights * apart).sum(0).mean(), rtol=1e-5
    )
    logs = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    chosen = logs[:, np.arange(5), labels]
    np.testing.assert_allclose(
        found["cross_entropy"], -(weights * chosen).sum(0).mean(), rtol=1e-5
    )

    def adversarial(logits, guess):
        return hard_terms(logits, guess, *given[2:])["adversarial"]

    of_devices, of_average = jax.grad(adversarial, (0, 1))(*given[:2])
    assert not np.any(of_devices)
    want = -(weights[..., None] * np.sign(guess[None] - logits)).sum(0) / (5 * 3)
    np.testing.assert_allclose(of_average, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", configs.config_federated.ROUNDS)
def test_rounds_keep_the_bank(name):
    first, _ = run(name).rounds(number=1)
    second, _ = run(name).rounds(number=2)
    extra = second.server.extra
    assert extra.bank.written == 4 * BATCH
    # The newest images have gone round the end of the bank.
    overwritten = 4 * BATCH - BANK
    same(
        extra.bank.images[overwritten : 2 * BATCH],
        first.server.extra.bank.images[overwritten : 2 * BATCH],
    )
    asked_anew = differ(
        extra.bank.logits[overwritten : 2 * BATCH],
        first.server.extra.bank.logits[overwritten : 2 * BATCH],
    )
    assert asked_anew == (name == "dense_rounds")


@pytest.mark.parametrize(
    ("method", "shift", "asked"),
    [
        ("dense_rounds", 0, True),
        ("dense_rounds", 1, False),
        ("co_boosting_rounds", 0, False),
    ],
)
def test_new_teachers_are_asked_about_a_bank_whose_logits_are_read(
    method, shift, asked
):
    size = CHUNK + 10
    distiller = configs.config_federated.ROUNDS[method]
    given = task(method, distillation=distillation(distiller, shift))
    sent, found = arrived(given)
    devices = teachers(given, sent, nets_alone(found), shares(found, told(found)))
    bank = banks.write(
        banks.empty(size, SHAPE, CLASSES),
        jnp.asarray(RNG.integers(0, 256, (size, *SHAPE), np.uint8)),
        jnp.arange(size, dtype=jnp.int32) % CLASSES,
        jnp.ones((size, CLASSES)),
    )
    after = asked_anew(given, bank, devices)
    images = bank.images.astype(jnp.float32) / 255
    want = ensemble([NET], devices, images, bank.labels).logits
    assert jnp.isfinite(want).all()
    np.testing.assert_allclose(
        after.logits, want if asked else bank.logits, rtol=1e-4, atol=1e-5
    )
    same(replace(after, logits=bank.logits), bank)
