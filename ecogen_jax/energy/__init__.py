"""What a run costs: sourced constants, a FLOP meter and the ledger of joules and grams.

Only the meter needs JAX, so reports can read constants and ledgers without it.
"""
