"""Training steps of published language models as shapes: nothing is allocated.

A model is a tree of shapes and a loss; layers are stacked and scanned. Attention is
counted in full, without a saving for the causal half, and the optimiser is left out: it
runs once a step, over millions of tokens. Norms have no parameters here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ecogen_jax.energy import meter

Shapes = dict[str, Any]
Params = dict[str, Any]
Function = Callable[..., jax.Array]


class Config(NamedTuple):
    """Sizes of a model; tokens are those of one sequence, 0 without an encoder."""

    decoder_layers: int
    width: int
    heads: int
    head_width: int
    ff_width: int
    vocabulary: int
    decoder_tokens: int
    encoder_layers: int = 0
    encoder_tokens: int = 0


class Blocks(NamedTuple):
    """Shapes and functions of one encoder and one decoder layer.

    ``decode`` takes (params, states, encoded), where encoded is None without encoder.
    """

    encoder: Shapes
    encode: Function
    decoder: Shapes
    decode: Function


def gpt(c: Config) -> Blocks:
    """Decoder-only layers with a plain feed-forward part."""

    def layer(p: Params, x: jax.Array, _: None) -> jax.Array:
        x = x + _attend(p["self"], _norm(x), _norm(x))
        return x + _feed_forward(p["ff"], _norm(x), jax.nn.gelu)

    return Blocks({}, layer, {"self": _attention(c), "ff": _plain(c)}, layer)


def gated(c: Config) -> Blocks:
    """Decoder-only layers with a gated feed-forward part, as LaMDA has."""

    def layer(p: Params, x: jax.Array, _: None) -> jax.Array:
        x = x + _attend(p["self"], _norm(x), _norm(x))
        y = _norm(x)
        gate = jax.nn.gelu(y @ p["gate"])
        return x + (gate * (y @ p["ff"]["in"])) @ p["ff"]["out"]

    shapes = {
        "self": _attention(c),
        "ff": _plain(c),
        "gate": (c.width, c.ff_width),
    }
    return Blocks({}, layer, shapes, layer)


def t5(c: Config) -> Blocks:
    """Encoder and decoder layers of T5 1.0."""

    def encode(p: Params, x: jax.Array, _: None) -> jax.Array:
        x = x + _attend(p["self"], _norm(x), _norm(x))
        return x + _feed_forward(p["ff"], _norm(x), jax.nn.relu)

    def decode(p: Params, x: jax.Array, encoded: jax.Array) -> jax.Array:
        x = x + _attend(p["self"], _norm(x), _norm(x))
        x = x + _attend(p["cross"], _norm(x), encoded)
        return x + _feed_forward(p["ff"], _norm(x), jax.nn.relu)

    shapes = {"self": _attention(c), "ff": _plain(c)}
    return Blocks(shapes, encode, {**shapes, "cross": _attention(c)}, decode)


def evolved(c: Config) -> Blocks:
    """Encoder and decoder blocks of the Evolved Transformer, as Meena has.

    So et al. 2019 (arXiv 1901.11117); sizes as its published implementation.
    """
    d, half = c.width, c.width // 2

    def encode(p: Params, x: jax.Array, _: None) -> jax.Array:
        y = _norm(x)
        x = x + (y @ p["value"]) * jax.nn.sigmoid(y @ p["gate"])
        y = _norm(x)
        left = jax.nn.relu(y @ p["left"])
        right = _widen(jax.nn.relu(_convolve(y, p["right"])), 4 * d)
        x = x + _widen(_separable(p["join"], _norm(left + right)), d)
        x = x + _attend(p["self"], _norm(x), _norm(x))
        return x + _feed_forward(p["ff"], _norm(x), jax.nn.relu)

    def decode(p: Params, x: jax.Array, encoded: jax.Array) -> jax.Array:
        y = _norm(x)
        x = x + _attend(p["wide"], y, y) + _attend(p["first"], y, encoded)
        y = _norm(x)
        left = jax.nn.relu(_separable(p["left"], y))
        right = _widen(_separable(p["right"], y), 2 * d)
        x = x + _separable(p["join"], _norm(left + right))
        x = x + _attend(p["self"], _norm(x), _norm(x))
        x = x + _attend(p["second"], _norm(x), encoded)
        return x + _feed_forward(p["ff"], _norm(x), jax.nn.swish)

    encoder = {
        "value": (d, d),
        "gate": (d, d),
        "left": (d, 4 * d),
        "right": (3, d, half),
        "join": {"depth": (9, 1, 4 * d), "point": (4 * d, half)},
    }
    decoder = {
        "wide": _attention(c),
        "first": _attention(c),
        "second": _attention(c),
        "left": {"depth": (11, 1, d), "point": (d, 2 * d)},
        "right": {"depth": (7, 1, d), "point": (d, half)},
        "join": {"depth": (7, 1, 2 * d), "point": (2 * d, d)},
    }
    both = {"self": _attention(c), "ff": _plain(c)}
    return Blocks(encoder | both, encode, decoder | both, decode)


def flops_per_token(c: Config, blocks: Blocks, *, recompute: bool = False) -> float:
    """FLOPs of forward and backward over one sequence, by the tokens in it.

    Args:
        c: sizes.
        blocks: one of `gpt`, `gated`, `t5`, `evolved`, of the same sizes.
        recompute: whether a layer keeps its input alone and is computed once more
            on the way back.

    Returns:
        FLOP a token, those of encoder and decoder together.
    """
    encode, decode = (
        jax.checkpoint(layer) if recompute else layer
        for layer in (blocks.encode, blocks.decode)
    )

    def loss(params: Params, source: jax.Array, target: jax.Array) -> jax.Array:
        encoded = None
        if c.encoder_layers:
            encoded = _stack(encode, params["encoder"], params["embed"][source])
            encoded = _norm(encoded)
        x = _stack(decode, params["decoder"], params["embed"][target], encoded)
        scores = jax.nn.log_softmax(_norm(x) @ params["embed"].T)
        return -jnp.take_along_axis(scores, target[:, None], axis=1).mean()

    tokens = (
        jax.ShapeDtypeStruct((count,), jnp.int32)
        for count in (c.encoder_tokens, c.decoder_tokens)
    )
    cost = meter.cost(jax.grad(loss), parameters(c, blocks), *tokens)
    return cost.flops / (c.encoder_tokens + c.decoder_tokens)


def weight_flops_per_token(c: Config, blocks: Blocks) -> float:
    """FLOPs of a token without the scores of attention.

    Those alone grow with the length of the sequences, and in proportion to it, so what
    is left at length 0 is 2 f(length / 2) - f(length).

    Args:
        c: sizes; the lengths must be even.
        blocks: as in `flops_per_token`.

    Returns:
        FLOP a token.
    """
    half = c._replace(
        encoder_tokens=c.encoder_tokens // 2, decoder_tokens=c.decoder_tokens // 2
    )
    return 2 * flops_per_token(half, blocks) - flops_per_token(c, blocks)


def parameters(c: Config, blocks: Blocks) -> Params:
    """Shapes of all parameters, layers stacked.

    Args:
        c: sizes.
        blocks: as in `flops_per_token`.

    Returns:
        A tree of `jax.ShapeDtypeStruct`; ``embed`` serves input and output.
    """

    def stacked(shapes: Shapes, layers: int) -> Params:
        return jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct((layers, *shape), jnp.float32),
            shapes,
            is_leaf=lambda node: isinstance(node, tuple),
        )

    return {
        "embed": jax.ShapeDtypeStruct((c.vocabulary, c.width), jnp.float32),
        "encoder": stacked(blocks.encoder, c.encoder_layers),
        "decoder": stacked(blocks.decoder, c.decoder_layers),
    }


def _attention(c: Config) -> Shapes:
    inner = (c.width, c.heads, c.head_width)
    return {"q": inner, "k": inner, "v": inner, "o": (c.heads, c.head_width, c.width)}


def _plain(c: Config) -> Shapes:
    return {"in": (c.width, c.ff_width), "out": (c.ff_width, c.width)}


def _stack(
    layer: Function,
    params: Params,
    x: jax.Array,
    encoded: jax.Array | None = None,
) -> jax.Array:
    return lax.scan(lambda h, p: (layer(p, h, encoded), None), x, params)[0]


def _attend(p: Params, x: jax.Array, memory: jax.Array) -> jax.Array:
    queries = jnp.einsum("td,dhk->htk", x, p["q"])
    keys, values = (jnp.einsum("sd,dhk->hsk", memory, p[name]) for name in "kv")
    weights = jax.nn.softmax(jnp.einsum("htk,hsk->hts", queries, keys))
    return jnp.einsum(
        "htk,hkd->td", jnp.einsum("hts,hsk->htk", weights, values), p["o"]
    )


def _feed_forward(p: Params, x: jax.Array, activation: Function) -> jax.Array:
    return activation(x @ p["in"]) @ p["out"]


def _norm(x: jax.Array) -> jax.Array:
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def _convolve(x: jax.Array, kernel: jax.Array, groups: int = 1) -> jax.Array:
    """Convolution over time of states [t, d] with a kernel [taps, d / groups, e]."""
    return lax.conv_general_dilated(
        x[None],
        kernel,
        window_strides=(1,),
        padding="SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
    )[0]


def _separable(p: Params, x: jax.Array) -> jax.Array:
    return _convolve(x, p["depth"], groups=x.shape[1]) @ p["point"]


def _widen(x: jax.Array, width: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, width - x.shape[1])))
