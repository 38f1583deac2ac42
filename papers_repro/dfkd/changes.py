"""What the distillers of A4 try in their further trials, one change a trial.

Shifted images, a larger bank and other weights are also what trials of `relay` were
about.
"""

from collections.abc import Mapping

FIRST: Mapping[str, tuple[str, ...]] = {
    "dafl": (
        "learning_rate=0.008",
        "generator_learning_rate=0.08",
        "generator_learning_rate=0.5",
        "shift=2",
        "temperature=4",
        "weights.balance=10",
        "weights.activation=0",
    ),
    "zskt": (
        "learning_rate=0.004",
        "learning_rate=0.008",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=4",
        "weights.attention=250",
        "generator_average=0.9",
    ),
    "dfad": (
        "learning_rate=0.008",
        "learning_rate=0.016",
        "generator_learning_rate=0.005",
        "generator_learning_rate=0.0003",
        "shift=2",
        "generator_average=0.9",
        "generator_average=0.99",
    ),
    "dfq": (
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=4",
        "weights.adversarial=0.3",
        "weights.balance=5",
        "weights.batchnorm=3",
    ),
    "deep_inversion": (
        "generator_learning_rate=0.02",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0",
        "weights.adversarial=1",
        "weights.batchnorm=1",
        "weights.total_variation=0",
    ),
    "cmi": (
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0.15",
        "weights.batchnorm=10",
        "weights.contrastive=0.2",
    ),
    "fast": (
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0.3",
        "weights.batchnorm=1",
        "bank_size=16384",
    ),
    "nayer": (
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0.3",
        "weights.batchnorm=1",
        "weights.cross_entropy=1",
    ),
    "pre_dfkd": (
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=1",
        "weights.adversarial=0",
        "weights.adversarial=1",
        "weights.balance=10",
        "weights.activation=0",
    ),
    "dense": (
        "learning_rate=0.001",
        "learning_rate=0.004",
        "generator_learning_rate=0.05",
        "shift=2",
        "temperature=8",
        "weights.adversarial=0.3",
        "weights.batchnorm=10",
    ),
    "co_boosting": (
        "learning_rate=0.008",
        "generator_learning_rate=0.005",
        "shift=2",
        "temperature=20",
        "weights.adversarial=0.1",
        "weights.adversarial=0.3",
        "weights.batchnorm=1",
    ),
}
"""What a distiller tries beside what `tune` chose."""

SECOND: Mapping[str, tuple[str, ...]] = {
    "dfq": (
        "learning_rate=0.001",
        "learning_rate=0.004",
        "generator_learning_rate=0.03",
        "generator_learning_rate=0.1",
        "temperature=4",
        "temperature=20",
        "weights.adversarial=0.3",
        "weights.adversarial=3",
        "weights.balance=5",
        "weights.batchnorm=0.3",
        "weights.batchnorm=3",
        "generator_average=0.9",
    ),
    "fast": (
        "learning_rate=0.001",
        "learning_rate=0.004",
        "generator_learning_rate=0.03",
        "generator_learning_rate=0.1",
        "temperature=8",
        "weights.adversarial=0.3",
        "weights.adversarial=2",
        "weights.batchnorm=1",
        "weights.batchnorm=3",
        "weights.cross_entropy=1",
        "bank_size=8192",
        "bank_size=16384",
    ),
    "nayer": (
        "learning_rate=0.001",
        "learning_rate=0.004",
        "generator_learning_rate=0.03",
        "generator_learning_rate=0.1",
        "temperature=8",
        "weights.adversarial=0.3",
        "weights.adversarial=3",
        "weights.batchnorm=1",
        "weights.batchnorm=3",
        "weights.cross_entropy=1",
        "batchnorm_momentum=1.0",
        "bank_size=16384",
    ),
}
"""What it tries beside what the first stage chose.

Only those that then ended within three points of the best: the next is five below it.
"""

THIRD: Mapping[str, tuple[str, ...]] = {
    "fast": (
        "steps=2 student_steps=200",
        "steps=4 student_steps=100",
        "inner_steps=10",
        "batchnorm_momentum=1.0",
        "weights.cross_entropy=2",
        "weights.adversarial=2",
    ),
    "nayer": (
        "steps=1 student_steps=400",
        "steps=4 student_steps=100 inner_steps=15",
        "inner_steps=15",
        "generator_learning_rate=0.03",
        "weights.cross_entropy=1",
        "weights.adversarial=2",
    ),
}
"""What it tries beside what the second stage chose, to have about as many as `relay`.

Only those that then ended a point or more above `relay`. Half are about how the seconds
are divided between generator and student, as the latest trials of `relay` are.
"""
