"""Runs the runs of a plan on a testbed and seals each: cache states, proofs, load, ledger."""
