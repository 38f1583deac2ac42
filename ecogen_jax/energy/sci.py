"""Software Carbon Intensity of a run (ISO/IEC 21031:2024): SCI = (O + M) / R.

O is the location-based operational carbon, M the share of the embodied carbon of the
devices, R the functional unit. Contracts for carbon-free energy are not included.
"""

from collections.abc import Sequence
from typing import Any

from ecogen_jax.energy.accounting import sci_g
from ecogen_jax.energy.ledger import Entry


def sci(
    entries: Sequence[Entry], *, cycles: int, inferences: int, includes_idle: bool
) -> dict[str, Any]:
    """Puts the carbon of a whole run in relation to what it did.

    Args:
        entries: the whole ledger, training included.
        cycles: functional units of the first kind.
        inferences: functional units of the second kind: images answered.
        includes_idle: whether the ledger has the energy of waiting parties, which the
            standard asks for.

    Returns:
        O and M in grams, the two kinds of R, and SCI for each in grams. Devices
        without a source for embodied carbon are left out of M and named in
        ``embodied_unknown``.
    """
    operational_g = sum(entry.carbon_location_g for entry in entries)
    embodied_g = sum(entry.embodied_g or 0.0 for entry in entries)
    unknown = {entry.place for entry in entries if entry.embodied_g is None}
    return {
        "operational_g": operational_g,
        "embodied_g": embodied_g,
        "embodied_unknown": sorted(unknown),
        "includes_idle": includes_idle,
        "cycles": cycles,
        "inferences": inferences,
        "g_per_cycle": sci_g(operational_g, embodied_g, cycles),
        "g_per_inference": sci_g(operational_g, embodied_g, inferences),
    }
