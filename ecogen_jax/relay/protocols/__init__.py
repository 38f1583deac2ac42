"""Protocols by name: lists of stages, one file each."""

from ecogen_jax.relay.federated import FEDERATED
from ecogen_jax.relay.protocols.federated import federated
from ecogen_jax.relay.protocols.hops import hops
from ecogen_jax.relay.protocols.relay_cycle import relay_cycle

PROTOCOLS = {
    "hops": hops,
    "relay_cycle": relay_cycle,
    **dict.fromkeys(FEDERATED, federated),
}
