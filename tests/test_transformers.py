"""Abstract language models: hand counts of a tiny one, and table V10."""

import jax
import pytest

from ecogen_jax.energy import meter
from papers_repro.energy import programs, rows, transformers

TINY = transformers.Config(
    decoder_layers=3,
    width=8,
    heads=2,
    head_width=4,
    ff_width=32,
    vocabulary=50,
    decoder_tokens=16,
)
BOTH = TINY._replace(encoder_layers=2, encoder_tokens=12)


def matmul_flops_per_token(config, blocks, monkeypatch):
    """Products alone, so that a hand count can be exact."""
    whole = meter.cost
    monkeypatch.setattr(
        meter,
        "cost",
        lambda *args: whole(*args)._replace(flops=whole(*args).by_class["matmul"]),
    )
    return transformers.flops_per_token(config, blocks)


def num_parameters(config, blocks):
    tree = transformers.parameters(config, blocks)
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("build", "products"), [(transformers.gpt, 2), (transformers.gated, 3)]
)
def test_decoder_has_six_flops_a_weight_and_its_attention(build, products, monkeypatch):
    blocks = build(TINY)
    layer = 4 * 8 * 8 + products * 8 * 32
    weights = 3 * layer + 50 * 8
    assert num_parameters(TINY, blocks) == weights
    # Scores and mixing: 2 x 2 x tokens x width forward, twice that backward.
    attention = 3 * 3 * 4 * 16 * 8
    got = matmul_flops_per_token(TINY, blocks, monkeypatch)
    assert got == 6 * weights + attention


def test_encoder_decoder_by_hand(monkeypatch):
    blocks = transformers.t5(BOTH)
    attend, ff = 4 * 8 * 8, 2 * 8 * 32
    encoder, decoder = 2 * (attend + ff), 3 * (2 * attend + ff)
    assert num_parameters(BOTH, blocks) == encoder + decoder + 50 * 8
    keys_and_values = 3 * 2 * 8 * 8  # of cross-attention, applied to encoder tokens
    weights = 12 * (encoder + keys_and_values) + 16 * (decoder - keys_and_values)
    pairs = 2 * 12 * 12 + 3 * 16 * 16 + 3 * 16 * 12
    by_hand = 6 * (weights + 16 * 50 * 8) + 3 * 4 * pairs * 8
    got = matmul_flops_per_token(BOTH, blocks, monkeypatch)
    assert got == pytest.approx(by_hand / (12 + 16))


def test_evolved_block_has_the_parameters_of_its_description():
    square = 8 * 8
    encoder = 2 * square + 4 * square + 3 * 8 * 4 + 9 * 32 + 32 * 4 + 12 * square
    separable = (11 * 8 + 2 * square) + (7 * 8 + 8 * 4) + (7 * 16 + 2 * square)
    decoder = 4 * 4 * square + separable + 8 * square
    by_hand = 2 * encoder + 3 * decoder + 50 * 8
    assert num_parameters(BOTH, transformers.evolved(BOTH)) == by_hand


@pytest.fixture(scope="module")
def table():
    return programs.v10().set_index("id")


def test_v10_has_the_columns_and_computed_verdicts(table):
    assert list(table.reset_index().columns) == list(rows.COLUMNS)
    barred = table[table["bar"].notna()]
    held = barred["deviation"].abs() <= barred["bar"]
    assert (barred["verdict"] == held.map({True: "met", False: "missed"})).all()


def test_v10_shapes_are_those_of_the_models(table):
    shapes = table[table.index.str.endswith(".params")]
    assert len(shapes) == 4
    assert (shapes["verdict"] == "met").all()


def test_v10_gpt3_is_met_and_scales_with_tokens(table):
    assert table.loc["V10.gpt3.flops", "verdict"] == "met"
    inputs = rows.cells("V10_models")
    own = inputs[inputs["model"] == "gpt3"]
    sizes = dict(zip(own["input"], own["value"], strict=True))
    doubled = programs.count("gpt3", sizes | {"tokens": 600e9})["flops"]
    assert doubled == pytest.approx(2 * table.loc["V10.gpt3.flops", "ours_mean"])
