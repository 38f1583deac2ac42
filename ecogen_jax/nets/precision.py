"""The precision of a net: what its products are computed in.

| name | operands of products | everything else |
|---|---|---|
| `f32` | float32 | float32 |
| `bf16` | bfloat16 | float32 |

A product is a matrix product or a convolution, and each is one of three: the value and
the two gradients. In `bf16` each of the three rounds both of its operands to bfloat16;
products of such numbers are exact in float32, and are added up there. So parameters,
optimiser states, statistics of BatchNorm, activations, logits and losses stay float32,
and as bfloat16 has the range of float32, no loss has to be scaled (Kalamkar et al., "A
study of BFLOAT16 for deep learning training", arXiv 1905.12322, 2019).

How exact a product of float32 is, JAX says: on a CPU it is float32, and by default on a
GPU TensorFloat-32, where there is any, and on a TPU one pass of bfloat16. In full it
comes with `JAX_DEFAULT_MATMUL_PRECISION=float32` in the environment.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ecogen_jax.nets import dense
from ecogen_jax.nets.functional import Net, Output, Variables

OPERANDS = {"f32": jnp.float32, "bf16": jnp.bfloat16}
"""The dtype of operands by the name of a precision."""
PRECISIONS = tuple(OPERANDS)

_precision = jax.make_user_context("f32")


def at_precision(net: Net, precision: str) -> Net:
    """A net that computes at a precision.

    Args:
      net: of layers that take their products from here.
      precision: one of `PRECISIONS`.

    Returns:
      The net with the same parameters, which stay float32.
    """

    def apply(variables: Variables, *inputs: jax.Array, train: bool) -> Output:
        with _precision(precision):
            return net.apply(variables, *inputs, train=train)

    return Net(net.init, apply)


def operand_dtype() -> Any:
    """The dtype of operands in the net that is being traced."""
    return OPERANDS[_precision.value]


def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Matrix product at the precision of the net that is being traced.

    Args:
      x: float32 `[..., inputs]`.
      kernel: float32 `[inputs, outputs]`.

    Returns:
      float32 `[..., outputs]`.
    """
    if operand_dtype() == jnp.float32:
        return dense.matmul(x, kernel)
    product = _in_bf16(x.reshape(-1, x.shape[-1]), kernel)
    return product.reshape(*x.shape[:-1], kernel.shape[1])


# JAX's own gradient of a product with a wider result multiplies in the wider dtype.
@jax.custom_vjp
def _in_bf16(first: jax.Array, second: jax.Array) -> jax.Array:
    operands = first.astype(jnp.bfloat16), second.astype(jnp.bfloat16)
    return jnp.matmul(*operands, preferred_element_type=jnp.float32)


_in_bf16.defvjp(
    lambda first, second: (_in_bf16(first, second), (first, second)),
    lambda saved, out: (_in_bf16(out, saved[1].T), _in_bf16(saved[0].T, out)),
)
