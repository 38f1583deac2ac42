"""The precision of a net: the dtype of its products.

| name | operands of products | everything else |
|---|---|---|
| `f32` | float32 | float32 |
| `bf16` | bfloat16 | float32 |

Products are matrix products and convolutions, in the value and in both gradients. In
`bf16` each of these rounds both operands to bfloat16; the products of such numbers are
exact in float32, and are accumulated in float32. So parameters, optimiser states,
BatchNorm statistics, activations, logits and losses stay float32. As bfloat16 has the
range of float32, no loss scaling is needed (Kalamkar et al., "A study of BFLOAT16 for
deep learning training", arXiv 1905.12322, 2019).

The precision of a float32 product depends on JAX: float32 on a CPU, by default
TensorFloat-32 on a GPU that has it, and one bfloat16 pass on a TPU.
`JAX_DEFAULT_MATMUL_PRECISION=float32` in the environment gives full float32.
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
