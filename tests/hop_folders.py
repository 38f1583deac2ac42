"""Run folders of hops, and what holds for the experiments that make them."""

from operator import attrgetter

from ecogen_jax.config_hops import first_tier
from ecogen_jax.report import runs
from ecogen_jax.run import start_from
from tests.run_folders import make_run


def hop(test, **changes):
    return {
        "test": test,
        **{"teacher": {"test": 0.989}, "together": {"test": 0.99}},
        **{"mean_over_training_validation": 0.9, "peak_validation": 0.985},
        "last_validation": test,
        "largest_drop_last_half": 0.001,
        "seconds": {"train": 100.0, "compile": 20.0},
        **changes,
    }


def made(workdir, experiment, accuracies, dataset="mnist", **changes):
    """One run a seed, whose hop taught a net of that accuracy."""
    students = ("student", "kd", "kd_usps", "kd_fashion_mnist", "kd_noise")
    baselines = {name: {"test": 0.9} for name in (*students, "ensemble_end")}
    baselines["local_only"] = {"end": 0.3, "end_own": 0.9, "end_unseen": 0.0}
    for seed, test in accuracies.items():
        start = {"protocol": {"start_from": f"runs/teacher/{seed}"}}
        fields = {"dataset": dataset, "baselines": baselines, **changes}
        make_run(workdir, experiment, seed, start, hops=[hop(test)], **fields)
    folder = workdir / experiment
    return [runs.read(path) for path in runs.find([folder])]


def assert_can_start(one, every, loaded):
    """An experiment finds its first senders, as its runs themselves will ask.

    Args:
        one: the experiment.
        every: all of its paper.
        loaded: gives the config of an experiment.
    """
    config, names = loaded(one), list(every)
    assert config.experiment == one.id
    if not one.start:
        return
    start = every[one.start]
    assert names.index(one.start) < names.index(one.id)
    assert set(one.seeds) <= set(start.seeds)
    # The same data, and the same net of the first senders.
    tier, there = first_tier(config), loaded(start)
    fields = (f"nets.{tier}", *start_from.DATA)
    fields += start_from.TOPOLOGY if tier == "end" else ()
    for field in fields:
        assert attrgetter(field)(config) == attrgetter(field)(there), field
