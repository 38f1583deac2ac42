"""Every experiment in `configs/` loads, and every stage of its plan can be traced."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from ecogen_jax import config as configs
from ecogen_jax import keys
from ecogen_jax.config import HOPS
from ecogen_jax.relay.stage import one_party
from ecogen_jax.run.build import CHOICES, outline
from ecogen_jax.run.loop import run

FILES = sorted(map(str, pathlib.Path("configs").glob("**/*.py")))


def test_there_are_experiments():
    assert {"configs/quickstart.py", "configs/hops/c1.py"} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("argument", ["", ":smoke"])
def test_a_config_passes_every_check(file, argument):
    config = configs.load(file + argument)
    configs.check(config, CHOICES)
    assert config.is_locked
    assert configs.from_dict(configs.to_dict(config)).to_dict() == config.to_dict()


@pytest.mark.parametrize("file", FILES)
def test_an_experiment_is_named_as_its_file(file):
    name = "_".join(pathlib.Path(file).with_suffix("").parts[1:])
    assert configs.load(file).experiment == name
    assert configs.load(f"{file}:smoke").experiment == f"{name}_smoke"


@pytest.mark.parametrize("file", FILES)
def test_smoke_keeps_the_question_and_shrinks_the_rest(file):
    plain, smoke = configs.load(file), configs.load(f"{file}:smoke")
    assert smoke.protocol.name == plain.protocol.name
    assert smoke.protocol.route == plain.protocol.route
    assert len(smoke.protocol.baselines) >= min(1, len(plain.protocol.baselines))
    assert smoke.nets == plain.nets
    assert smoke.data.public_fraction == plain.data.public_fraction
    assert smoke.data.public_missing_classes == plain.data.public_missing_classes
    for hop in HOPS:
        assert smoke[hop].distiller == plain[hop].distiller
        assert (smoke[hop].rounds, smoke[hop].steps) == (2, 2)


def shapes(tree):
    return jax.tree.map(lambda a: (a.shape, np.dtype(a.dtype)), tree)


def num_stages(config):
    """Of one cycle and what goes before it."""
    if config.protocol.name == "relay_cycle":
        return 7
    first = 1 if config.data.public_fraction > 0 else len(config.nets.end.split(","))
    return first + len(config.protocol.baselines) + len(config.protocol.route)


# One of each kind of plan; `make test-all` traces every one.
TRACED = ("quickstart", "baselines", "c2", "d3", "deep_inversion")


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(
            file, marks=() if pathlib.Path(file).stem in TRACED else pytest.mark.slow
        )
        for file in FILES
        if "federated" not in file  # a round of theirs is no map over parties
    ],
)
def test_every_stage_of_a_full_experiment_traces(file):
    config = configs.load(file, ["data.name=fake"])
    experiment = outline(config)
    parties = experiment.parties
    stages = {stage.name: stage for _, stage in experiment.plan}
    assert len(stages) == num_stages(config)
    for stage in stages.values():
        state, inputs = jax.eval_shape(stage.begin, parties, keys.root(0))
        assert {leaf.shape[0] for leaf in jax.tree.leaves((state, inputs))} == {
            stage.num_parties
        }
        one = one_party((state, inputs))
        after, metrics = jax.eval_shape(stage.one, *one, keys.root(0))
        # A round gives a state that the next one takes without compiling anew.
        assert shapes(after) == shapes(one[0])
        assert len({leaf.shape for leaf in jax.tree.leaves(metrics)}) == 1
        ended = jax.eval_shape(stage.end, parties, state)
        assert shapes(ended) == shapes(parties)


@pytest.mark.parametrize(
    ("file", "nets", "tier", "baselines"),
    [
        pytest.param(
            "configs/hops/c2.py",
            ["nets.cloud=mlp", "nets.end=mlp,cnn_small"],
            "cloud",
            {"local_only", "ensemble_end"},
            marks=pytest.mark.slow,
        ),
        (
            "configs/hops/baselines.py",
            ["nets.cloud=mlp", "nets.edge=mlp"],
            "edge",
            {"student", "kd", "kd_noise", "kd_digits"},
        ),
    ],
)
def test_a_smoke_of_hops_ends_with_its_results(file, nets, tier, baselines, tmp_path):
    changes = [*nets, f"run.workdir={tmp_path}", "mesh.num_devices=1"]
    path = run(configs.load(f"{file}:smoke", changes))  # nets that compile in a moment
    summary = json.loads((path / "summary.json").read_text())
    assert summary["raw_samples_on_links"] == 0
    assert set(summary["baselines"]) == baselines
    (hop,) = summary["hops"]
    assert hop["tier"] == tier
    assert 0 <= hop["test"] <= 1
    assert 0 <= hop["together"]["test"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_every_experiment_runs_its_smoke(file, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "scripts/train.py", "--config", f"{file}:smoke"),
            f"--config.run.workdir={tmp_path}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*/*")
    summary = json.loads((path / "summary.json").read_text())
    assert summary["raw_samples_on_links"] == 0
    cycles = configs.load(f"{file}:smoke").protocol.cycles
    assert summary["phases"][-1]["cycle"] == cycles
