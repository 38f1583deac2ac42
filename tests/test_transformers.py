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


@pytest.fixture
def products_only(monkeypatch):
    """Counts products alone, so that a hand count can be exact."""
    whole = meter.cost
    monkeypatch.setattr(
        meter,
        "cost",
        lambda *args: whole(*args)._replace(flops=whole(*args).by_class["matmul"]),
    )


def num_parameters(config, blocks):
    tree = transformers.parameters(config, blocks)
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.usefixtures("products_only")
@pytest.mark.parametrize(
    ("build", "products"), [(transformers.gpt, 2), (transformers.gated, 3)]
)
def test_decoder_has_six_flops_a_weight_and_its_attention(build, products):
    blocks = build(TINY)
    layer = 4 * 8 * 8 + products * 8 * 32
    weights = 3 * layer + 50 * 8
    assert num_parameters(TINY, blocks) == weights
    # Scores and mixing: 2 x 2 x tokens x width forward, twice that backward.
    attention = 3 * 3 * 4 * 16 * 8
    got = transformers.flops_per_token(TINY, blocks)
    assert got == 6 * weights + attention


@pytest.mark.usefixtures("products_only")
def test_encoder_decoder_by_hand():
    blocks = transformers.t5(BOTH)
    attend, ff = 4 * 8 * 8, 2 * 8 * 32
    encoder, decoder = 2 * (attend + ff), 3 * (2 * attend + ff)
    assert num_parameters(BOTH, blocks) == encoder + decoder + 50 * 8
    keys_and_values = 3 * 2 * 8 * 8  # of cross-attention, applied to encoder tokens
    weights = 12 * (encoder + keys_and_values) + 16 * (decoder - keys_and_values)
    pairs = 2 * 12 * 12 + 3 * 16 * 16 + 3 * 16 * 12
    by_hand = 6 * (weights + 16 * 50 * 8) + 3 * 4 * pairs * 8
    got = transformers.flops_per_token(BOTH, blocks)
    assert got == pytest.approx(by_hand / (12 + 16))


@pytest.mark.usefixtures("products_only")
def test_without_scores_six_flops_a_weight_remain():
    blocks = transformers.gpt(TINY)
    got = transformers.weight_flops_per_token(TINY, blocks)
    assert got == 6 * num_parameters(TINY, blocks)


@pytest.mark.usefixtures("products_only")
def test_recomputed_layers_cost_one_forward_pass_more():
    blocks = transformers.gpt(TINY)
    once = transformers.flops_per_token(TINY, blocks)
    twice = transformers.flops_per_token(TINY, blocks, recompute=True)
    layers = num_parameters(TINY, blocks) - 50 * 8
    # The last product of a layer has no use on the way back, so it is not repeated.
    last = 3 * 8 * 32
    scores = 3 * 4 * 16 * 8
    assert twice - once == 2 * (layers - last) + scores


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


def test_v10_ways_repeat_the_published_total_and_carry_no_bar(table):
    ways = table[table.index.str.startswith("V10.ways.")]
    assert len(ways) == 9
    assert (ways["verdict"] == "no bar").all()
    for identity, row in ways.iterrows():
        model = identity.split(".")[2]
        assert row["published"] == table.loc[f"V10.{model}.flops", "published"]


def test_v10_ways_relate_to_the_main_rows_as_their_names_say(table):
    ours = table["ours_mean"]
    half = "V10.ways.t5.half_of_the_parameters"
    # Table D.1 of Brown et al. 2020 prints this product.
    assert ours[half] == pytest.approx(3.3e22)
    tokens = ours["V10.ways.lamda.tokens_of_hoffmann"] / ours["V10.lamda.flops"]
    assert tokens == pytest.approx(168 / 768)
    for model in ("t5", "lamda"):
        without = ours[f"V10.ways.{model}.attention_left_out"]
        assert 0.9 < without / ours[f"V10.{model}.flops"] < 1
    again = ours["V10.ways.meena.recomputed"] / ours["V10.meena.flops"]
    assert 1 < again < 4 / 3
