"""The loop over toy stages, whose parties give known answers."""

import json

import jax.numpy as jnp
import numpy as np

from ecogen_jax import config as configs
from ecogen_jax.nets.functional import Variables
from ecogen_jax.relay.stage import Stage, no_messages, repeat
from ecogen_jax.run import loop
from ecogen_jax.run.checkpoint import Checkpoints
from tests.toy_experiment import always, experiment

STEPS, ROUNDS = 4, 3
TEST, VALIDATION = (5, 4, 1), (1, 1, 2)
COUNTS = np.array([[3, 1, 0], [0, 0, 2]])
NAMES = {"pretrain": "pretrain", "local_only": "train", "baseline": "baseline/kd"}
NAMES |= {"down": "down/cloud_edge", "up": "up/end_edge"}


def stage(
    phase,
    student,
    *,
    metrics=None,
    answers=(0,) * ROUNDS,
    parties=1,
    steps=STEPS,
    **more,
):
    """A stage whose parties all answer `answers[r]` after round r; it costs FLOPs."""
    table = jnp.asarray(answers, jnp.int32)

    def step(state, inputs, key):
        del key
        done = state["done"] + 1
        answer = table[(done - 1) // steps]
        work = jnp.sum(jnp.ones((8, 8)) @ jnp.ones((8, 8))) * 0.0
        seen = {"loss": 1.0 + work} if metrics is None else metrics(done, inputs)
        return {"net": Variables(answer, {}), "done": done}, seen

    def begin(parties_, key):
        del parties_, key
        first = {"net": always(*[0] * parties), "done": np.zeros(parties, np.int32)}
        return first, np.arange(parties, dtype=np.int32)

    def end(everybody, state):
        if phase == "baseline":
            return everybody
        if student != "end":
            return everybody.replace(**{student: state["net"]})
        ends = [*everybody.end]
        ends[more.get("kind", 0)] = state["net"]
        return everybody.replace(end=tuple(ends))

    return Stage(
        name=more.pop("name", NAMES[phase]),
        phase=phase,
        tier=student,
        student=student,
        rounds=ROUNDS,
        num_parties=parties,
        begin=begin,
        one=repeat(step, steps),
        end=end,
        trained=lambda state: state["net"],
        deliveries=no_messages,
        **more,
    )


def player(tmp_path, monkeypatch):
    """Runs a plan of stages under one config; the same folder is taken up again."""
    config = configs.load("configs/relay_cycle.py:smoke", [f"run.workdir={tmp_path}"])

    def run(*plan, counts=COUNTS, kinds=1):
        made = experiment(TEST, VALIDATION, counts, plan=plan, kinds=kinds)
        monkeypatch.setattr(loop, "build", lambda config: made)
        return loop.run(config)

    run.workdir = tmp_path / config.experiment
    return run


def folder(play):
    (path,) = play.workdir.iterdir()
    return path


def standing(path):
    """The newest checkpoint: its number, and the rounds that it stands after."""
    with Checkpoints(path / "checkpoints") as checkpoints:
        saved = checkpoints.latest()
    return saved.step, saved.host["round"]


def read(path, name="summary.json"):
    return json.loads((path / name).read_text())


def log(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def diverging(done, party):
    """The second party's adversarial term is lost in step 3 of round 2, others later.

    The first party's is lost one step later, and so is the second one's other term.
    """
    lost = done >= jnp.where(party == 1, STEPS + 3, STEPS + 4)
    later = (done > STEPS + 3) & (party == 1)
    return {
        "adversarial": jnp.where(lost, jnp.inf, -1.0),
        "balance": jnp.where(later, jnp.nan, 2.0),
    }
