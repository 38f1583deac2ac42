r"""Two virtuous cycles with the full budget: the numbers that are reported.

Question: do knowledge down and knowledge up help every tier, on global accuracy and on
each device's own distribution, against training alone on the same private data?

    python scripts/train.py --config configs/relay_cycle.py
    python scripts/sweep.py --config configs/relay_cycle.py --seeds 0,1,2 \
        --grid data.name=mnist,fashion_mnist

Expected: edges above 96 % of the teacher's test accuracy after the first down hop, end
devices more than 20 points above local training alone, the cloud not below where it
started. The tables that were printed are in `papers_repro/relay_cycle/tables/`.
"""

from ecogen_jax.config import ConfigDict, default, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "relay_cycle"
    parse_arg(config, arg)
    return config
