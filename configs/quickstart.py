"""Quickstart."""

from ecogen_jax.config import ConfigDict, default, parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """The config; `smoke` shrinks it to generated data and seconds."""
    config = default()
    config.experiment = "quickstart"
    config.protocol.cycles = 1
    config.pretrain.update(rounds=5, steps=100, learning_rate=2e-3)
    config.down_cloud_edge.update(rounds=5, steps=40)
    config.down_edge_end.update(rounds=5, steps=40)
    config.local.update(rounds=4, steps=50)
    config.up_end_edge.update(rounds=4, steps=30)
    config.up_edge_cloud.update(rounds=4, steps=20)
    parse_arg(config, arg)
    return config
