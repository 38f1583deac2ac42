"""Protocols by name: lists of stages, one file each."""

from ecogen_jax.relay.protocols.relay_cycle import relay_cycle

PROTOCOLS = {"relay_cycle": relay_cycle}
