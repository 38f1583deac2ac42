r"""The first hop of `relay_cycle.py` beside distillation on the cloud's own images.

Question: what does it cost the edge that the cloud's images stay where they are? The
same teacher, student and number of student steps, once on generated and once on the
public images.

    python scripts/train.py --config configs/relay_reference.py
    python scripts/sweep.py --config configs/relay_reference.py --seeds 0,1,2 \
        --grid data.name=mnist,fashion_mnist

Result, three seeds: on MNIST an edge has 99.9 % of the cloud's test accuracy by its own
images, and 98.1 % by generated ones; on Fashion-MNIST 99.5 and 87.6 % (`S1` in
`papers_repro/relay_cycle/`).
"""

from ecogen_jax.config import ConfigDict, default, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "relay_reference"
    config.protocol.update(name="hops", cycles=1, route=("cloud>edge",))
    config.protocol.baselines = ("kd",)
    parse_arg(config, arg)
    return config
