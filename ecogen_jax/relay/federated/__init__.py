"""Federated methods by name: one file each, see `base.Method`."""

from ecogen_jax.relay.federated.alone import alone
from ecogen_jax.relay.federated.ensemble_rounds import ensemble_rounds
from ecogen_jax.relay.federated.fedavg import fedavg
from ecogen_jax.relay.federated.feddf import feddf
from ecogen_jax.relay.federated.feddistill import feddistill
from ecogen_jax.relay.federated.fedftg import fedftg
from ecogen_jax.relay.federated.fedgen import fedgen
from ecogen_jax.relay.federated.fedopt import fedadam, fedavgm
from ecogen_jax.relay.federated.fedprox import fedprox
from ecogen_jax.relay.federated.hierarchical import hierarchical
from ecogen_jax.relay.federated.relay_rounds import relay_rounds
from ecogen_jax.relay.federated.scaffold import scaffold

FEDERATED = {
    "alone": alone,
    "co_boosting_rounds": ensemble_rounds,
    "dense_rounds": ensemble_rounds,
    "fedadam": fedadam,
    "fedavg": fedavg,
    "fedavgm": fedavgm,
    "feddf": feddf,
    "feddistill": feddistill,
    "fedftg": fedftg,
    "fedgen": fedgen,
    "fedprox": fedprox,
    "hierarchical": hierarchical,
    "relay_rounds": relay_rounds,
    "scaffold": scaffold,
}
