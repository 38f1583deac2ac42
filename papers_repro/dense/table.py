"""The tables: the bars of this folder, and the claims beside them."""

from papers_repro.dense.experiments import EXPERIMENTS, HERE
from papers_repro.hops import CURVE
from papers_repro.paper import Paper

PAPER = Paper(
    folder=HERE,
    title="One shot from non-IID clients: ours beside what was published",
    command="python -m papers_repro.dense.reproduce",
    seeds={id: one.seeds for id, one in EXPERIMENTS.items()},
    family=lambda id: [],
    columns={name: name.replace("_", " ") for name in CURVE},
)
