"""Distillers by name: the algorithms of a hop, one file each."""

from ecogen_jax.relay.distillers.relay import relay

DISTILLERS = {"relay": relay}
