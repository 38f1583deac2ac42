"""The losses of a data-free hop, each with its equation.

Notation: teacher logits `t`, student logits `s`, `p = softmax(t)`,
`q = softmax(s)`, temperature `T`. All return a scalar mean over the batch and use
natural logarithms.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ecogen_jax.types import Labels, Logits, PyTree

Scalar = Float[Array, ""]


def cross_entropy(logits: Logits, labels: Labels) -> Scalar:
    """`-mean_i log softmax(logits_i)[labels_i]`."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses)


def kl_divergence(
    teacher: Logits, student: Logits, temperature: float
) -> Float[Array, " batch"]:
    """Distillation loss per image, `T^2 KL(softmax(t / T) || softmax(s / T))`.

    The factor `T^2` keeps gradients of one size when `T` changes (Hinton et al.,
    "Distilling the knowledge in a neural network", 2015, section 2).
    """
    log_p = jax.nn.log_softmax(teacher / temperature)
    log_q = jax.nn.log_softmax(student / temperature)
    return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def distillation(teacher: Logits, student: Logits, *, temperature: float) -> Scalar:
    """Batch mean of `kl_divergence`."""
    return jnp.mean(kl_divergence(teacher, student, temperature))


def batchnorm_statistics(moments: PyTree, stats: PyTree) -> Scalar:
    """`sum_l ||mu_l(x) - mu_l||_2 + ||var_l(x) - var_l||_2` over BatchNorm layers.

    Norms are not squared and variances are biased, on each layer's input, as in the
    code of the DeepInversion family (Yin et al., CVPR 2020, equation 4).

    Args:
      moments: mean and variance of the generated batch at each layer.
      stats: running mean and variance of the teacher, same structure.
    """
    norms = jax.tree.map(lambda a, b: _norm(a - b), moments, stats)
    return jnp.sum(jnp.stack(jax.tree.leaves(norms)))


def _norm(x: Float[Array, " channels"]) -> Scalar:
    # The floor keeps the gradient finite where the difference is zero.
    return jnp.sqrt(jnp.sum(jnp.square(x)) + 1e-12)


def class_balance(logits: Logits) -> Scalar:
    """`sum_c m_c log m_c` with `m = mean_i softmax(logits_i)`: least when balanced.

    The information-entropy term of DAFL (Chen et al., ICCV 2019, equation 6), with
    the natural logarithm.
    """
    mean = jnp.mean(jax.nn.softmax(logits), axis=0)
    return jnp.sum(mean * jnp.log(mean + 1e-12))


ADVERSARIAL_MASKS = ("none", "agree", "disagree")


def adversarial(teacher: Logits, student: Logits, *, mask: str) -> Scalar:
    """`-mean_i m_i KL(p_i || q_i)`: rewards images on which the student errs.

    Args:
      teacher: logits `t`.
      student: logits `s`.
      mask: `m_i` is 1 for every image (`none`: DFQ, Choi et al. 2020), only where
        both predict the same class (`agree`: CMI, Fang et al. 2021), or only where
        they differ (`disagree`: DENSE, Zhang et al. 2022).

    Raises:
      ValueError: the mask is none of these.
    """
    if mask not in ADVERSARIAL_MASKS:
        allowed = ", ".join(ADVERSARIAL_MASKS)
        raise ValueError(f"adversarial_mask is {mask!r}; allowed: {allowed}")
    same = jnp.argmax(teacher, axis=-1) == jnp.argmax(student, axis=-1)
    keep = {"none": jnp.ones_like(same), "agree": same, "disagree": ~same}[mask]
    divergence = kl_divergence(teacher, student, 1.0)
    return -jnp.mean(jnp.where(keep, divergence, 0.0))
