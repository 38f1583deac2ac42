"""Settings that several experiments share."""

from ml_collections import ConfigDict

from ecogen_jax.config import default


def from_lenet(experiment: str, *route: str, dataset: str = "mnist") -> ConfigDict:
    """One cloud, edge and device; a LeNet-5 trained on all but 5,000 public images.

    Args:
      experiment: names the folder of the runs.
      *route: hops as "sender>receiver", in order.
      dataset: of 60,000 training images.
    """
    config = _hops(experiment, *route)
    config.data.update(name=dataset, public_fraction=1.0, validation_fraction=1 / 12)
    config.topology.update(num_edges=1, devices_per_edge=1)
    config.nets.update(cloud="lenet5", edge="lenet5_half", end="lenet5_quarter")
    config.pretrain.update(rounds=10, steps=215, batch_size=128, learning_rate=2e-3)
    return config


def from_skewed_devices(experiment: str, *route: str, num_edges: int = 1) -> ConfigDict:
    """Five devices below each edge, each trained alone on non-IID private images.

    Args:
      experiment: names the folder of the runs.
      *route: hops as "sender>receiver", in order.
      num_edges: edges below the cloud.
    """
    config = _hops(experiment, *route)
    config.data.update(public_fraction=0.0, validation_fraction=1 / 12, alpha=0.1)
    config.topology.update(num_edges=num_edges, devices_per_edge=5)
    config.local.update(rounds=10, steps=100, batch_size=64)
    return config


def _hops(experiment: str, *route: str) -> ConfigDict:
    config = default()
    config.experiment = experiment
    config.protocol.update(name="hops", cycles=1, route=route)
    return config


def for_lenets(config: ConfigDict, *hops: str) -> None:
    """Sets the values that were best on validation between LeNets on MNIST, in place.

    Choose the weight of the adversarial term again for another dataset: on
    Fashion-MNIST this one harms the student, see `configs/hops/a4.py`.

    The logits of LeNets have no bound. Without a mask, the adversarial term drives them
    ever higher and harms the student; on images where teacher and student agree, it
    does not (`ablation.any_adversary` in `papers_repro/dfkd/`).

    Args:
      config: of hops between nets with running feature statistics.
      *hops: names of the sections.
    """
    config.generator.width = 8
    for name in hops:
        config[name].update(
            bank_size=16384,
            learning_rate=4e-3,
            temperature=8.0,
            shift=2,
            adversarial_mask="agree",
        )
        config[name].weights.update(batchnorm=0.3, adversarial=2.0)


def for_skewed_teachers(config: ConfigDict, *hops: str) -> None:
    """Sets the values that were best on validation for up hops from non-IID devices.

    The weight of the statistics term is for statistics under each teacher's own label
    mix (`ensemble.ensemble`). With equal weights for all images, the statistics of
    non-IID teachers contradicted each other, and 0.3 was best. The weight was chosen at
    the edges of D2, on one partition.

    The config sets the number of rounds. More rounds help with a few small teachers:
    the edges of D2 gained 1.6 points with 30 rounds of 40 steps instead of 10.

    Args:
      config: changed in place; of hops with several teachers and new students.
      *hops: names of the sections.
    """
    for name in hops:
        config[name].update(
            bank_size=16384,
            learning_rate=2e-3,
            temperature=4.0,
            shift=2,
            teacher_weights="by_class",
        )
        config[name].weights.update(batchnorm=3.0, adversarial=0.3)


def federated(experiment: str, method: str) -> ConfigDict:
    """FedGen's published protocol: 20 devices, 10 a round, 200 rounds of 20 steps.

    15,000 training images are split over the devices (their code takes 1,500 of each
    class for 20 users), 6,000 are kept for validation, and the rest is not used. Zhu et
    al., ICML 2021, section 5, with the MNIST settings of their code.

    Args:
      experiment: names the folder of the runs.
      method: of `protocol.name`.
    """
    config = default()
    config.experiment = experiment
    config.protocol.update(name=method, cycles=1)
    # 0.9 of 5/18 of 60,000 images are training images.
    config.data.update(public_fraction=13 / 18, validation_fraction=0.1, alpha=0.1)
    config.data.partition = "dirichlet_capped"
    config.topology.update(num_edges=2, devices_per_edge=10)
    config.nets.update(cloud="cnn_fedgen", edge="cnn_fedgen", end="cnn_fedgen")
    config.federated.update(
        rounds=200, active=10, steps=20, batch_size=32, learning_rate=0.01, decay=0.99
    )
    config.federated.update(statistics="own", evaluate_every=20)
    return config
