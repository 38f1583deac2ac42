"""The tables of federated protocols: budgets, rankings, costs and verdicts."""

import math

import jax
import numpy as np
import pandas as pd
import pytest

from ecogen_jax import config as configs
from ecogen_jax.nets.classifier import classifier
from ecogen_jax.nets.latent import HEAD, latent_generator, num_features
from ecogen_jax.run.build_data import fewest
from papers_repro import paper, trials
from papers_repro.fedgen import curves, experiments, plot, reproduce, table
from papers_repro.fedgen.experiments import CELLS, EXPERIMENTS, OURS, PROTOCOLS
from papers_repro.fedgen.table import PAPER
from tests.federation_folders import CELL, ROUNDS, comparison, federation


def row(found, id, name=None):
    frame = table.judged(name or id.partition(".")[0], curves.enriched(found))
    return frame.set_index("id").loc[id]


def test_the_verdicts_of_b1_are_computed(tmp_path):
    seen = {0: 0.957, 1: 0.958, 2: 0.959}
    found = federation(tmp_path, "B1.fedgen", seen, dataset="mnist", whole=0.955)
    found += federation(
        tmp_path, "B1.fedavg", {0: 0.90, 1: 0.91, 2: 0.92}, dataset="mnist"
    )
    bar = row(found, "B1.fedgen")
    assert (bar["ours_mean"], bar["verdict"]) == (pytest.approx(95.8), "met")
    assert (bar["published"], bar["aim"], bar["standing"]) == (95.68, 96.8, "read")
    assert row(found, "B1.fedavg")["verdict"] == "missed"
    assert row(found, "B1.global.fedgen")["ours_mean"] == pytest.approx(95.5)
    gap = row(found, "B1.gap")
    assert gap["ours_mean"] == pytest.approx(4.8)
    assert gap["low"] < gap["ours_mean"] < gap["high"]
    # The last state that was evaluated by round 20 is the tenth.
    assert row(found, "B1.round20")["verdict"] == "met"
    assert row(found, "B2.alpha1")["verdict"] == "not run"


def test_payloads_are_counted_for_one_device_and_round(tmp_path):
    found = federation(
        tmp_path, "B3.fedgen", {0: 0.7}, up=13680, dataset="mnist", active=10
    )
    bar = row(found, "B3.bytes.up")
    assert (bar["ours_mean"], bar["verdict"]) == (1368, "met")
    assert row(found, "B3.bytes.down")["ours_mean"] == 2736


def test_the_bars_on_bytes_are_those_of_the_last_layer_and_the_generator():
    def size(variables):
        return sum(4 * leaf.size for leaf in jax.tree.leaves(variables))

    net, key = (
        classifier("cnn_fedgen", num_classes=10, shape=(28, 28, 1)),
        jax.random.key(0),
    )
    generator = latent_generator(
        features=num_features(net, (28, 28, 1)), num_classes=10, noise_size=32
    )
    head = size(jax.eval_shape(net.init, key).params[HEAD])
    limits = PAPER.bars["B3"].set_index("id")["bar"]
    counts, round_and_size = 4 * 10, 8
    assert limits["B3.bytes.up"] == head + counts + round_and_size
    assert limits["B3.bytes.down"] == head + size(jax.eval_shape(generator.init, key))


SEEDS = {0: 0.80, 1: 0.82, 2: 0.84}


@pytest.mark.parametrize(("best", "verdict"), [(0.83, "missed"), (0.81, "met")])
def test_ours_is_set_against_the_best_of_the_ranked_others(tmp_path, best, verdict):
    found = comparison(
        tmp_path,
        relay_rounds=SEEDS,
        fedavg=dict.fromkeys(SEEDS, 0.5),
        fedgen=dict.fromkeys(SEEDS, best),
        relay_cycle=dict.fromkeys(SEEDS, 0.99),
        feddf=dict.fromkeys(SEEDS, 0.98),
        centralised=dict.fromkeys(SEEDS, 0.97),
    )
    bar = row(found, f"{CELL}.uplink.first")
    assert (bar["against"], bar["verdict"]) == (f"- {CELL}.fedgen", verdict)
    assert bar["ours_mean"] == pytest.approx(82 - 100 * best)
    # Of three differences 2 points apart: t(0.975, 2) x 2 / sqrt(3).
    reach = 4.302653 * 2 / math.sqrt(3)
    assert bar["high"] - bar["ours_mean"] == pytest.approx(reach, rel=1e-6)
    assert row(found, f"{CELL}.uplink.cycle")["ours_mean"] == pytest.approx(
        99 - 100 * best
    )
    assert row(found, f"{CELL}.tenth.first")["ours_mean"] == pytest.approx(
        8.2 - 10 * best
    )


def test_fashion_mnist_has_bars_at_both_uplinks_and_mnist_has_none():
    rows = PAPER.bars["B4"].set_index("id")["bar"].dropna()
    wanted = {
        f"B4.fashion_mnist.alpha{alpha}.{budget}.first"
        for alpha in (0.1, 0.3)
        for budget in ("uplink", "tenth")
    }
    assert set(rows.index) == wanted
    assert (rows == 0).all()


def ranked(found, budget="uplink"):
    frame = table.judged(table.RANKING, curves.enriched(found))
    frame = frame[frame["budget"] == budget]
    return frame[frame["ours_mean"].notna()].set_index("protocol")


def test_the_ranking_leaves_out_what_is_not_data_free(tmp_path):
    found = comparison(
        tmp_path,
        relay_rounds=SEEDS,
        fedavg=dict.fromkeys(SEEDS, 0.5),
        fedgen=dict.fromkeys(SEEDS, 0.83),
        feddf=dict.fromkeys(SEEDS, 0.98),
    )
    rows = ranked(found)
    assert rows.index.to_list() == ["feddf", "fedgen", "relay_rounds", "fedavg"]
    assert rows["rank"].dropna().to_dict() == {
        "fedgen": 1,
        "relay_rounds": 2,
        "fedavg": 3,
    }
    assert rows.loc["fedgen", "difference"] == pytest.approx(-1)
    assert rows.loc["fedavg", "difference"] == pytest.approx(32)
    assert rows.loc["relay_rounds", ["difference", "low", "high"]].isna().all()
    assert (rows.loc["fedavg", "global"], rows.loc["fedavg", "round"]) == (50, ROUNDS)
    assert ranked(found, "tenth").loc["fedavg", "ours_mean"] == pytest.approx(5)


def test_the_rows_of_a_comparison_are_kept_together_or_not_at_all(tmp_path):
    early = comparison(tmp_path / "early", relay_rounds=SEEDS, fedavg={0: 0.5, 1: 0.5})
    first = table.judged(table.RANKING, curves.enriched(early))
    PAPER.write({table.RANKING: first}, tmp_path, printers=table.PRINTERS)
    nothing = table.judged(table.RANKING, [])
    rows = PAPER.kept(table.RANKING, nothing, tmp_path)
    assert len(rows) == len(first)
    had = first[first["ours_mean"].notna()]
    back = rows[rows["ours_mean"].notna()]
    assert back["id"].to_list() == had["id"].to_list()
    assert back["rank"].to_list() == had["rank"].to_list()
    late = comparison(tmp_path / "late", fedavg={0: 0.6})
    fresh = table.judged(table.RANKING, curves.enriched(late))
    rows = PAPER.kept(table.RANKING, fresh, tmp_path)
    assert set(rows.loc[rows["ours_mean"].notna(), "protocol"]) == {"fedavg"}


def test_a_protocol_without_the_budget_of_its_seed_is_not_ranked(tmp_path):
    found = comparison(tmp_path, fedavg={0: 0.5}, fedgen={1: 0.6})
    assert ranked(found).index.to_list() == ["fedavg"]


def test_a_smoke_is_ranked_under_its_own_names(tmp_path):
    found = federation(
        tmp_path, "B4.mnist.alpha0.1.fedavg_smoke", {0: 0.2}, dataset="fake"
    )
    ours = f"B4.mnist.alpha0.1.{OURS}_smoke"
    found += federation(tmp_path, ours, {0: 0.3}, dataset="fake")
    rows = table.judged(table.RANKING, curves.enriched(found), smoke=True)
    rows = rows[rows["id"].str.startswith("B4.mnist.alpha0.1.uplink.")]
    rows = rows.set_index("protocol")
    assert rows.loc["fedavg", "difference"] == pytest.approx(10)
    assert rows.loc[OURS, "rank"] == 1


def test_the_costs_are_those_of_training(tmp_path):
    found = comparison(tmp_path, fedavg={0: 0.5, 1: 0.7}, feddf={0: 0.6})
    rows = table.judged(table.COSTS, curves.enriched(found)).set_index("id")
    bar = rows.loc["B5.fashion_mnist.alpha0.1.fedavg"]
    assert (bar["ours_mean"], bar["unit"], bar["kind"]) == (500, "J", "modelled")
    assert bar["carbon_g"] == pytest.approx(0.5)
    assert (bar["seen"], bar["end_energy_j"], bar["up_bytes"]) == (60, 50, 1000)


def test_the_printed_tables_say_what_is_ranked_and_what_was_not_run(tmp_path):
    found = curves.enriched(
        comparison(tmp_path / "runs", fedavg={0: 0.5}, feddf={0: 0.98}, alone={0: 0.2})
    )
    judged = {name: table.judged(name, found) for name in PAPER.bars}
    folder = tmp_path / "tables"
    text = PAPER.write(judged, folder, printers=table.PRINTERS).read_text()
    assert "### fashion_mnist, alpha 0.1, at a tenth of FedAvg's uplink bytes" in text
    assert "| - | feddf | 98.00 | - | 98.00 | 50.00 | 90.00 | 70.00 | 10 | 0 |" in text
    assert "| 1 | fedavg | 50.00 |" in text
    assert "Out of the ranking: feddf: needs proxy images: not data-free." in text
    assert (
        "| fedavg | 50.00 | 50.00 | 500 J | 50 J | 500 mg | 250 mg | 1 kB | 0 |" in text
    )
    assert f"{CELL}.fedavg seeds 1 2" in text
    assert "B1.fedgen seeds 0 1 2" in text
    # Printed from the CSV alone.
    again = {name: paper.read(folder / f"{name}.csv") for name in judged}
    whole = PAPER.write(again, tmp_path / "again", printers=table.PRINTERS)
    assert whole.read_text() == text


def test_the_plot_draws_each_protocol_by_what_it_has_cost(tmp_path):
    found = comparison(tmp_path, relay_rounds={0: 0.8, 1: 0.6}, feddf={0: 0.9})
    states = plot.mean_curves(found)
    figure = plot.draw(states, [CELL])
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"relay_rounds", "feddf"}
    ours = lines["relay_rounds"]
    np.testing.assert_allclose(ours.get_xdata(), 50.0 * np.arange(1, ROUNDS + 1))
    np.testing.assert_allclose(ours.get_ydata(), 100 - 7.0 * np.arange(1, ROUNDS + 1))
    assert ours.get_linewidth() > lines["feddf"].get_linewidth()
    assert lines["feddf"].get_linestyle() == "--"
    assert axes.yaxis_inverted()  # a small error is at the top
    assert axes.yaxis.get_major_formatter()(5) == "95"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(lines)


def test_a_comparison_that_is_not_at_hand_stays_in_the_picture(tmp_path, monkeypatch):
    drawn = []
    draw = plot.draw
    monkeypatch.setattr(
        plot,
        "draw",
        lambda states, *a, **k: drawn.append(states) or draw(states, *a, **k),
    )
    here = comparison(tmp_path, fedavg={0: 0.8}, fedgen={0: 0.9})
    folder = tmp_path / "tables"
    plot.write(here, folder)
    assert (folder / "B5.png").stat().st_size > 10_000
    there = "B4.mnist.alpha0.1"
    other = federation(tmp_path, f"{there}.fedavg", {0: 0.7}, dataset="mnist")
    plot.write(other, folder)
    before, now = drawn
    assert set(now) == {(CELL, "fedavg"), (CELL, "fedgen"), (there, "fedavg")}
    for key, states in before.items():
        shown = list(plot.DRAWN)
        np.testing.assert_allclose(now[key][shown], states[shown], rtol=1e-5)
    # A comparison is that of one set of runs: what was of another is not mixed in.
    plot.write(comparison(tmp_path / "again", fedavg={0: 0.5}), folder)
    assert set(drawn[-1]) == {(CELL, "fedavg"), (there, "fedavg")}
    assert drawn[-1][CELL, "fedavg"]["end_seen"].iloc[-1] == pytest.approx(0.5)


def test_curves_under_other_constants_give_way_to_what_was_made_now(tmp_path):
    folder = tmp_path / "tables"
    plot.write(comparison(tmp_path, fedavg={0: 0.8}), folder)
    kept = folder / "curves" / "B5.csv"
    before = pd.read_csv(kept)
    before["carbon_g"] *= 1.1
    before.to_csv(kept, index=False)
    there = "B4.mnist.alpha0.1"
    other = federation(tmp_path, f"{there}.fedavg", {0: 0.7}, dataset="mnist")
    plot.write(other, folder)
    assert set(plot.read(kept)) == {(there, "fedavg")}


def test_the_committed_picture_has_the_curves_of_its_table():
    kept = experiments.HERE / "tables"
    shown = paper.read(kept / "B5.csv")
    shown = shown[shown["ours_mean"].notna()]["experiment"]
    drawn = {f"{cell}.{name}" for cell, name in plot.read(kept / "curves" / "B5.csv")}
    assert drawn == set(shown)


def test_joules_and_grams_share_an_axis_only_on_one_grid(tmp_path):
    states = plot.mean_curves(comparison(tmp_path, fedavg={0: 0.8}, fedgen={0: 0.9}))
    assert plot.grams_per_joule(states) == pytest.approx(1e-3)
    states[CELL, "fedgen"]["carbon_g"] *= 1.1
    with pytest.raises(ValueError, match=r"from 0.001 to 0.0011 g a joule; .*country"):
        plot.draw(states, [CELL])


def test_protocols_are_told_apart_by_colour_and_marker():
    looks = {
        (number % len(plot.COLORS), number % len(plot.MARKERS))
        for number in range(len(PROTOCOLS))
    }
    assert len(looks) == len(PROTOCOLS)


def test_a_claim_has_a_value_and_a_source():
    claims = PAPER.claims
    assert claims["published"].notna().all()
    said = ["quantity", "unit", "source", "locator", "standing", "protocol_differences"]
    assert claims[said].notna().all(axis=None)


def loaded(one, smoke=False):
    tuned = trials.chosen(experiments.TUNED)
    return configs.load(
        *experiments.cell(one, 0, workdir="runs", smoke=smoke, tuned=tuned)
    )


@pytest.mark.parametrize("cell", CELLS)
def test_the_protocols_of_a_comparison_have_the_same_devices(cell):
    dataset, alpha = CELLS[cell]
    reference = loaded(EXPERIMENTS[f"{cell}.{experiments.REFERENCE}"])
    for protocol in PROTOCOLS:
        config = loaded(EXPERIMENTS[f"{cell}.{protocol}"])
        assert config.experiment == f"{cell}.{protocol}"
        assert (config.data.name, config.data.alpha) == (dataset, alpha)
        assert config.data == reference.data, protocol
        assert config.nets == reference.nets, protocol
        assert fewest(config)[1] == fewest(reference)[1]
        if protocol != "centralised":
            assert config.topology == reference.topology, protocol
        if protocol != "relay_cycle":
            assert config.federated.rounds == 60
            assert 60 % config.federated.evaluate_every == 0


def test_the_published_protocol_is_kept():
    for name in ("fedgen", "fedavg"):
        for id, alpha in ((f"B1.{name}", 0.1), (f"B2.alpha0.05.{name}", 0.05)):
            config = loaded(EXPERIMENTS[id])
            own = config.federated
            assert (own.rounds, own.active, own.steps, own.batch_size) == (
                200,
                10,
                20,
                32,
            )
            assert config.topology.num_edges * config.topology.devices_per_edge == 20
            assert (config.data.alpha, config.protocol.name) == (alpha, name)
            assert curves.EARLY % own.evaluate_every == 0
        assert loaded(EXPERIMENTS[f"B3.{name}"]).federated.share == "head"


def test_an_experiment_has_a_smoke():
    chosen = [one for one in EXPERIMENTS.values() if one.in_smoke]
    assert {f"B4.mnist.alpha0.1.{name}" for name in PROTOCOLS} <= {
        one.id for one in chosen
    }
    for one in chosen:
        config = loaded(one, smoke=True)
        assert (config.experiment, config.data.name) == (f"{one.id}_smoke", "fake")
        assert config.federated.rounds == 2


def test_a_bar_needs_its_runs_and_those_that_set_its_budget():
    assert reproduce.needed(["B1.gap"]) == ["B1.fedgen", "B1.fedavg"]
    one = f"{CELL}.uplink.fedgen"
    assert set(reproduce.needed([one])) == {f"{CELL}.fedgen", f"{CELL}.fedavg"}
    first = set(reproduce.needed([f"{CELL}.tenth.first"]))
    ours = {f"{CELL}.{name}" for name, one in PROTOCOLS.items() if not one.out}
    assert first == ours
    names = [job.name for job in reproduce.jobs([f"{CELL}.fedgen"], smoke=False)]
    assert names == [f"{CELL}.fedgen seed {seed}" for seed in (0, 1, 2)]
    assert reproduce.jobs([f"{CELL}.fedgen"], smoke=True) == []


def test_the_command_refuses_an_unknown_bar_and_an_empty_folder(tmp_path, capsys):
    for words, message in (
        (["--only", "B9"], "no bar is called 'B9'; there are B1, B2"),
        (["--table", "--workdir", str(tmp_path)], "no finished run in"),
    ):
        with pytest.raises(SystemExit):
            reproduce.main(words)
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_smoke_of_some_bars_prints_their_tables(capsys):
    only = "B3,B4.mnist.alpha0.1.uplink.fedavg,B5.mnist.alpha0.1.fedavg"
    assert reproduce.main(["--smoke", "--only", only]) == 0
    printed = capsys.readouterr().out
    assert "B3.bytes.up" in printed
    assert "not run" not in printed
