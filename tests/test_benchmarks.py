"""The benchmark's logic: turns, ratios, verdicts, and that the same work is timed."""

import importlib.util
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from benchmarks import hops, nets, rows, run, tasks
from benchmarks.cases import GROUPS
from benchmarks.ours import federation, hop, rounds
from benchmarks.peers import dense
from benchmarks.plain import bare, fedgen_jax, fedgen_sizes
from benchmarks.workers import Samples, Turns, Worker, WorkerError, take_turns
from ecogen_jax import config as configs
from ecogen_jax.config_presets import federated
from ecogen_jax.data import sources
from ecogen_jax.data.partition import split
from ecogen_jax.energy import meter
from ecogen_jax.nets.functional import Variables
from ecogen_jax.run import writer
from ecogen_jax.run.build import build_nets
from ecogen_jax.run.build_route import generation, route
from ecogen_jax.types import PyTree

BAR = {
    "id": "S9.peer",
    "group": "S9",
    "ours": "ours",
    "peers": "slow|fast",
    "peer": "somebody",
    "quantity": "work",
    "unit": "ms",
    "scale": 1000.0,
    "direction": ">=",
    "bar": 1.5,
    "aim": math.nan,
}


def samples(*seconds):
    return Samples(list(seconds), {"numpy": "1"})


FOUND = {
    "ours": samples(1.0, 2.0, 4.0),
    "slow": samples(9.0, 9.0, 9.0),
    "fast": samples(1.5, 8.0, 4.0),
}


def test_a_ratio_is_the_median_of_neighbours_with_the_best_way_of_the_peer():
    row = rows.judge(BAR, FOUND)
    assert row["ratio"] == 1.5  # of 1.5, 4 and 1; of the medians it would be 2
    assert (row["ratio_low"], row["ratio_high"]) == (1.0, 4.0)
    assert (row["ours_median"], row["peer_median"]) == (2000.0, 4000.0)
    assert row["ours_worst"] == 4000.0
    assert row["verdict"] == "met"
    assert rows.judge(BAR | {"bar": 1.51}, FOUND)["verdict"] == "missed"
    assert rows.judge(BAR | {"bar": math.nan}, FOUND)["verdict"] == "no bar"


def test_a_bar_from_above_is_ours_over_the_peer():
    row = rows.judge(BAR | {"direction": "<=", "bar": 0.6}, FOUND)
    assert row["ratio"] == pytest.approx(2 / 3)  # of the medians it would be 1 / 2
    assert row["verdict"] == "missed"
    assert rows.judge(BAR | {"direction": "<=", "bar": 0.7}, FOUND)["verdict"] == "met"


def test_a_rate_is_work_over_time():
    row = rows.judge(BAR | {"unit": "steps/s", "scale": 10.0}, FOUND)
    assert (row["ours_median"], row["ours_worst"]) == (5.0, 2.5)
    assert row["ratio"] == 1.5


def test_our_own_value_is_judged_where_there_is_no_peer():
    alone = BAR | {"peers": "", "direction": "<=", "bar": 2000.0}
    row = rows.judge(alone, FOUND)
    assert (row["judged"], row["verdict"]) == ("ours", "met")
    assert rows.judge(alone | {"bar": 1999.0}, FOUND)["verdict"] == "missed"


def test_a_failure_is_a_row_that_says_how():
    error, other = WorkerError("pfl is not installed"), WorkerError("no paper")
    for broken, reason in (
        ({"ours": error}, "ours: pfl is not installed"),
        ({"slow": error, "fast": other}, "slow: pfl is not installed; fast: no paper"),
        # Of two ways, the one that failed may be the faster one.
        ({"slow": error}, "slow: pfl is not installed"),
        ({"fast": other}, "fast: no paper"),
    ):
        row = rows.judge(BAR, FOUND | broken)
        assert row["verdict"] == "not run"
        assert row["reason"] == f"failed: {reason}"
        assert "ratio" not in row


def test_tables_are_merged_by_row_and_printed_with_their_failures(tmp_path):
    bars = rows.read().set_index("id", drop=False)
    both = [bars.loc[id].to_dict() for id in ("S3a.fedjax", "S3a.pfl")]
    error = WorkerError("pfl is not installed")
    found = {"ours": samples(1.0), "fedjax": samples(5.0), "pfl": error}
    rows.write("S3a", [rows.judge(bar, found) for bar in both], tmp_path)
    again = found | {"fedjax": samples(3.0)}
    path = tmp_path / "S3a.csv"
    merged = run._merged([rows.judge(both[0], again)], path)
    rows.write("S3a", merged, tmp_path)
    table = pd.read_csv(path).set_index("id")
    assert list(table["ratio"][:1]) == [3.0]
    assert list(table["verdict"]) == ["missed", "not run"]
    page = (tmp_path / "S3a.md").read_text()
    assert "- S3a.pfl failed: pfl: pfl is not installed" in page
    picture = rows.plot(tmp_path)
    assert picture is not None
    assert picture.stat().st_size > 0


@pytest.mark.parametrize(("words", "banner"), [(["--smoke"], True), ([], False)])
def test_a_smoke_says_what_it_is_and_judges_nothing(
    tmp_path, monkeypatch, capsys, words, banner
):
    monkeypatch.setattr(
        run,
        "take_turns",
        lambda party, turns: {one.name: samples(1.0) for one in party},
    )
    only = ["--only", "S3f.tiers", "--out", str(tmp_path)]
    assert run.main([*only, *words]) == 0
    printed = capsys.readouterr().out
    assert (run.SMOKE in printed) == banner
    assert bool(re.search(r"\b(met|missed)\b", printed)) != banner


def test_every_row_names_workers_and_every_worker_is_there():
    bars = rows.read()
    assert set(bars["group"]) == set(GROUPS)
    for bar in bars.to_dict("records"):
        group = GROUPS[bar["group"]]
        names = {worker.name for worker in group.workers}
        wanted = {bar["ours"], *filter(None, bar["peers"].split("|"))}
        assert wanted <= names, bar["id"]
        assert bar["id"].startswith(bar["group"].partition(".")[0])
    modules = {w.command[0] for group in GROUPS.values() for w in group.workers}
    assert all(importlib.util.find_spec(module) for module in modules)


def test_rows_are_chosen_by_id_or_by_part():
    bars = rows.read()
    gpu = {"S2.gpu.small", "S2.gpu.ngf64"}
    assert set(run.chosen(bars, ["S2.gpu"])["group"]) == gpu
    assert set(run.chosen(bars, ["S2"])["group"]) == gpu | {"S2.small", "S2.ngf64"}
    assert set(run.chosen(bars, ["S3a.flower"])["group"]) == {"S3a.two"}
    with pytest.raises(ValueError, match="no rows 'S7'"):
        run.chosen(bars, ["S7"])


def worker(name, path, fails_after="", sleep_s="0", **others):
    command = ("tests.benchmark_worker", name, str(path), fails_after, sleep_s)
    return Worker(name, command, **others)


def test_workers_take_turns_and_one_that_fails_leaves_the_others_alone(tmp_path):
    path = tmp_path / "units"
    turns = Turns(3, "wall_s", 1, 0.0, tmp_path / "logs")
    party = [worker("A", path), worker("B", path), worker("C", path, "3")]
    found = take_turns([*party, worker("D", path, python="nobody")], turns)
    # Two of each to warm up, then in turn; the third unit of C is its last.
    assert path.read_text() == "AABBCC" + "ABC" + "AB" + "AB"
    for name in "AB":
        assert isinstance(found[name], Samples)
        assert len(found[name].seconds) == 3
        assert found[name].about == {"numpy": np.__version__}
    assert str(found["C"]) == "RuntimeError: out of paper"
    assert str(found["D"]) == "nobody is not installed"


def test_a_worker_that_starts_anew_does_its_work_once_each_time(tmp_path):
    path = tmp_path / "units"
    turns = Turns(2, "cpu_s", 1, 0.0, tmp_path / "logs")
    found = take_turns([worker("A", path, "once", starts=2)], turns)
    assert isinstance(found["A"], Samples)
    assert len(found["A"].seconds) == 2
    # Once to warm the machine up, then twice for each sample.
    assert path.read_text() == "A" * 5


def test_the_run_folders_of_our_rounds_are_removed(tmp_path):
    every = [one for group in GROUPS.values() for one in group.workers]
    ours = {one.env for one in every if one.command[0] == "benchmarks.ours.rounds"}
    (env,) = ours
    told = tmp_path / "folder"
    one = worker("A", tmp_path / "units", env=env)
    one = one._replace(command=(*one.command, str(told)))
    take_turns([one], Turns(1, "wall_s", 1, 0.0, tmp_path / "logs"))
    assert not pathlib.Path(told.read_text()).exists()


def test_all_workers_are_started_again_but_for_those_that_failed(tmp_path):
    path = tmp_path / "units"
    turns = Turns(2, "wall_s", 1, 0.0, tmp_path / "logs", anew=3)
    party = [worker("A", path), worker("B", path), worker("C", path, "3")]
    found = take_turns(party, turns)
    assert path.read_text() == "AABBCC" + "ABC" + "AB" + 2 * ("AABB" + "ABAB")
    assert [len(found[name].seconds) for name in "AB"] == [6, 6]
    assert str(found["C"]) == "RuntimeError: out of paper"


def test_samples_are_of_one_unit_of_work(tmp_path):
    path = tmp_path / "units"
    turns = Turns(1, "wall_s", 1, 0.1, tmp_path / "logs")
    found = take_turns([worker("A", path, "", "0.02")], turns)
    units = len(path.read_text()) - 2
    assert 1 <= units <= 5  # 20 ms each, or more on a busy machine
    assert found["A"].seconds[0] >= 0.01  # a tick counts two


@pytest.fixture
def tiny(monkeypatch):
    """A task whose one step takes all samples, so that their order is no matter."""
    task = tasks.Task("mlp", 4, 6, 6, (4, 4, 1), 3)
    monkeypatch.setitem(tasks.TASKS, "tiny", task)
    return task


def test_the_bare_scan_makes_the_update_of_our_round(tiny):
    ours = rounds.Rounds(federation.of_task("tiny", federation.ALONE))
    before = jax.tree.map(jnp.copy, ours.state.server.variables.params)
    ours.one()
    images, labels = map(jnp.asarray, tasks.data(tiny))
    net, key = nets.of_task(tiny), jax.random.key(0)
    after = bare.one_round(net, tiny, before, images, labels, key)
    moved = jax.tree.map(jnp.subtract, after, before)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(moved)) > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        ours.state.server.variables.params,
        after,
    )


@pytest.mark.parametrize("net", ["logistic", "mlp"])
def test_the_gradients_in_numpy_are_those_of_our_net(tiny, net):
    task = tiny._replace(net=net)
    images, labels = (each[0] for each in tasks.data(task))
    x, params = jnp.asarray(tasks.as_floats(images)), dense.first(task)
    layers = ["hidden", "classifier"][-len(params) // 2 :]
    named = {
        layer: {"kernel": params[2 * i], "bias": params[2 * i + 1]}
        for i, layer in enumerate(layers)
    }

    def loss(params: PyTree) -> jax.Array:
        logits = nets.of_task(task).apply(Variables(params, {}), x, train=True).value
        chosen = jax.nn.log_softmax(logits)
        return -jnp.mean(chosen[np.arange(len(labels)), labels])

    wanted = jax.grad(loss)(jax.tree.map(jnp.asarray, named))
    found = dense.gradients(params, np.asarray(x).reshape(len(x), -1), labels)
    for i, layer in enumerate(layers):
        np.testing.assert_allclose(found[2 * i], wanted[layer]["kernel"], atol=1e-5)
        np.testing.assert_allclose(found[2 * i + 1], wanted[layer]["bias"], atol=1e-5)


def test_a_round_is_told_with_its_faults(tiny, tmp_path):
    made = federation.of_task("tiny", federation.ALONE, faulty=True)
    with writer.open_run(tmp_path, "benchmark", 0, {}) as folder:
        told = rounds.Told(made, folder)
        for _ in range(6):
            told.one_told()
    (file,) = tmp_path.glob("**/metrics.jsonl")
    lines = pd.read_json(file, lines=True)
    assert (lines["event"] == "round").sum() == 6
    assert (lines["event"] == "fault").any()
    assert (lines["end/energy_j"].dropna() > 0).all()


def test_a_federation_begins_anew_with_its_schedule(tiny, monkeypatch):
    monkeypatch.setattr(federation, "ROUNDS", 2)
    ours = rounds.Rounds(federation.of_task("tiny", federation.ALONE))
    for _ in range(3):
        ours.one()
    assert (ours.number, ours.state.number) == (1, 1)
    assert not ours.said.verdicts.any()


def test_the_plain_fedgen_has_the_published_sizes():
    config = federated("benchmark", "fedgen")
    section, own = config.federated, config.federated.fedgen
    sizes = fedgen_sizes
    devices = config.topology.num_edges * config.topology.devices_per_edge
    assert (devices, section.active) == (sizes.DEVICES, sizes.ACTIVE)
    data, labels = config.data, sources.outline("mnist").train_labels
    parts = split(
        labels,
        public_fraction=data.public_fraction,
        validation_fraction=data.validation_fraction,
        public_missing_classes=(),
        rng=np.random.default_rng(0),
    )
    assert len(parts.private_train) == devices * sizes.IMAGES
    assert (section.steps, section.batch_size) == (sizes.STEPS, sizes.BATCH)
    assert section.learning_rate == sizes.LEARNING_RATE
    assert section.decay == sizes.LEARNING_DECAY
    assert (own.steps, own.batch_size) == (sizes.GENERATOR_STEPS, sizes.GENERATOR_BATCH)
    assert (own.learning_rate, own.decay) == (
        sizes.GENERATOR_RATE,
        sizes.GENERATOR_DECAY,
    )
    assert own.weight_decay == sizes.WEIGHT_DECAY
    assert (own.noise_size, own.weight) == (sizes.NOISE, sizes.GUIDANCE)
    shapes = build_nets(config, (28, 28, 1), sizes.CLASSES)
    ours = jax.eval_shape(shapes.cloud.init, jax.random.key(0)).params
    assert count(ours) == count(fedgen_jax.first(jax.random.PRNGKey(0))[0])


@pytest.mark.slow
def test_the_ways_of_the_plain_fedgen_make_the_same_round(monkeypatch):
    monkeypatch.setattr(fedgen_sizes, "STEPS", 3)
    monkeypatch.setattr(fedgen_sizes, "ACTIVE", 4)
    images, labels, counts = fedgen_sizes.data()
    data = [jnp.asarray(each) for each in (tasks.as_floats(images), labels, counts)]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        before = fedgen_jax.first(jax.random.PRNGKey(0))[:2]
        wanted, *others = (
            fedgen_jax.one_round(fedgen_jax.first(jax.random.PRNGKey(0)), *data, 1, way)
            for way in fedgen_jax.WAYS
        )
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), wanted[:2], before)
    assert all(leaf > 1e-5 for leaf in jax.tree.leaves(moved))
    # Not the generator, in which Adam makes steps of rounding errors.
    for found in others:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            found[:2],
            wanted[:2],
        )


@pytest.mark.slow
def test_a_step_of_the_plain_fedgen_has_the_operations_of_ours():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        params, stats, generator, _ = fedgen_jax.first(jax.random.PRNGKey(0))
        own_stats = jax.tree.map(lambda leaf: leaf[0], stats)
        images, labels, _ = fedgen_sizes.data()
        data = (jnp.asarray(tasks.as_floats(images)), jnp.asarray(labels))
        which = (jnp.int32(0), jax.random.PRNGKey(0))
        step = (params, own_stats, *which, generator, *data, 1.0, 0.1)
        plain = meter.cost(fedgen_jax.local_step, *step)
    stage, _ = federation.fedgen(federation.ALONE)
    assert stage.together is not None
    work = stage.together.flops(0)
    steps = fedgen_sizes.ACTIVE * fedgen_sizes.STEPS
    assert plain.flops * steps == pytest.approx(work["end"], rel=0.1)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_small_hop_is_that_of_its_config():
    config = configs.load("configs/hops/a2.py")
    small, section = hops.HOPS["small"], config.down_cloud_edge
    way = route(config, lambda name: np.zeros(0))
    how, study = hop.sizes(small)
    assert how == generation(config, way.legs[0], small.shape, hops.CLASSES)
    assert study.steps == section.student_steps
    assert study.total_steps == section.rounds * section.steps * study.steps
    assert (study.learning_rate, study.temperature) == (
        section.learning_rate,
        section.temperature,
    )
    theirs = build_nets(config, small.shape, hops.CLASSES)
    wanted = (theirs.cloud, theirs.edge, theirs.generator)
    for ours, net in zip(hop.all_nets(small), wanted, strict=True):
        shapes = [jax.eval_shape(one.init, jax.random.key(0)) for one in (ours, net)]
        assert shapes[0] == shapes[1]
