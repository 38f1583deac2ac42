"""Distillers by name: the algorithms of a hop, one file each."""

from ecogen_jax.relay.distillers.cmi import CMI
from ecogen_jax.relay.distillers.co_boosting import CO_BOOSTING
from ecogen_jax.relay.distillers.dafl import DAFL
from ecogen_jax.relay.distillers.deep_inversion import DEEP_INVERSION
from ecogen_jax.relay.distillers.dense import DENSE
from ecogen_jax.relay.distillers.dfad import DFAD
from ecogen_jax.relay.distillers.dfq import DFQ
from ecogen_jax.relay.distillers.fast import FAST
from ecogen_jax.relay.distillers.nayer import NAYER
from ecogen_jax.relay.distillers.pre_dfkd import PRE_DFKD
from ecogen_jax.relay.distillers.relay import RELAY
from ecogen_jax.relay.distillers.zskt import ZSKT

DISTILLERS = {
    "cmi": CMI,
    "co_boosting": CO_BOOSTING,
    "dafl": DAFL,
    "deep_inversion": DEEP_INVERSION,
    "dense": DENSE,
    "dfad": DFAD,
    "dfq": DFQ,
    "fast": FAST,
    "nayer": NAYER,
    "pre_dfkd": PRE_DFKD,
    "relay": RELAY,
    "zskt": ZSKT,
}
