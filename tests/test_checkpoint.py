"""Checkpoints: the whole state comes back, and a half-written one does no harm."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecogen_jax.relay import learn
from ecogen_jax.run.checkpoint import CheckpointError, Checkpoints
from tests import toy_cycle, toy_nets

HOST = {"index": 3, "clock": {"train": 1.25}, "phases": [{"cycle": 1}], "none": None}
TEMPORARY = ".orbax-checkpoint-tmp"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def equal(one, other):
    """Same structure, dtypes and values."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    return True


def learning():
    """A learner's state after a step: parameters, statistics and optax tuples."""
    learner = learn.learner(
        toy_nets.classifier(5),
        batch_size=2,
        learning_rate=0.1,
        total_steps=3,
        temperature=1.0,
        replay_weight=0.0,
    )
    state = learner.init(toy_nets.classifier(5).init(jax.random.key(0)))
    own = jax.tree.map(lambda a: jnp.asarray(a[0]), toy_cycle.PRIVATE)
    return learner.step(state, learn.Material(own, None), jax.random.key(1))[0]


def test_nothing_is_latest_in_an_empty_folder(folder):
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest() is None


@pytest.mark.parametrize("state", [None, "learner", "hop"])
def test_the_whole_state_comes_back(folder, state):
    if state == "learner":
        state = learning()
        assert isinstance(state.optimizer, tuple)
        assert state.optimizer[0].count == 1
    elif state == "hop":
        _, (down, *_) = toy_cycle.stages()
        state, _ = down.begin(toy_cycle.untrained(), jax.random.key(0))
        assert state.bank.images.dtype == np.uint8
    saved = (toy_cycle.untrained(), state)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, saved, HOST)
    abstract = jax.eval_shape(lambda: saved)
    with Checkpoints(folder) as checkpoints:
        latest = checkpoints.latest()
        assert (latest.step, latest.host) == (1, HOST)
        restored = checkpoints.restore(1, abstract)
    assert equal(restored, jax.tree.map(np.asarray, saved))
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(restored))


def test_a_save_holds_the_arrays_of_its_own_moment(folder):
    state = jnp.arange(4.0)
    advance = jax.jit(lambda x: x + 1, donate_argnums=0)
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"x": state}, {"step": step})
            state = advance(state)
        checkpoints.wait()
        first = checkpoints.restore(1, {"x": state})
        second = checkpoints.restore(2, {"x": state})
    np.testing.assert_array_equal(first["x"], np.arange(4))
    np.testing.assert_array_equal(second["x"], np.arange(4) + 1)


def test_an_array_may_be_written_to_while_it_is_saved(folder):
    kept = np.zeros(1_000_000, np.float32)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, {"kept": kept}, HOST)
        kept[:] = 1
        checkpoints.wait()
        assert not checkpoints.restore(1, {"kept": kept})["kept"].any()


def test_every_save_lands_and_the_newest_two_are_kept(folder):
    with Checkpoints(folder) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, {"x": np.full(3, step)}, {"step": step})
        checkpoints.wait()
        assert checkpoints.latest().host == {"step": 5}
    assert names(folder) == ["4", "5"]


def test_a_half_written_checkpoint_is_passed_over_and_cleared_away(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, {"x": np.ones(2)}, {"step": 1})
    half = folder / f"2{TEMPORARY}" / f"state{TEMPORARY}"
    half.mkdir(parents=True)
    (half / "_METADATA").write_text("{")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest().step == 1
        checkpoints.save(2, {"x": np.zeros(2)}, {"step": 2})
        checkpoints.wait()
        restored = checkpoints.restore(2, {"x": np.ones(2)})
    np.testing.assert_array_equal(restored["x"], np.zeros(2))
    assert names(folder) == ["1", "2"]


def test_a_state_of_another_structure_is_refused(folder):
    tx = optax.adam(0.1)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, tx.init({"w": jnp.ones(2)}), {})
        checkpoints.wait()
        with pytest.raises(CheckpointError, match=r"checkpoint .*1 cannot be read"):
            checkpoints.restore(1, tx.init({"other": jnp.ones(2)}))


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_whole(folder):
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"x": np.full(3000, float(step))}, {"step": step})
            checkpoints.wait()
    for file in (folder / "2" / "state").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[:10])
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(CheckpointError, match=r"2 cannot be read.*delete that folder"),
    ):
        checkpoints.restore(2, {"x": np.zeros(3000)})
    shutil.rmtree(folder / "2")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest().step == 1
        restored = checkpoints.restore(1, {"x": np.zeros(3000)})
    np.testing.assert_array_equal(restored["x"], np.ones(3000))


@pytest.mark.parametrize("size", [0, 10])
def test_a_checkpoint_without_its_host_value_is_refused_before_anything_is_done(
    folder, size
):
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"x": np.zeros(2)}, {"step": step})
            checkpoints.wait()
    file = folder / "2" / "_CHECKPOINT_METADATA"
    file.write_bytes(file.read_bytes()[:size])
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(CheckpointError, match=r"2 cannot be read \(its metadata"),
    ):
        checkpoints.latest()
    shutil.rmtree(folder / "2")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest().host == {"step": 1}


@pytest.mark.parametrize("lost", ["state", "_CHECKPOINT_METADATA"])
def test_a_checkpoint_without_a_part_is_told_with_the_remedy(folder, lost):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, {"x": np.zeros(2)}, {"step": 1})
    part = folder / "1" / lost
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(CheckpointError, match=r"1 cannot be read .*delete that folder"),
    ):
        checkpoints.restore(checkpoints.latest().step, {"x": np.zeros(2)})


@pytest.mark.parametrize("reason", ["No space left on device", "Disk quota exceeded"])
@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_a_full_disk_is_told_with_the_remedy(folder, monkeypatch, reason, kind):
    def full(*args, **kwargs):
        raise kind(f"RESOURCE_EXHAUSTED: Error writing: {reason}")

    message = rf"no space left for .* \({reason}\); make room"
    with Checkpoints(folder) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save_async", full)
        with pytest.raises(CheckpointError, match=message):
            checkpoints.save(1, {"x": np.ones(2)}, {})
    checkpoints = Checkpoints(folder)
    close = checkpoints._manager.close
    monkeypatch.setattr(checkpoints._manager, "close", full)
    with pytest.raises(CheckpointError, match=message), checkpoints:
        pass
    close()
