"""FedGen that shares the last layer only (head).

Question: what does a generator gain if devices share none of their feature layers?

    python scripts/train.py --config configs/federated/fedgen_head.py
    python scripts/sweep.py --config configs/federated/fedgen_head.py --seeds 0,1,2

Result: 67.5 % (69.3 with plain Dirichlet shares). A device sends 1,368 bytes a round,
and is sent 82,344, nearly all of them the generator. Expected: 65.4 % (`B3` in
`papers_repro/fedgen/`).
"""

from ecogen_jax.config import ConfigDict, parse_arg
from ecogen_jax.config_presets import federated


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = federated("federated_fedgen_head", "fedgen")
    config.federated.share = "head"
    parse_arg(config, arg)
    return config
