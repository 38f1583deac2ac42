"""The losses of a data-free hop, each with its equation.

Notation: teacher logits `t`, student logits `s`, `p = softmax(t)`,
`q = softmax(s)`, temperature `T`. All return a scalar mean over the batch and use
natural logarithms.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from ecogen_jax.types import Labels, Logits, PyTree

Scalar = Float[Array, ""]


def cross_entropy(logits: Logits, labels: Labels) -> Scalar:
    """`-mean_i log softmax(logits_i)[labels_i]`."""
    # No indexing, since its gradient is a scatter; no product, as a logit may be -inf.
    asked = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    log_q = jnp.where(asked, jax.nn.log_softmax(logits), 0.0)
    return -jnp.mean(jnp.sum(log_q, axis=-1))


def label_divergence(logits: Logits, shares: Logits) -> Scalar:
    """`mean_i sum_c y_ic log(y_ic / p_ic)` with `p = softmax(logits)` and shares `y`.

    For images of one class each, this is `cross_entropy`.
    """
    # A logit may be -inf, and 0 log 0 is 0.
    log_p = jnp.where(shares > 0, jax.nn.log_softmax(logits), 0.0)
    log_y = jnp.log(jnp.where(shares > 0, shares, 1.0))
    return jnp.mean(jnp.sum(shares * (log_y - log_p), axis=-1))


def hard_cross_entropy(logits: Logits, labels: Labels) -> Scalar:
    """`-mean_i (1 - p_i) log p_i` with `p_i = softmax(logits_i)[labels_i]`.

    The factor has no gradient; images that are classified easily get a small weight.
    Co-Boosting (Dai et al., ICLR 2024), after the focal loss of Lin et al. (ICCV 2017)
    with exponent 1.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(jax.lax.stop_gradient(1 - jnp.exp(-losses)) * losses)


def kl_divergence(
    teacher: Logits, student: Logits, temperature: float
) -> Float[Array, " batch"]:
    """Distillation loss per image, `T^2 KL(softmax(t / T) || softmax(s / T))`.

    The factor `T^2` keeps the scale of the gradients when `T` changes (Hinton et al.,
    "Distilling the knowledge in a neural network", 2015, section 2).
    """
    log_p = jax.nn.log_softmax(teacher / temperature)
    log_q = jax.nn.log_softmax(student / temperature)
    return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def js_divergence(
    teacher: Logits, student: Logits, temperature: float
) -> Float[Array, " batch"]:
    """Jensen-Shannon divergence per image, in nats: at most `log 2`.

    `KL(p || m) / 2 + KL(q || m) / 2` with `m = (p + q) / 2`, both softened by the
    temperature (adaptive DeepInversion, Yin et al., CVPR 2020, equation 7, with T = 3).
    """
    log_p = jax.nn.log_softmax(teacher / temperature)
    log_q = jax.nn.log_softmax(student / temperature)
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    terms = jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m)
    return jnp.sum(terms, axis=-1) / 2


def logit_distance(teacher: Logits, student: Logits) -> Float[Array, " batch"]:
    """Mean absolute difference of the logits per image (DFAD, Fang et al. 2019)."""
    return jnp.mean(jnp.abs(teacher - student), axis=-1)


def one_hot(logits: Logits) -> Scalar:
    """Cross-entropy of the logits with their own largest class.

    Lowest if the teacher is certain (DAFL, Chen et al., ICCV 2019, equation 4).
    """
    return cross_entropy(logits, jnp.argmax(logits, axis=-1).astype(jnp.int32))


def activation(features: Float[Array, "batch features"]) -> Scalar:
    """`-mean |f|`: real images excite a teacher's features more than noise does.

    DAFL (Chen et al., ICCV 2019, equation 5). For a teacher without BatchNorm this
    stands in for `batchnorm_statistics`.
    """
    return -jnp.mean(jnp.abs(features))


def total_variation(images: Float[Array, "batch height width channels"]) -> Scalar:
    """Root of the squared differences of neighbours, summed over four directions.

    The image prior of DeepInversion (Yin et al., CVPR 2020, equation 2): the norm is
    taken over the whole batch.
    """
    down, across = images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]
    falling = images[:, 1:, 1:] - images[:, :-1, :-1]
    rising = images[:, 1:, :-1] - images[:, :-1, 1:]
    differences = (down, across, falling, rising)
    return jnp.sum(jnp.stack([_norm(each.reshape(-1)) for each in differences]))


def attention(teacher: tuple[Array, ...], student: tuple[Array, ...]) -> Scalar:
    """Squared difference of normalised attention maps, `sum_l mean (a_l - b_l)^2`.

    A map is the mean over channels of squared activations, divided by its norm over
    the image (Zagoruyko and Komodakis, ICLR 2017; ZSKT, Micaelli and Storkey 2019).

    Args:
      teacher: spatial activations, `[batch, height, width, channels]` each.
      student: likewise; only the channels may differ.

    Raises:
      ValueError: the maps of the two nets do not have the same sizes.
    """
    sizes = [[a.shape[:3] for a in maps] for maps in (teacher, student)]
    if sizes[0] != sizes[1] or not teacher:
        raise ValueError(
            f"attention needs stage maps of equal size, not {sizes[0]} and {sizes[1]}: "
            "choose nets of one family, or set the weight of attention to 0"
        )
    pairs = zip(teacher, student, strict=True)
    terms = [jnp.mean(jnp.square(_attention(a) - _attention(b))) for a, b in pairs]
    return jnp.sum(jnp.stack(terms))


def _attention(
    maps: Float[Array, "batch height width channels"],
) -> Float[Array, "batch positions"]:
    flat = jnp.mean(jnp.square(maps), axis=-1).reshape(maps.shape[0], -1)
    norm = jnp.sqrt(jnp.sum(jnp.square(flat), axis=-1, keepdims=True) + 1e-12)
    return flat / norm


def distillation(teacher: Logits, student: Logits, *, temperature: float) -> Scalar:
    """Batch mean of `kl_divergence`."""
    return jnp.mean(kl_divergence(teacher, student, temperature))


def batchnorm_statistics(moments: PyTree, stats: PyTree) -> Scalar:
    """`sum_l ||mu_l(x) - mu_l||_2 + ||var_l(x) - var_l||_2` over BatchNorm layers.

    Norms are not squared and variances are biased, on each layer's input, as in the
    code of the DeepInversion family (Yin et al., CVPR 2020, equation 4).

    For a net without running feature statistics, the loss is 0.

    Args:
      moments: mean and variance of the generated batch at each layer.
      stats: running mean and variance of the teacher, same structure.
    """
    norms = jax.tree.leaves(jax.tree.map(lambda a, b: _norm(a - b), moments, stats))
    return jnp.sum(jnp.stack(norms)) if norms else jnp.zeros(())


def _norm(x: Float[Array, " size"]) -> Scalar:
    # The floor keeps the gradient finite if the difference is zero.
    return jnp.sqrt(jnp.sum(jnp.square(x)) + 1e-12)


def normal_divergence(
    mean: Float[Array, "batch latent"], log_variance: Float[Array, "batch latent"]
) -> Scalar:
    """`mean_i KL(N(mu_i, sigma_i^2) || N(0, 1))`, summed over the latent vector.

    `(mu^2 + sigma^2 - 1 - log sigma^2) / 2` each (Kingma and Welling, ICLR 2014,
    appendix B).
    """
    terms = jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance
    return jnp.mean(jnp.sum(terms, axis=-1)) / 2


def class_balance(logits: Logits) -> Scalar:
    """`sum_c m_c log m_c` with `m = mean_i softmax(logits_i)`: lowest if balanced.

    The information-entropy term of DAFL (Chen et al., ICCV 2019, equation 6), with
    the natural logarithm.
    """
    mean = jnp.mean(jax.nn.softmax(logits), axis=0)
    return jnp.sum(mean * jnp.log(mean + 1e-12))


def info_nce(
    anchors: Float[Array, "batch features"],
    positives: Float[Array, "batch features"],
    negatives: Float[Array, "memory features"],
    known: Bool[Array, " memory"],
    *,
    temperature: float,
) -> Scalar:
    """Finds each anchor's own positive among the batch's and all known negatives.

    `-mean_i log(e(a_i, p_i) / (sum_j e(a_i, p_j) + sum_k known_k e(a_i, n_k)))` with
    `e(a, b) = exp(a . b / temperature)` (van den Oord et al., "Representation learning
    with contrastive predictive coding", 2018, equation 4).

    Args:
      anchors: `a`, unit vectors.
      positives: `p`, unit vectors; those of other anchors are negatives.
      negatives: `n`, unit vectors.
      known: which of the negatives count.
      temperature: smaller values give more weight to the nearest negatives.
    """
    others = jnp.where(known[None], anchors @ negatives.T, -jnp.inf)
    scores = jnp.concatenate([anchors @ positives.T, others], axis=1) / temperature
    own = jnp.arange(len(anchors), dtype=jnp.int32)
    return cross_entropy(scores, own)


ADVERSARIAL_MASKS = ("none", "agree", "disagree")


def adversarial(
    divergence: Float[Array, " batch"], teacher: Logits, student: Logits, *, mask: str
) -> Scalar:
    """`-mean_i m_i d_i`: rewards images on which the student errs.

    Args:
      divergence: `d`, distance of the two outputs on each image, by `kl_divergence`
        (ZSKT, DFQ), `js_divergence` (DeepInversion) or `logit_distance` (DFAD).
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
    return -jnp.mean(jnp.where(keep, divergence, 0.0))
