"""The benchmark's tables of scale, of state and of single layers, and rows of a GPU."""

import statistics

import jax
import numpy as np
import pandas as pd
import pytest

from benchmarks import conv, layers, rows, run, scale, state
from benchmarks.cases import GROUPS
from ecogen_jax.run.build import build_nets
from papers_repro import glance

RESULTS = run.ROOT / "benchmarks" / "results"
SPEEDS = conv.Speeds(flops=1e9, memory=1e9)


def cells(growth):
    """What `scale` measures if a round takes `growth` of its share of 100,000."""
    frame = pd.DataFrame(scale.CELLS, columns=["devices", "cohort", "method"])
    frame["round_s"] = 5.0 * (frame["cohort"] / 100_000) ** growth
    for name in ("round_mean_s", "round_std_s", "round_worst_s"):
        frame[name] = frame["round_s"]
    frame["memory_gb"] = 2.0
    about = {"machine": "here", "versions": "jax 1", "command": "c", "commit": "0"}
    return frame.assign(**about)


def test_the_bars_of_scale_are_judged_from_its_cells(tmp_path):
    rows.write("scale_bars", scale.judged(cells(1.0)), tmp_path)
    table = rows.read_table(tmp_path / "scale_bars.csv").set_index("id")
    assert table["verdict"].to_dict() == {
        "scale.10k.seconds": "met",  # 0.5 s
        "scale.10k.gb": "missed",
        "scale.100k.seconds": "met",
        "scale.100k.gb": "met",
        "scale.exponent": "met",
    }
    assert table["ours_median"]["scale.100k.seconds"] == 5.0
    assert "| scale.10k.gb |" in (tmp_path / "scale_bars.md").read_text()


@pytest.mark.parametrize(("growth", "verdict"), [(1.049, "met"), (1.051, "missed")])
def test_the_exponent_is_the_slope_of_the_logarithms(growth, verdict):
    found = {row["id"]: row for row in scale.judged(cells(growth))}
    row = found["scale.exponent"]
    assert row["ours_median"] == pytest.approx(growth)
    assert row["verdict"] == verdict


def test_bars_of_scale_and_layers_are_counted_with_those_of_speed(
    tmp_path, monkeypatch
):
    folder = tmp_path / "benchmarks" / "results"
    rows.write("scale_bars", scale.judged(cells(1.0)), folder)
    bar = rows.read().iloc[0].to_dict()
    rows.write("S1", [rows.not_run(bar, "no time")], folder)
    monkeypatch.setattr(glance, "PAGES", glance.PAGES[-1:])
    (row,) = glance.verdicts(tmp_path).rows
    assert row == ("[speed](docs/benchmarks.md)", "4", "scale.10k.gb", bar["id"])


def test_no_jax_device_has_more_of_a_larger_federation():
    table = pd.read_csv(RESULTS / "state.csv")
    few, many = (table[f"jax_bytes_{size}"] for size in (state.FEW, state.MANY))
    assert few.equals(many)


def test_only_some_methods_keep_something_of_every_device():
    table = pd.read_csv(RESULTS / "state.csv").set_index("method")
    assert set(table.index) == set(state.CASES)
    config = state.published("a test", "fedavg")
    net = build_nets(config, state.SHAPE, state.CLASSES).end[0]
    variables = jax.eval_shape(net.init, jax.random.key(0))
    params, stats = state.size(variables.params), state.size(variables.stats)
    kept = table["host_bytes_per_device"]
    assert kept["fedavg"] == 0
    assert kept["scaffold"] == params
    assert kept["fedavg, statistics = own"] == stats
    assert kept["fedavg, compression = int8"] == params + stats
    assert kept["relay_rounds"] == params + stats + 4  # and the weight of its change


@pytest.mark.parametrize("name", ["fedavg", "relay_rounds", "scaffold"])
def test_the_committed_state_is_that_of_today(name):
    table = pd.read_csv(RESULTS / "state.csv").set_index("method")
    today = state.row(name)
    for column in ("host_bytes_per_device", f"jax_bytes_{state.MANY}"):
        assert table.loc[name, column] == today[column]


def test_the_pages_of_tables_are_printed_from_them(tmp_path):
    assert (RESULTS / "state.md").read_text() == state.page(RESULTS / "state.csv")
    for path in RESULTS.glob("*_bars.csv"):
        table = rows.read_table(path).astype(object)
        table = table.where(table.notna(), None)
        rows.write(path.stem, table.to_dict("records"), tmp_path)
        for name in (path.name, path.with_suffix(".md").name):
            assert (tmp_path / name).read_text() == (RESULTS / name).read_text()


@pytest.mark.parametrize(
    ("layer", "plain_s", "bar"),
    [
        # 6 x 16 outputs x 9 x 2 FLOPs take 1.73 us; to move 66 floats twice, 0.53 us.
        (layers.Layer("a net", 4, 2, 3, 1, batch=1), 17.2e-6, 0.9),
        (layers.Layer("a net", 4, 2, 3, 1, batch=1), 17.4e-6, 3.0),
        # No FLOPs; to move 16 pixels and 4 results twice takes 0.16 us.
        (layers.Layer("a net", 4, 1, 2, 1, batch=1, kind="max_pool"), 1.5e-6, 0.9),
        (layers.Layer("a net", 4, 1, 2, 1, batch=1, kind="max_pool"), 1.7e-6, 3.0),
    ],
)
def test_plain_jax_is_slow_at_ten_times_the_least_time(layer, plain_s, bar):
    for ours_s, verdict in ((plain_s / (bar + 0.01), "met"), (plain_s, "missed")):
        row = conv.judge(layer, SPEEDS, [ours_s], [plain_s])
        assert (row["id"], row["bar"]) == ("conv.a.net", bar)
        assert row["verdict"] == ("met" if bar < 1 else verdict)
    slower = conv.judge(layer, SPEEDS, [plain_s * 1.12], [plain_s])
    assert slower["verdict"] == "missed"


def test_a_layer_is_judged_on_the_median_of_its_pairs():
    layer = layers.LAYERS[0]
    row = conv.judge(layer, SPEEDS, [1.0, 1.0, 1.0], [9.0, 2.0, 4.0])
    assert row["ratio"] == statistics.median([9.0, 2.0, 4.0])
    assert (row["ratio_low"], row["ratio_high"]) == (2.0, 9.0)


def test_layers_have_names_of_their_own():
    names = [layer.name for layer in layers.LAYERS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", ["conv", "conv_upsampled", "max_pool", "upsample"])
def test_a_layer_and_its_plain_form_give_the_same(kind):
    window = 3 if kind.startswith("conv") else 2
    layer = layers.Layer("small", 8, 2, window, 2, batch=3, clients=2, kind=kind)
    inputs = layers.arrays(layer)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        ours, theirs = (
            layers.loop(layer, fn(layer))(inputs) for fn in (layers.fast, layers.plain)
        )
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_rows_of_a_gpu_are_not_run_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "gpu", lambda: "")
    monkeypatch.setattr(run, "take_turns", lambda *turns: pytest.fail("it works"))
    assert run.main(["--only", "S4.gpu,S6.gpu", "--out", str(tmp_path)]) == 0
    for name in ("S4", "S6"):
        table = rows.read_table(tmp_path / f"{name}.csv")
        assert table[["id", "verdict"]].values.tolist() == [[f"{name}.gpu", "not run"]]
        assert f"- {name}.gpu {run.NO_GPU}" in (tmp_path / f"{name}.md").read_text()


def test_the_gpu_is_named_where_its_rows_are_run(monkeypatch):
    monkeypatch.setattr(run, "gpu", lambda: "Some GPU")
    group = GROUPS["S4.gpu"]
    turns = run.Turns(1, group.clock, 1, 0.0, RESULTS)
    assert run._about(turns, group)["machine"].startswith("Some GPU, ")
    assert run._about(turns, GROUPS["S4"])["machine"].startswith(run.processor())


def test_this_machine_has_no_gpu_that_jax_computes_on():
    assert bool(run.gpu()) == (jax.default_backend() == "gpu")
