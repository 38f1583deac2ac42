"""Forecasts the cost of a config: nothing is downloaded, trained or written.

  python scripts/energy.py --config configs/relay_cycle.py
  python scripts/energy.py --config configs/relay_cycle.py --config.data.name=cifar10

FLOPs and bytes are those of the run; joules and grams are modelled, with intervals.
Any field of the schema (ecogen_jax/config.py: default) can be overridden with
--config.FIELD=VALUE. The content of the images does not matter, so no data is needed.
"""

import sys

from rich.console import Console

from ecogen_jax import config as configs
from ecogen_jax.run.command import read_config


def main() -> int:
    """Parses the command line and forecasts."""
    try:
        report(read_config(__doc__))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(config: configs.ConfigDict) -> None:
    """Forecasts and prints the table by phase and place, and the totals."""
    from ecogen_jax.energy import ledger, uncertainty
    from ecogen_jax.report import energy, tables
    from ecogen_jax.run.preflight import forecast

    experiment, entries = forecast(config)
    rates = experiment.rates
    found = uncertainty.analyse(rates, uncertainty.count(entries, rates))
    frame = ledger.to_frame(entries)
    shown = (energy.forecast(frame), energy.totals(uncertainty.to_json(found)))
    for table in shown:
        tables.print_whole(tables.to_rich(table))
    Console().print(
        f"{config.experiment} on {config.data.name}, modelled; grid: "
        f"{config.energy.country}; links: {rates.link_view} view",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
